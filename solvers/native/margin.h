// Layers across the last axis, at the margins of rows: a vector of places at a time. What the places
// before have found stays in registers. This file is included as wave.h is.

struct Margin {
  int64_t stride, count;  // from a row to the next one; of rows
};

constexpr int kTogether = VECTOR == 64 ? 4 : 2;  // rows: as many as registers hold

// Fetch what the rows after the next ones remember. It lies beside what these do, but is met too seldom
// for processors of AMD's (Zen 3) to foresee it.
template <typename T>
INLINED void look_ahead(const T* memory, int64_t size) {
  for (int64_t i = 0; i < size; i += 64 / sizeof(T)) __builtin_prefetch(memory + 2 * size + i);
}

// The last vectors of a row's values, as many as HALF places behind them need.
template <int HALF, typename T>
struct Wake {
  static constexpr int kBehind = (HALF + kWide<T> - 1) / kWide<T>;
  Vector<T> of[kBehind + 1] = {};

  INLINED void push(const Vector<T>& now) {
    for (int n = 0; n < kBehind; ++n) of[n] = of[n + 1];
    of[kBehind] = now;
  }
  // The values so many places behind.
  template <int PLACES>
  INLINED Vector<T> behind() const {
    constexpr int place = kBehind * kWide<T> - PLACES, n = place / kWide<T>, by = place % kWide<T>;
    if constexpr (by == 0) return of[n];
    if constexpr (by > 0) return between<by, T>(of[n], of[n + 1]);
  }
};

// Σ weights · values at the places from HALF behind on
template <int HALF, int K = 0, typename T>
INLINED Vector<T> weighted(const std::array<T, kHalf + 1>& weights, const Wake<HALF, T>& wake) {
  const Vector<T> one = weights[K] * wake.template behind<HALF - K>();
  if constexpr (K == HALF) return one;
  if constexpr (K < HALF) return one + weighted<HALF, K + 1>(weights, wake);
}

// `absorb` of crossing.h in ROWS rows. What rows remember lies side by side, and a vector's worth of it
// reaches into the next row: all rows are read before any is written, for a processor waits with what it
// reads where it still writes, though a mask may keep the two apart.
template <int HALF, Leave LEAVE, int ROWS, typename T, typename Target>
ALONE void absorb_rows(const Wave<T>& wave, const Layer<T>& layer, int64_t stride, const T* p, T* psi,
                       T* zeta, const Target& target) {
  const Root<T> root(wave, layer);
  const int64_t halves = layer.width + 2, nodes = layer.width + 1, end = nodes + HALF;
  const int64_t outer = layer.low ? 0 : HALF - 1;  // half points before those of the layer
  const T over = wave.over[layer.axis];
  const auto &half = layer.half, &node = layer.node;
  look_ahead(psi, ROWS * halves), look_ahead(zeta, ROWS * nodes);
  Wake<HALF, T> psis[ROWS], sums[ROWS];
  for (int64_t s = 0; s < end; s += kWide<T>) {
    const Lanes<T> seen(0, end - s), at(outer - s, outer + halves - s), to(HALF - s, end - s);
    const int64_t h = s - outer, j = s - HALF;
    const T* const seen_from = p + j;
    Vector<T> left[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const T* const from = seen_from + r * stride;
      const Vector<T> slope = weighted<HALF>(root.outwards, [&](int k) { return seen(from, k); });
      const auto [now, kept] = remember<LEAVE>(at(half.a, h), at(half.b, h), at(half.per_b, h),
                                               at(psi + r * halves, h), slope);
      left[r] = kept;
      psis[r].push(now), sums[r].push(slope + now);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      if (LEAVE != Leave::kSame) at.put(psi + r * halves, h, left[r]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const Vector<T> change = weighted(root.inwards, psis[r]), bend = weighted(root.inwards, sums[r]);
      const auto [now, kept] = remember<LEAVE>(to(node.a, j), to(node.b, j), to(node.per_b, j),
                                               to(zeta + r * nodes, j), bend);
      left[r] = kept;
      const Vector<T> gain = over * (change + now);
      target.add(to, [&](const T* from) { return to(from, 0); }, r * stride + j, gain);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      if (LEAVE != Leave::kSame) to.put(zeta + r * nodes, j, left[r]);
    }
  }
}

template <int HALF, Leave LEAVE, typename T, typename Target>
void absorb(const Wave<T>& wave, const Layer<T>& layer, const Margin& margin, const T* p, T* psi,
            T* zeta, const Target& target) {
  together<kTogether>(margin.count, [&](int64_t first, auto rows) {
    absorb_rows<HALF, LEAVE, rows>(wave, layer, margin.stride, p + first * margin.stride,
                                   psi + first * (layer.width + 2), zeta + first * (layer.width + 1),
                                   target.moved(first * margin.stride));
  });
}

// `transpose_layer` of crossing.h in ROWS rows.
template <int HALF, bool SCALED, int ROWS, typename T>
ALONE void transpose_rows(const Wave<T>& wave, const Layer<T>& layer, int64_t stride, const T* kappa,
                          const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  const Root<T> root(wave, layer);
  const int64_t halves = layer.width + 2, nodes = layer.width + 1;
  const int64_t outer = layer.low ? 0 : HALF - 1;
  const int64_t first = layer.low ? HALF : 0, end = nodes + HALF + first;  // of nodes that are reached
  const T over = wave.over[layer.axis];
  const auto &half = layer.half, &node = layer.node;
  look_ahead(psi_bar, ROWS * halves), look_ahead(zeta_bar, ROWS * nodes);
  Wake<HALF, T> bends[ROWS], changes[ROWS], slopes[ROWS];
  for (int64_t s = 0; s < end; s += kWide<T>) {
    const Lanes<T> from(-s, nodes - s), at(outer - s, outer + halves - s), to(first - s, end - s);
    const int64_t h = s - outer, there = s - HALF;
    Vector<T> left[ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      Vector<T> gain = over * from(after + r * stride, s);
      if (!SCALED) gain *= from(kappa + r * stride, s);
      const Vector<T> zeta = from(zeta_bar + r * nodes, s) + gain, bend = from(node.a, s) * zeta;
      left[r] = from(node.b, s) * zeta;
      bends[r].push(bend), changes[r].push(gain + bend);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) from.put(zeta_bar + r * nodes, s, left[r]);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const Vector<T> psi = at(psi_bar + r * halves, h) - weighted(root.outwards, changes[r]);
      left[r] = at(half.b, h) * psi;
      slopes[r].push(weighted(root.outwards, bends[r]) - at(half.a, h) * psi);
      Vector<T> reached = weighted(root.inwards, slopes[r]);
      if (SCALED) reached *= sign * to(kappa + r * stride, there);
      T* const field = bar + r * stride;
      to.put(field, there, to(field, there) + reached);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) at.put(psi_bar + r * halves, h, left[r]);
  }
}

template <int HALF, bool SCALED, typename T>
void transpose_layer(const Wave<T>& wave, const Layer<T>& layer, const Margin& margin, const T* kappa,
                     const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  together<kTogether>(margin.count, [&](int64_t first, auto rows) {
    const int64_t by = first * margin.stride;
    transpose_rows<HALF, SCALED, rows>(wave, layer, margin.stride, kappa + by, after + by,
                                       psi_bar + first * (layer.width + 2),
                                       zeta_bar + first * (layer.width + 1), bar + by, sign);
  });
}

// work(layer, margin, start) for the layers across the last axis, in some rows.
template <typename T, typename Work>
inline void ends(const Wave<T>& wave, int64_t number, int64_t row, int64_t count, const Work& work) {
  const int64_t stride = wave.ndim > 1 ? wave.stride[wave.ndim - 2] : 0;
  for (const auto& layer : wave.layers) {
    if (layer.axis != wave.last()) continue;
    const Start start{row + layer.first, number * (layer.width + 2), number * (layer.width + 1)};
    work(layer, Margin{stride, count}, start);
  }
}
