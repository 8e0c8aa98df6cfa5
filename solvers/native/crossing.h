// Layers across a leading axis: their lines lie side by side, and cross the layer a vector of lines and
// a few places at a time, so that each value is loaded once for all places that see it. This file is
// included as wave.h is.

constexpr int64_t kLanes = 256;  // lines that cross a layer together, of one row
constexpr int64_t kBunch = 2048;  // of several
constexpr int kPlaces = VECTOR == 64 ? 4 : 2;  // at a time: as many as registers hold

// Room for so many values of a thread, whole vectors from its start on.
template <typename T>
T* aside(int64_t size) {
  thread_local std::vector<T> memory;
  if (static_cast<int64_t>(memory.size()) < size + kWide<T>) memory.resize(size + kWide<T>);
  void* start = memory.data();
  size_t room = memory.size() * sizeof(T);
  return static_cast<T*>(std::align(VECTOR, size * sizeof(T), start, room));
}

struct Lines {
  int64_t field, memory;  // from a place to the next one, in the field and in the layer's memory
  int64_t count;  // in a row
  int64_t rows = 1, row = 0;  // whole ones; from one to the next in the field. Memory has no gaps

  // work(at, l, m) for all of them, a vector at a time: lines from l on in the field, m in memory.
  template <typename T, typename Work>
  INLINED void each(const Work& work) const {
    for (int64_t r = 0; r < rows; ++r) {
      along<T>(count, [&](const auto& at, int64_t i) { work(at, r * row + i, r * count + i); });
    }
  }
};

// A recursion at P places from `first` on; beyond the layer it finds and leaves zeros in `none`.
template <typename T, int P>
struct Recursions {
  T* memory[P];
  T a[P], b[P], per_b[P], within[P];

  Recursions(const Damping<T>& damping, int64_t places, int64_t first, T* start, int64_t by,
             T* none) {
    for (int q = 0; q < P; ++q) {
      const int64_t i = first + q;
      const bool in = i >= 0 && i < places;
      memory[q] = in ? start + i * by : none, within[q] = in;
      a[q] = in ? damping.a[i] : 0, b[q] = in ? damping.b[i] : 0;
      per_b[q] = in ? damping.per_b[i] : 0;
    }
  }
};

// Lines on their way across a layer.
template <int HALF, typename T>
struct Crossing {
  const Wave<T>& wave;
  const Layer<T>& layer;
  const Lines& lines;
  const int64_t width = (lines.rows * lines.count + kWide<T> - 1) / kWide<T> * kWide<T>;
  T* const room = aside<T>((1 + 3 * HALF) * width);
  const Root<T> root{wave, layer};

  Crossing(const Wave<T>& wave_, const Layer<T>& layer_, const Lines& lines_)
      : wave(wave_), layer(layer_), lines(lines_) {
    std::fill(room, room + (1 + 3 * HALF) * width, T(0));
  }
  template <int P>
  Recursions<T, P> halves(T* psi, int64_t s) const {
    const int64_t first = s + (layer.low ? 0 : 1 - HALF);
    return {layer.half, layer.width + 2, first, psi, lines.memory, room};
  }
  template <int P>
  Recursions<T, P> nodes(T* zeta, int64_t j) const {
    return {layer.node, layer.width + 1, j, zeta, lines.memory, room};
  }
  // What the places before have found.
  T* found(int n) const { return room + (1 + n) * width; }
};

// A value that no place before this one has seen. The next ones of its line are fetched: a layer's
// places are so many streams that no processor foresees them.
template <typename At, typename T>
inline auto fresh(const At& at, const T* from, int64_t l) {
  __builtin_prefetch(from + l + 4 * kWide<T>);
  return at(from, l);
}

// `absorb` at P half points from `s` on and, if NODES, at as many nodes from `s - HALF` on.
template <int HALF, Leave LEAVE, int P, bool NODES, typename T, typename Target>
ALONE void absorb_places(const Crossing<HALF, T>& crossing, int64_t s, const T* p, T* psi, T* zeta,
                         const Target& target) {
  const Lines& lines = crossing.lines;
  const int64_t next = lines.field, from = (s - HALF) * next;
  const auto halves = crossing.template halves<P>(psi, s);
  const auto nodes = crossing.template nodes<NODES ? P : 1>(zeta, NODES ? s - HALF : 0);
  const Target to = target.moved(from);
  const T over = crossing.wave.over[crossing.layer.axis], *seen = p + from;
  lines.template each<T>([&, root = crossing.root](auto at, int64_t l, int64_t m) {
    using V = decltype(at(p, l));
    V value[P + HALF], psis[HALF + P], sums[HALF + P];
#pragma GCC unroll 8
    for (int k = 0; k < P + HALF; ++k) value[k] = fresh(at, seen + k * next, l);
#pragma GCC unroll 8
    for (int k = 0; k < HALF; ++k) {
      psis[k] = at(crossing.found(2 * k), m), sums[k] = at(crossing.found(2 * k + 1), m);
    }
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
      const V slope = weighted<HALF>(root.outwards, [&](int k) { return value[q + k]; });
      const auto [psi, left] = remember<LEAVE>(halves.a[q], halves.b[q], halves.per_b[q],
                                               fresh(at, halves.memory[q], m), slope);
      if (LEAVE != Leave::kSame) at.put(halves.memory[q], m, left);
      psis[HALF + q] = psi, sums[HALF + q] = slope + psi;
    }
#pragma GCC unroll 8
    for (int k = 0; k < HALF; ++k) {
      at.put(crossing.found(2 * k), m, psis[P + k]);
      at.put(crossing.found(2 * k + 1), m, sums[P + k]);
    }
    if constexpr (!NODES) return;
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
      const V change = weighted<HALF>(root.inwards, [&](int k) { return psis[q + k]; });
      const V bend = weighted<HALF>(root.inwards, [&](int k) { return sums[q + k]; });
      const auto [zeta, left] = remember<LEAVE>(nodes.a[q], nodes.b[q], nodes.per_b[q],
                                                fresh(at, nodes.memory[q], m), bend);
      if (LEAVE != Leave::kSame) at.put(nodes.memory[q], m, left);
      const V gain = over * (change + zeta);
      to.add(at, [&](const T* from) { return fresh(at, from, 0); }, q * next + l, gain);
    }
  });
}

// A step of a layer's recursion; its gain to the Laplacian goes to `target`. `p` and that point at
// the layer's first node, `psi` and `zeta` at the memory. As h² ∂²u is -GᵀGu, and Gu is there, ζ sees
// the sum of Gu and ψ'.
template <int HALF, Leave LEAVE, typename T, typename Target>
void absorb(const Wave<T>& wave, const Layer<T>& layer, const Lines& lines, const T* p, T* psi,
            T* zeta, const Target& target) {
  const Crossing<HALF, T> crossing(wave, layer, lines);
  absorb_places<HALF, LEAVE, HALF, false>(crossing, 0, p, psi, zeta, target);
  int64_t s = HALF;
  const int64_t end = layer.width + 1 + HALF;
  for (; s + kPlaces <= end; s += kPlaces) {
    absorb_places<HALF, LEAVE, kPlaces, true>(crossing, s, p, psi, zeta, target);
  }
  for (; s < end; ++s) {
    absorb_places<HALF, LEAVE, 1, true>(crossing, s, p, psi, zeta, target);
  }
}

// `transpose_layer` at P nodes from `s` on, if NODES, at as many half points and, if REACHED, at as many
// nodes from `s - HALF` on that those have seen.
template <int HALF, bool SCALED, int P, bool NODES, bool REACHED, typename T>
ALONE void transpose_places(const Crossing<HALF, T>& crossing, int64_t s, const T* kappa,
                            const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  const Lines& lines = crossing.lines;
  const int64_t next = lines.field;
  const auto halves = crossing.template halves<P>(psi_bar, s);
  const auto nodes = crossing.template nodes<P>(zeta_bar, s);
  const T over = crossing.wave.over[crossing.layer.axis];
  const T *kappa_s = kappa + s * next, *after_s = after + s * next, *kappa_to = kappa_s - HALF * next;
  T* to = bar + (s - HALF) * next;
  lines.template each<T>([&, root = crossing.root](auto at, int64_t l, int64_t m) {
    using V = decltype(at(after, l));
    V bends[HALF + P], changes[HALF + P], slopes[HALF + P];
#pragma GCC unroll 8
    for (int k = 0; k < HALF; ++k) {
      bends[k] = at(crossing.found(3 * k), m), changes[k] = at(crossing.found(3 * k + 1), m);
      slopes[k] = at(crossing.found(3 * k + 2), m);
    }
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
      bends[HALF + q] = changes[HALF + q] = V{};
      if constexpr (!NODES) continue;
      V gain = over * nodes.within[q] * fresh(at, after_s + q * next, l);
      if (!SCALED) gain *= fresh(at, kappa_s + q * next, l);
      const V zeta = fresh(at, nodes.memory[q], m) + gain;
      at.put(nodes.memory[q], m, nodes.b[q] * zeta);
      bends[HALF + q] = nodes.a[q] * zeta, changes[HALF + q] = gain + bends[HALF + q];
    }
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
      const V psi = fresh(at, halves.memory[q], m) -
                    weighted<HALF>(root.outwards, [&](int k) { return changes[q + k]; });
      at.put(halves.memory[q], m, halves.b[q] * psi);
      slopes[HALF + q] =
          weighted<HALF>(root.outwards, [&](int k) { return bends[q + k]; }) - halves.a[q] * psi;
    }
#pragma GCC unroll 8
    for (int k = 0; k < HALF; ++k) {
      at.put(crossing.found(3 * k), m, bends[P + k]);
      at.put(crossing.found(3 * k + 1), m, changes[P + k]);
      at.put(crossing.found(3 * k + 2), m, slopes[P + k]);
    }
    if constexpr (!REACHED) return;
#pragma GCC unroll 8
    for (int q = 0; q < P; ++q) {
      V bend = weighted<HALF>(root.inwards, [&](int k) { return slopes[q + k]; });
      if (SCALED) bend *= sign * fresh(at, kappa_to + q * next, l);
      at.put(to + q * next, l, fresh(at, to + q * next, l) + bend);
    }
  });
}

// The transpose of a layer's recursion: its memory's cotangents, and what it adds to p̄. Or, SCALED, of
// the adjoint field w = κ p̄, and what it adds to that times a sign.
template <int HALF, bool SCALED, typename T>
void transpose_layer(const Wave<T>& wave, const Layer<T>& layer, const Lines& lines, const T* kappa,
                     const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  const Crossing<HALF, T> crossing(wave, layer, lines);
  int64_t s = 0;
  const auto places = [&](auto count, auto nodes, auto reached) {
    transpose_places<HALF, SCALED, count, nodes, reached>(crossing, s, kappa, after, psi_bar, zeta_bar,
                                                          bar, sign);
    s += count;
  };
  constexpr std::integral_constant<int, 1> one{};
  constexpr std::integral_constant<int, HALF> half{};
  constexpr std::integral_constant<int, kPlaces> some{};
  constexpr std::true_type yes{};
  constexpr std::false_type no{};
  // no node is reached beyond the outermost one of the layer
  const int64_t nodes = layer.width + 1, end = nodes + HALF + (layer.low ? HALF : 0);
  if (layer.low) places(half, yes, no);
  while (s + kPlaces <= nodes) places(some, yes, yes);
  while (s < nodes) places(one, yes, yes);
  while (s + HALF <= end) places(half, no, yes);
  while (s < end) places(one, no, yes);
}

// How many pieces of lines cross the layers of a leading axis: in one sheet, and sheets. The lines
// of the second of three axes lie in sheets of their own; all others in those of the axis between.
template <typename T>
int64_t pieces(const Wave<T>& wave) {
  return (wave.n[wave.last()] + kLanes - 1) / kLanes;
}

template <typename T>
int64_t sheets(const Wave<T>& wave, int axis) {
  return wave.ndim == 3 ? wave.n[1 - axis] : 1;
}

// work(layer, lines, start) for a piece of the lines across the layers of a leading axis; of `many`
// sheets, if its lines lie side by side in them. Those at both ends of a line are one thread's: on a
// small grid their gains overlap.
template <typename T, typename Work>
void across(const Wave<T>& wave, int axis, int64_t sheet, int64_t piece, const Work& work,
            int64_t many = 1) {
  const int64_t n = wave.n[wave.last()], count = pieces(wave);
  const int64_t vectors = (n + kWide<T> - 1) / kWide<T>;
  const int64_t x = vectors * piece / count * kWide<T>;
  const int64_t end = std::min(n, vectors * (piece + 1) / count * kWide<T>);
  const bool inner = wave.ndim == 3 && axis == 0;  // its lines lie side by side in each sheet
  for (const auto& layer : wave.layers) {
    if (layer.axis != axis) continue;
    const int64_t next = inner ? wave.stride[1] : 0;
    const Lines lines{wave.stride[axis], inner ? wave.n[1] * n : n, end - x, many, next};
    Start start{layer.first * wave.stride[axis] + wave.half + x, x, x};
    if (wave.ndim == 3) start.field += (wave.half + sheet) * wave.stride[1 - axis];
    start.psi += sheet * n * (inner ? 1 : layer.width + 2);
    start.zeta += sheet * n * (inner ? 1 : layer.width + 1);
    work(layer, lines, start);
  }
}

// `across` for the first of three axes, shared out. Several short rows cross together: a place of one alone
// ends before a processor has foreseen its streams.
template <typename T, typename Work>
void across_planes(Threads& threads, const Wave<T>& wave, const Work& work) {
  bool any = false;
  for (const auto& layer : wave.layers) any |= layer.axis == 0;
  if (!any) return;
  const int64_t count = pieces(wave);
  const int64_t most = count > 1 ? 1 : std::max<int64_t>(1, kBunch / wave.n[wave.last()]);
  threads.share(sheets(wave, 0) * count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i += most) {
      across(wave, 0, i / count, i % count, work, std::min(most, end - i));
    }
  });
}
