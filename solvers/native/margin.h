// Layers across the last axis, at the margins of rows: a vector of places at a time. What the places
// before have found stays in registers. This file is included as wave.h is.

struct Margin {
  int64_t stride, count;  // from a row to the next one; of rows
};

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

// `absorb` of crossing.h in some rows.
template <int HALF, Leave LEAVE, typename T, size_t N>
ALONE void absorb(const Wave<T>& wave, const Layer<T>& layer, const Margin& margin, const T* p, T* psi,
                  T* zeta, const std::array<Target<T>, N>& targets) {
  const Root<T> root(wave, layer);
  const int64_t halves = layer.width + 2, nodes = layer.width + 1, end = nodes + HALF;
  const int64_t outer = layer.low ? 0 : HALF - 1;  // half points before those of the layer
  const T over = wave.over[layer.axis];
  const auto &half = layer.half, &node = layer.node;
  for (int64_t r = 0; r < margin.count; ++r, psi += halves, zeta += nodes) {
    Wake<HALF, T> psis, sums;
    for (int64_t s = 0; s < end; s += kWide<T>) {
      const Lanes<T> seen(0, end - s), at(outer - s, outer + halves - s), to(HALF - s, end - s);
      const int64_t h = s - outer, j = s - HALF, place = r * margin.stride + j;
      const Vector<T> slope = weighted<HALF>(root.outwards, [&](int k) { return seen(p, place + k); });
      const auto [psi_now, psi_left] =
          remember<LEAVE>(at(half.a, h), at(half.b, h), at(half.per_b, h), at(psi, h), slope);
      if (LEAVE != Leave::kSame) at.put(psi, h, psi_left);
      psis.push(psi_now), sums.push(slope + psi_now);
      const Vector<T> change = weighted(root.inwards, psis), bend = weighted(root.inwards, sums);
      const auto [zeta_now, zeta_left] =
          remember<LEAVE>(to(node.a, j), to(node.b, j), to(node.per_b, j), to(zeta, j), bend);
      if (LEAVE != Leave::kSame) to.put(zeta, j, zeta_left);
      const Vector<T> gain = over * (change + zeta_now);
      for (const Target<T>& one : targets) {
        to.put(one.field, place, to(one.field, place) + one.sign * to(one.scale, place) * gain);
      }
    }
  }
}

// `transpose_layer` of crossing.h in some rows.
template <int HALF, bool SCALED, typename T>
ALONE void transpose_layer(const Wave<T>& wave, const Layer<T>& layer, const Margin& margin,
                           const T* kappa, const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  const Root<T> root(wave, layer);
  const int64_t halves = layer.width + 2, nodes = layer.width + 1;
  const int64_t outer = layer.low ? 0 : HALF - 1;
  const int64_t first = layer.low ? HALF : 0, end = nodes + HALF + first;  // of nodes that are reached
  const T over = wave.over[layer.axis];
  const auto &half = layer.half, &node = layer.node;
  for (int64_t r = 0; r < margin.count; ++r, psi_bar += halves, zeta_bar += nodes) {
    Wake<HALF, T> bends, changes, slopes;
    for (int64_t s = 0; s < end; s += kWide<T>) {
      const Lanes<T> from(-s, nodes - s), at(outer - s, outer + halves - s), to(first - s, end - s);
      const int64_t h = s - outer, place = r * margin.stride + s, there = place - HALF;
      Vector<T> gain = over * from(after, place);
      if (!SCALED) gain *= from(kappa, place);
      const Vector<T> zeta = from(zeta_bar, s) + gain, bend = from(node.a, s) * zeta;
      from.put(zeta_bar, s, from(node.b, s) * zeta);
      bends.push(bend), changes.push(gain + bend);
      const Vector<T> psi = at(psi_bar, h) - weighted(root.outwards, changes);
      at.put(psi_bar, h, at(half.b, h) * psi);
      slopes.push(weighted(root.outwards, bends) - at(half.a, h) * psi);
      Vector<T> reached = weighted(root.inwards, slopes);
      if (SCALED) reached *= sign * to(kappa, there);
      to.put(bar, there, to(bar, there) + reached);
    }
  }
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
