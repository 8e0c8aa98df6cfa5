// An absorbing layer's recursion, its way back and its transpose, across the lines of a layer. The
// arithmetic of solvers/layers.py, to which a test holds it; read it first. This file is included as
// wave.h is.

constexpr int64_t kLanes = 256;  // values of a row that cross a layer together

template <typename T>
T* scratch(int64_t size, int which) {
  thread_local std::vector<T> memory[4];
  if (static_cast<int64_t>(memory[which].size()) < size) memory[which].resize(size);
  return memory[which].data();
}

// Lines that cross a layer side by side; values aside lie in kLanes lines a place. Across the last
// axis they are rows, up to kRows, and values aside lie row by row.
template <bool LAST>
struct Lines {
  // Strides across the layer in the field and in its memory, or of a row in the field and aside.
  int64_t field, memory;
  int64_t count;  // lines

  // Where places along the layer are, or rows across the last axis.
  int64_t in_field(int64_t i) const { return i * field; }
  template <typename T>
  int64_t in_psi(const Layer<T>& layer, int64_t i) const {
    return i * (LAST ? layer.width + 2 : memory);
  }
  template <typename T>
  int64_t in_zeta(const Layer<T>& layer, int64_t i) const {
    return i * (LAST ? layer.width + 1 : memory);
  }
  int64_t aside(int64_t i) const { return i * (LAST ? memory : kLanes); }
  // From a place to the next one.
  int64_t next_in_field() const { return LAST ? 1 : field; }
  int64_t next_aside() const { return LAST ? 1 : kLanes; }
  // Room aside for so many places.
  int64_t room(int64_t places) const { return LAST ? kRows * memory : places * kLanes; }

  // `each` at the places from `first` on, for all lines; work(i) is what is done at place i, or in
  // row i, where `each` counts the places. So each of some steps is done for all rows before the
  // next one loads what it stored: a load of parts of two stores waits until both are done.
  template <typename T, typename Work>
  void over(int64_t first, int64_t end, const Work& work) const {
    if constexpr (LAST) {
      for (int64_t r = 0; r < count; ++r) each<T>(first, end, work(r));
    } else {
      for (int64_t i = first; i < end; ++i) each<T>(0, count, work(i));
    }
  }

  // Zeros aside, at the places from `first` on.
  template <typename T>
  void clear(T* values, int64_t first, int64_t end) const {
    if constexpr (LAST) {
      for (int64_t r = 0; r < count; ++r) {
        for (int64_t i = first; i < end; ++i) values[aside(r) + i] = 0;
      }
    } else {
      for (int64_t i = first; i < end; ++i) {
        std::fill(values + aside(i), values + aside(i) + count, T(0));
      }
    }
  }
};

// A layer's profile where `Lines::over` works: along a row all of it, or its value there. Nothing
// else is kept: a load of what narrower stores just made waits until all stores before are done.
template <typename T, bool LAST>
struct Profile;

template <typename T>
struct Profile<T, true> {
  const T* row;
  Profile(const T* values, int64_t) : row(values) {}
  template <typename At>
  auto operator()(const At& at, int64_t l) const { return at(row, l); }
};

template <typename T>
struct Profile<T, false> {
  T value;
  Profile(const T* values, int64_t i) : value(values[i]) {}
  template <typename At>
  T operator()(const At&, int64_t) const { return value; }
};

// A layer's recursion where `Lines::over` works.
template <typename T, bool LAST>
struct Recursion {
  Profile<T, LAST> a, b, per_b;
  Recursion(const Damping<T>& damping, int64_t i)
      : a(damping.a, i), b(damping.b, i), per_b(damping.per_b, i) {}
};

// Values in a row, or aside, times the weights of layers.py's G or of its transpose, from a place on.
template <int HALF, typename T, typename At>
inline auto weighted(const std::array<T, kHalf + 1>& weights, const At& at, const T* from, int64_t l,
                     int64_t by) {
  std::decay_t<decltype(at(from, l))> sum = weights[0] * at(from, l);
#pragma GCC unroll 4
  for (int k = 1; k <= HALF; ++k) sum += weights[k] * at(from, l + k * by);
  return sum;
}

// G looks outwards, minus its transpose inwards. Where their weights start, of a half point seen from
// nodes and of a node seen from half points: so many places on.
template <int HALF, typename T>
struct Root {
  const std::array<T, kHalf + 1>&outwards, &inwards;
  int64_t of_half, of_node;
  bool low;
  // Half points further inwards that nodes of the layer see, of one with so many cells. Along a row
  // with those of the layer that fill a vector with them, which are to be put once more after that.
  template <bool LAST>
  std::pair<int64_t, int64_t> beyond(int64_t width) const {
    int64_t first = low ? width + 2 : 1 - HALF, end = low ? width + 1 + HALF : 0;
    if (LAST && first < end) {
      if (low) first = std::min(first, end - filled<T>(width + 2));
      if (!low) end = std::max(end, first + filled<T>(width + 2));
    }
    return {first, end};
  }

  // `Lines::over` at the half points of a layer, at those beyond and at its nodes, each node as soon as
  // the half points that it sees are done, so that they are near.
  template <bool LAST, typename Half, typename Beyond, typename Node>
  void in_turn(const Lines<LAST>& lines, int64_t width, const Half& half, const Beyond& beyond,
               const Node& node) const {
    const auto [first, end] = this->beyond<LAST>(width);
    if (LAST || !low) lines.template over<T>(first, end, beyond);
    if constexpr (LAST) {
      lines.template over<T>(0, width + 2, half);
      lines.template over<T>(0, width + 1, node);
    } else {
      const int64_t lag = low ? HALF : 1;
      const auto then = [&](int64_t i) {
        if (i >= lag) lines.template over<T>(i - lag, i - lag + 1, node);
      };
      for (int64_t i = 0; i < width + 2; ++i) lines.template over<T>(i, i + 1, half), then(i);
      if (!low) return;
      for (int64_t i = first; i < end; ++i) {
        lines.template over<T>(i, i + 1, beyond), then(i);
      }
    }
  }

  // Nodes that half points of a layer and beyond reach: from one up to another.
  std::pair<int64_t, int64_t> reached(int64_t width) const {
    return {low ? 0 : -HALF, width + 1 + (low ? HALF : 0)};
  }

  // The other way round: nodes of the layer, half points that see them, all nodes that see those.
  template <bool LAST, typename Node, typename Half, typename Beyond, typename Reached>
  void in_turn_back(const Lines<LAST>& lines, int64_t width, const Node& node, const Half& half,
                    const Beyond& beyond, const Reached& reached) const {
    const auto [first, end] = this->beyond<LAST>(width);
    const auto [from, until] = this->reached(width);
    if constexpr (LAST) {
      lines.template over<T>(0, width + 1, node);
      lines.template over<T>(first, end, beyond);
      lines.template over<T>(0, width + 2, half);
      lines.template over<T>(from, until, reached);
    } else {
      const int64_t lag = low ? 0 : HALF - 1, lags = lag + (low ? HALF : 1);
      const auto at = [&](int64_t i, int64_t start, int64_t stop, const auto& work) {
        if (i >= start && i < stop) lines.template over<T>(i, i + 1, work);
      };
      for (int64_t i = 0; i < until + lags; ++i) {
        at(i, 0, width + 1, node);
        at(i - lag, 0, width + 2, half);
        at(i - lag, first, end, beyond);
        at(i - lags, from, until, reached);
      }
    }
  }

  Root(const Wave<T>& wave, const Layer<T>& layer)
      : outwards(layer.low ? wave.before : wave.behind),
        inwards(layer.low ? wave.behind : wave.before),
        of_half(layer.low ? -HALF : -1),
        of_node(layer.low ? 0 : 1 - HALF),
        low(layer.low) {}
};

// Zeros aside around the values of a layer's lines from `first` up to `end`: so many on either side.
template <typename T, bool LAST>
void surround(const Lines<LAST>& lines, T* values, int64_t first, int64_t end, int64_t many) {
  lines.clear(values, first - many, first);
  lines.clear(values, end, end + many);
}

// Where a layer's gain goes, times a sign and the field `scale`.
template <typename T>
struct Target {
  T sign;
  const T* scale;
  T* field;
  Target at(int64_t place) const { return {sign, scale + place, field + place}; }
};

template <typename T, int N>
using Targets = std::array<Target<T>, N>;

// What the targets are with a gain added.
template <typename T, size_t N, typename At, typename V>
inline auto with_gain(const std::array<Target<T>, N>& targets, const At& at, int64_t l,
                      const V& gain) {
  std::array<V, N> sums;
  for (size_t n = 0; n < N; ++n) {
    const Target<T>& one = targets[n];
    sums[n] = at(one.field, l) + one.sign * at(one.scale, l) * gain;
  }
  return sums;
}

template <typename T, size_t N>
std::array<Target<T>, N> moved(const std::array<Target<T>, N>& targets, int64_t by) {
  std::array<Target<T>, N> there;
  for (size_t n = 0; n < N; ++n) there[n] = targets[n].at(by);
  return there;
}

// What is left in a layer's memory: that after a step, what was there, or, if that is of after the
// step, what was before it.
enum class Leave { kAfter, kSame, kBefore };

// One value of a layer's recursion `now = b before + a value`, and what is left of it in memory.
template <Leave LEAVE, typename T, bool LAST, typename At, typename V>
inline std::pair<V, V> remember(const Recursion<T, LAST>& recursion, const At& at, int64_t l,
                                const V& memory, const V& value) {
  const auto& [a, b, per_b] = recursion;
  if constexpr (LEAVE == Leave::kBefore) {
    return {memory, per_b(at, l) * (memory - a(at, l) * value)};
  }
  const V now = b(at, l) * memory + a(at, l) * value;
  return {now, now};
}

// A step of a layer's recursion; its gain to the Laplacian goes to fields. `p` and the targets point at
// the layer's first node, `psi` and `zeta` at the memory. As h² ∂²u is -GᵀGu, and Gu is there, ζ sees
// the sum of Gu and ψ'.
template <int HALF, Leave LEAVE, typename T, bool LAST, size_t N>
ALONE void absorb(const Wave<T>& wave, const Layer<T>& layer, const Lines<LAST>& lines, const T* p,
                  T* psi, T* zeta, const std::array<Target<T>, N>& targets) {
  const int64_t w = layer.width, one = lines.next_in_field(), by = lines.next_aside();
  const Root<HALF, T> root(wave, layer);
  const int64_t room = lines.room(w + 2 * HALF);
  T *psis = scratch<T>(2 * room, 0) + (HALF - 1) * by, *sums = psis + room;
  surround(lines, psis, 0, w + 2, HALF - 1);
  const auto half = [&](int64_t i) {
    T *psi_i = psi + lines.in_psi(layer, i), *psis_i = psis + lines.aside(i);
    T* sum_i = sums + lines.aside(i);
    const T* p_i = p + lines.in_field(i) + root.of_half * one;
    const Recursion<T, LAST> recursion(layer.half, i);
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          const auto slope = weighted<HALF>(root.outwards, at, p_i, l, one);
          const auto [psi, left] = remember<LEAVE>(recursion, at, l, at(psi_i, l), slope);
          return std::tuple(psi, slope + psi, left);
        },
        [=](const auto& at, int64_t l, const auto& v) {
          const auto& [psi, sum, left] = v;
          if (LEAVE != Leave::kSame) at.put(psi_i, l, left);
          at.put(psis_i, l, psi), at.put(sum_i, l, sum);
        });
  };
  const auto beyond = [&](int64_t i) {
    T* sum_i = sums + lines.aside(i);
    const T* p_i = p + lines.in_field(i) + root.of_half * one;
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          return weighted<HALF>(root.outwards, at, p_i, l, one);
        },
        [=](const auto& at, int64_t l, const auto& slope) { at.put(sum_i, l, slope); });
  };
  const T over = wave.over[layer.axis];
  const auto node = [&](int64_t i) {
    T* zeta_i = zeta + lines.in_zeta(layer, i);
    const T* psis_i = psis + lines.aside(i) + root.of_node * by;
    const T* sum_i = sums + lines.aside(i) + root.of_node * by;
    const Recursion<T, LAST> recursion(layer.node, i);
    const auto to = moved(targets, lines.in_field(i));
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          const auto change = weighted<HALF>(root.inwards, at, psis_i, l, by);
          const auto bend = weighted<HALF>(root.inwards, at, sum_i, l, by);
          const auto [zeta, left] = remember<LEAVE>(recursion, at, l, at(zeta_i, l), bend);
          return std::pair(left, with_gain(to, at, l, over * (change + zeta)));
        },
        [=](const auto& at, int64_t l, const auto& v) {
          const auto& [left, sums] = v;
          if (LEAVE != Leave::kSame) at.put(zeta_i, l, left);
          for (size_t n = 0; n < N; ++n) at.put(to[n].field, l, sums[n]);
        });
  };
  root.in_turn(lines, w, half, beyond, node);
}

// The transpose of a layer's recursion: its memory's cotangents, and what it adds to p̄. Or, SCALED, of
// the adjoint field w = κ p̄, and what it adds to that times a sign.
template <int HALF, bool SCALED, typename T, bool LAST>
ALONE void transpose_layer(const Wave<T>& wave, const Layer<T>& layer, const Lines<LAST>& lines,
                           const T* kappa, const T* after, T* psi_bar, T* zeta_bar, T* bar, T sign) {
  const int64_t w = layer.width, room = lines.room(w + 2 + 4 * HALF), by = lines.next_aside();
  const Root<HALF, T> root(wave, layer);
  T* bends = scratch<T>(3 * room, 1) + 2 * HALF * by;
  T *changes = bends + room, *slopes = changes + room;
  const auto [first, end] = root.reached(w);
  surround(lines, bends, 0, w + 1, HALF);
  surround(lines, changes, 0, w + 1, HALF);
  surround(lines, slopes, first + (layer.low ? 0 : 1), end + (layer.low ? 0 : 1), HALF);
  const T over = wave.over[layer.axis];
  const auto node = [&](int64_t i) {
    const Profile<T, LAST> a{layer.node.a, i}, b{layer.node.b, i};
    const T *kappa_i = kappa + lines.in_field(i), *after_i = after + lines.in_field(i);
    T *bend_i = bends + lines.aside(i), *change_i = changes + lines.aside(i);
    T* zeta_i = zeta_bar + lines.in_zeta(layer, i);
    return std::pair(
        [=](const auto& at, int64_t l) {
          auto gain = over * at(after_i, l);
          if (!SCALED) gain *= at(kappa_i, l);
          const auto zeta = at(zeta_i, l) + gain;
          const auto bend = a(at, l) * zeta;
          return std::tuple(bend, gain + bend, b(at, l) * zeta);
        },
        [=](const auto& at, int64_t l, const auto& v) {
          const auto& [bend, change, before] = v;
          at.put(bend_i, l, bend), at.put(change_i, l, change), at.put(zeta_i, l, before);
        });
  };
  const auto beyond = [&](int64_t i) {
    const T* bend_i = bends + lines.aside(i) + root.of_half * by;
    T* to = slopes + lines.aside(i);
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          return weighted<HALF>(root.outwards, at, bend_i, l, by);
        },
        [=](const auto& at, int64_t l, const auto& slope) { at.put(to, l, slope); });
  };
  const auto half = [&](int64_t i) {
    const Profile<T, LAST> a{layer.half.a, i}, b{layer.half.b, i};
    const T* change_i = changes + lines.aside(i) + root.of_half * by;
    const T* bend_i = bends + lines.aside(i) + root.of_half * by;
    T *psi_i = psi_bar + lines.in_psi(layer, i), *to = slopes + lines.aside(i);
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          const auto psi = at(psi_i, l) - weighted<HALF>(root.outwards, at, change_i, l, by);
          const auto slope = weighted<HALF>(root.outwards, at, bend_i, l, by) - a(at, l) * psi;
          return std::pair(slope, b(at, l) * psi);
        },
        [=](const auto& at, int64_t l, const auto& v) {
          at.put(to, l, v.first), at.put(psi_i, l, v.second);
        });
  };
  const auto reached = [&](int64_t i) {
    const T* slope_i = slopes + lines.aside(i) + root.of_node * by;
    const T* kappa_i = kappa + lines.in_field(i);
    T* to = bar + lines.in_field(i);
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          auto bend = weighted<HALF>(root.inwards, at, slope_i, l, by);
          if (SCALED) bend *= sign * at(kappa_i, l);
          return at(to, l) + bend;
        },
        [=](const auto& at, int64_t l, const auto& value) { at.put(to, l, value); });
  };
  root.in_turn_back(lines, w, node, half, beyond, reached);
}

// Where some lines of a layer start: in the field at its first node, in its memory's two arrays.
struct Start {
  int64_t field, psi, zeta;
};

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

// work(layer, lines, start) for a piece of the lines across the layers of a leading axis. Those at
// both ends of a line are one thread's: on a small grid their gains overlap.
template <typename T, typename Work>
void across(const Wave<T>& wave, int axis, int64_t sheet, int64_t piece, const Work& work) {
  constexpr int64_t kWide = VECTOR / sizeof(T);  // no piece but a short line's has fewer values
  const int64_t n = wave.n[wave.last()], count = pieces(wave), vectors = (n + kWide - 1) / kWide;
  const int64_t x = vectors * piece / count * kWide;
  const int64_t end = std::min(n, vectors * (piece + 1) / count * kWide);
  const bool inner = wave.ndim == 3 && axis == 0;  // its lines lie side by side in each sheet
  for (const auto& layer : wave.layers) {
    if (layer.axis != axis) continue;
    const Lines<false> lines{wave.stride[axis], inner ? wave.n[1] * n : n, end - x};
    Start start{layer.first * wave.stride[axis] + wave.half + x, x, x};
    if (wave.ndim == 3) start.field += (wave.half + sheet) * wave.stride[1 - axis];
    start.psi += sheet * n * (inner ? 1 : layer.width + 2);
    start.zeta += sheet * n * (inner ? 1 : layer.width + 1);
    work(layer, lines, start);
  }
}

// `across` for the first of three axes, shared out.
template <typename T, typename Work>
void across_planes(Threads& threads, const Wave<T>& wave, const Work& work) {
  bool any = false;
  for (const auto& layer : wave.layers) any |= layer.axis == 0;
  if (!any) return;
  const int64_t count = pieces(wave);
  threads.share(sheets(wave, 0) * count, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) across(wave, 0, i / count, i % count, work);
  });
}

// work(layer, lines, start) for the layers across the last axis, in up to kRows rows.
template <typename T, typename Work>
inline void ends(const Wave<T>& wave, int64_t number, int64_t row, int64_t count, const Work& work) {
  const int64_t stride = wave.ndim > 1 ? wave.stride[wave.ndim - 2] : 0;
  for (const auto& layer : wave.layers) {
    if (layer.axis != wave.last()) continue;
    const Start start{row + layer.first, number * (layer.width + 2), number * (layer.width + 1)};
    work(layer, Lines<true>{stride, layer.width + 5 + 4 * wave.half, count}, start);
  }
}
