// The constant-density wave step, its way back and its transpose: few sweeps over the fields.
//
// The arithmetic of solvers/constant_density.py, to which a test holds it; read it first. This file
// is included once for each instruction set, in a namespace of its own, with VECTOR bytes a vector.

constexpr int kRows = 4;  // that share what a stencil reads across them
constexpr int64_t kLanes = 256;  // values of a row that cross a layer together

template <typename T>
using Vector __attribute__((vector_size(VECTOR), aligned(alignof(T)), may_alias)) = T;

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}

template <typename T, typename V>
inline void store(T* to, const V& values) {
  *reinterpret_cast<Vector<T>*>(to) = values;
}

// Fetch what the next rows need. In three dimensions the rows of several planes and fields are so many
// streams that no processor foresees them: half of a step was waiting. In two it does.
template <int NDIM, typename T>
inline void soon(const T* at, int64_t row) {
  if constexpr (NDIM == 3) __builtin_prefetch(at + kRows * row);
}

template <typename T>
T* scratch(int64_t size, int which) {
  thread_local std::vector<T> memory[4];
  if (static_cast<int64_t>(memory[which].size()) < size) memory[which].resize(size);
  return memory[which].data();
}

// --- the Laplacian

// ∇²u at one node.
template <int NDIM, int HALF, typename T>
inline T bend_at(const Wave<T>& wave, const T* u) {
  T sum = wave.center * u[0];
  for (int axis = 0; axis < NDIM; ++axis) {
    const int64_t by = wave.stride[axis];
    for (int k = 1; k <= HALF; ++k) sum += wave.weights[axis][k] * (u[-k * by] + u[k * by]);
  }
  return sum;
}

template <typename T, int R>
struct Sums {
  Vector<T> of[R];
};

// A vector of ∇²u in each of R rows. Rows share what they read across: with four of them 11 loads a
// value instead of 17, at order 8 in two dimensions.
template <int NDIM, int HALF, int R, typename T>
inline __attribute__((always_inline)) Sums<T, R> bend_of(const Wave<T>& wave, const T* u) {
  const T *x = wave.weights[NDIM - 1], *y = wave.weights[NDIM > 1 ? NDIM - 2 : 0];
  const T* z = wave.weights[0];
  const int64_t plane = wave.stride[0], row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  Sums<T, R> sums;
  Vector<T>* const sum = sums.of;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const T* at = u + r * row;
    sum[r] = x[1] * (load(at - 1) + load(at + 1));
#pragma GCC unroll 8
    for (int k = 2; k <= HALF; ++k) sum[r] += x[k] * (load(at - k) + load(at + k));
  }
  if constexpr (NDIM == 1) sum[0] += wave.center * load(u);
  if constexpr (NDIM > 1) {
#pragma GCC unroll 16
    for (int j = -HALF; j < R + HALF; ++j) {
      const Vector<T> value = load(u + j * row);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int k = j > r ? j - r : r - j;
        if (k == 0) sum[r] += wave.center * value;
        if (k > 0 && k <= HALF) sum[r] += y[k] * value;
      }
    }
  }
  if constexpr (NDIM > 2) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T* at = u + r * row;
      soon<NDIM>(at + HALF * plane, row);
#pragma GCC unroll 8
      for (int k = 1; k <= HALF; ++k) {
        sum[r] += z[k] * (load(at - k * plane) + load(at + k * plane));
      }
    }
  }
  return sums;
}

// The last ∇²u of R rows, less than a vector each, from the place `rest` on: the end of a vector that
// ends with the row, for beyond it may be nothing to read.
template <int NDIM, int HALF, int R, typename T, typename Use>
ALONE void bend_rest(const Wave<T>& wave, const T* u, int64_t rest, const Use& use) {
  constexpr int64_t kWide = VECTOR / sizeof(T);
  const int64_t n = wave.n[NDIM - 1], row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  if (n < kWide) {
    for (int r = 0; r < R; ++r) {
      for (int64_t i = rest; i < n; ++i) {
        use.one(r, i, bend_at<NDIM, HALF>(wave, u + r * row + i));
      }
    }
    return;
  }
  const int64_t first = n - kWide;
  const auto sums = bend_of<NDIM, HALF, R>(wave, u + first);
  for (int r = 0; r < R; ++r) {
    for (int64_t i = rest; i < n; ++i) use.one(r, i, sums.of[r][i - first]);
  }
}

// ∇²u of R rows, given to `use` in vectors and then one by one.
template <int NDIM, int HALF, int R, typename T, typename Use>
inline void bend(const Wave<T>& wave, const T* u, const Use& use) {
  constexpr int64_t kWide = VECTOR / sizeof(T);
  const int64_t n = wave.n[NDIM - 1];
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) {
    const auto sums = bend_of<NDIM, HALF, R>(wave, u + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) use.wide(r, i, sums.of[r]);
  }
  if (i < n) bend_rest<NDIM, HALF, R>(wave, u, i, use);
}

// p' = 2 p - p° + κ ∇²p, over p°.
template <typename T, int NDIM>
struct Leap {
  const T *p, *kappa;
  T* other;
  int64_t row;
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    soon<NDIM>(other + at, row), soon<NDIM>(kappa + at, row);
    store(other + at, 2 * load(p + at) - load(other + at) + load(kappa + at) * bend);
  }
  void one(int r, int64_t i, T bend) const {
    const int64_t at = r * row + i;
    other[at] = 2 * p[at] - other[at] + kappa[at] * bend;
  }
};

// p̄ + 2 p̄' + ∇²(κ p̄'), over p̄; on rigid walls the last term by half.
template <typename T, int NDIM>
struct Pull {
  const T* after;
  T* bar;
  int64_t row;
  T share[kRows];
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    soon<NDIM>(bar + at, row), soon<NDIM>(after + at, row);
    store(bar + at, load(bar + at) + 2 * load(after + at) + share[r] * bend);
  }
  void one(int r, int64_t i, T bend) const {
    const int64_t at = r * row + i;
    bar[at] += 2 * after[at] + share[r] * bend;
  }
};

// κ̄ + p̄' ∇²p, over κ̄.
template <typename T, int NDIM>
struct Picture {
  const T* after;
  T* picture;
  int64_t row;
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    soon<NDIM>(picture + at, row);
    store(picture + at, load(picture + at) + load(after + at) * bend);
  }
  void one(int r, int64_t i, T bend) const { picture[r * row + i] += after[r * row + i] * bend; }
};

// --- layers

// How values are read and written: one by one, or a vector of them.
template <typename T>
struct One {
  T operator()(const T* from, int64_t i) const { return from[i]; }
  void put(T* to, int64_t i, T value) const { to[i] = value; }
};

template <typename T>
struct Many {
  Vector<T> operator()(const T* from, int64_t i) const { return load(from + i); }
  void put(T* to, int64_t i, const Vector<T>& values) const { store(to + i, values); }
};

// put(at, i, make(at, i)) for i from `first` on, which may work in place: the last vector overlaps
// the one before, so it is made before anything is put.
template <typename T, typename Work>
inline void each(int64_t first, int64_t end, const Work& work) {
  constexpr int64_t kWide = VECTOR / sizeof(T);
  const auto& [make, put] = work;
  if (end - first < kWide) {
    const One<T> at;
    for (int64_t i = first; i < end; ++i) put(at, i, make(at, i));
    return;
  }
  const Many<T> at;
  const auto last = make(at, end - kWide);
  for (int64_t i = first; i < end - kWide; i += kWide) put(at, i, make(at, i));
  put(at, end - kWide, last);
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
  int64_t next_in_memory() const { return LAST ? 1 : memory; }
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

// A layer's profile where `Lines::over` works.
template <typename T, bool LAST>
struct Profile {
  const T* row;
  T value;
  Profile(const T* values, int64_t i) : row(values), value(LAST ? 0 : values[i]) {}
  template <typename At>
  auto operator()(const At& at, int64_t l) const {
    if constexpr (LAST) return at(row, l);
    if constexpr (!LAST) return value;
  }
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
    constexpr int64_t kWide = VECTOR / sizeof(T);
    int64_t first = low ? width + 2 : 1 - HALF, end = low ? width + 1 + HALF : 0;
    if (LAST && first < end && width + 2 >= kWide) {
      if (low) first = std::min(first, end - kWide);
      if (!low) end = std::max(end, first + kWide);
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
  const auto [a, b, per_b] = recursion;
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
  const int64_t first = layer.low ? 0 : -HALF, end = w + 1 + (layer.low ? HALF : 0);
  surround(lines, bends, 0, w + 1, HALF);
  surround(lines, changes, 0, w + 1, HALF);
  surround(lines, slopes, first + (layer.low ? 0 : 1), end + (layer.low ? 0 : 1), HALF);
  const T over = wave.over[layer.axis];
  lines.template over<T>(0, w + 1, [&](int64_t i) {
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
  });
  const auto [from, until] = root.template beyond<LAST>(w);
  lines.template over<T>(from, until, [&](int64_t i) {
    const T* bend_i = bends + lines.aside(i) + root.of_half * by;
    T* to = slopes + lines.aside(i);
    return std::pair(
        [=, &root](const auto& at, int64_t l) {
          return weighted<HALF>(root.outwards, at, bend_i, l, by);
        },
        [=](const auto& at, int64_t l, const auto& slope) { at.put(to, l, slope); });
  });
  lines.template over<T>(0, w + 2, [&](int64_t i) {
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
  });
  lines.template over<T>(first, end, [&](int64_t i) {
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
  });
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
  const int64_t n = wave.n[wave.last()], x = piece * kLanes;
  const bool inner = wave.ndim == 3 && axis == 0;  // its lines lie side by side in each sheet
  for (const auto& layer : wave.layers) {
    if (layer.axis != axis) continue;
    const Lines<false> lines{wave.stride[axis], inner ? wave.n[1] * n : n, std::min(kLanes, n - x)};
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

// --- sweeps

// The rows of a plane in groups: those that a layer of the axis before the last one adds to are one
// group, its own thread's, and the others kRows each.
struct Groups {
  int64_t n, low, high;  // rows; those of the layers at both ends

  template <typename T>
  explicit Groups(const Wave<T>& wave) : n(wave.ndim > 1 ? wave.n[wave.ndim - 2] : 1), low(0), high(0) {
    for (const auto& layer : wave.layers) {
      if (wave.ndim > 1 && layer.axis == wave.ndim - 2) {
        (layer.low ? low : high) = layer.width + 1 + wave.half;
      }
    }
    if (low + high >= n) low = low + high > 0 ? n : 0, high = 0;
  }

  int64_t between() const { return (n - low - high + kRows - 1) / kRows; }
  int64_t count() const { return (low > 0) + between() + (high > 0); }
  bool layered(int64_t group) const {
    return (low > 0 && group == 0) || (high > 0 && group == count() - 1);
  }
  // the first of its rows
  int64_t first(int64_t group) const {
    if (group == count()) return n;
    if (low > 0) --group;
    return group < 0 ? 0 : std::min(low + group * kRows, n - high);
  }
};

// Rows of a field, shared out: layered(plane) before those that layers of the axis before the last
// one add to, inner(row, number, count) for up to kRows rows without the halo, outer(first, end) for
// values in it. `row` is where the first one starts, `number` counts rows without the halo. What
// lies before and behind a row is its own thread's, for the layers at its ends reach into it;
// between two rows of one thread it is one stretch.
template <typename T, int NDIM, typename Layered, typename Inner, typename Outer>
void rows(Threads& threads, const Wave<T>& wave, const Layered& layered, const Inner& inner,
          const Outer& outer) {
  const int64_t half = wave.half, stride = NDIM > 1 ? wave.stride[NDIM - 2] : wave.full(0);
  const Groups groups(wave);
  const int64_t n = groups.n, rim = NDIM > 1 ? half : 0, planes = NDIM > 2 ? wave.full(0) : 1;
  const int64_t size = stride * (n + 2 * rim), width = wave.n[NDIM - 1];
  const int64_t least = std::max<int64_t>(1, 8192 / (stride * kRows)), count = groups.count();
  const auto some = [&](int64_t start, int64_t number, int64_t first, int64_t end) {
    const int64_t begin = start + (first + rim) * stride, stop = start + (end + rim) * stride;
    outer(first > 0 ? begin : start, begin + half);
    for (int64_t at = begin + half + width; at < stop; at += stride) {
      const int64_t next = at + half;
      outer(at, next < stop ? next + half : end < n ? next : start + size);
    }
    inner(begin, number + first, end - first);
  };
  threads.share(planes * count, least, [&](int64_t begin, int64_t stop) {
    for (int64_t item = begin; item < stop; ++item) {
      const int64_t plane = item / count, group = item % count, start = plane * size;
      const int64_t deep = NDIM > 2 ? plane - half : 0;
      if (deep < 0 || (NDIM > 2 && deep >= wave.n[0])) {
        if (group == 0) outer(start, start + size);
        continue;
      }
      if (groups.layered(group)) layered(deep, group == 0);
      const int64_t end = groups.first(group + 1);
      for (int64_t row = groups.first(group); row < end; row += kRows) {
        some(start, deep * n, row, std::min(row + kRows, end));
      }
    }
  });
}

// `rows` with work(layer, lines, start) for the layers of all leading axes before them.
template <typename T, int NDIM, typename Work, typename Inner, typename Outer>
void layers_and_rows(Threads& threads, const Wave<T>& wave, const Work& work, const Inner& inner,
                     const Outer& outer) {
  if (NDIM == 3) across_planes(threads, wave, work);
  const int64_t count = pieces(wave);
  const bool both = Groups(wave).high == 0;  // or one layer alone
  const auto layered = [&](int64_t plane, bool low) {
    for (int64_t piece = 0; piece < count; ++piece) {
      across(wave, std::max(0, NDIM - 2), plane, piece, [&](const auto& layer, const auto&... at) {
        if (both || layer.low == low) work(layer, at...);
      });
    }
  };
  rows<T, NDIM>(threads, wave, layered, inner, outer);
}

// ∇²u of up to kRows rows, as `bend` gives it; use(first) is what takes it from that row on.
template <int NDIM, int HALF, typename T, typename Uses>
inline void bends(const Wave<T>& wave, const T* u, int64_t count, const Uses& uses) {
  if (NDIM > 1 && count == kRows) {
    bend<NDIM, HALF, NDIM == 1 ? 1 : kRows>(wave, u, uses(0));
    return;
  }
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  for (int64_t r = 0; r < count; ++r) bend<NDIM, HALF, 1>(wave, u + r * stride, uses(r));
}

// p' = 2 p - p° + κ (∇²p + gains) over p°, and the layers' memory after it.
template <typename T, int NDIM, int HALF>
void leap(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* other) {
  const auto add = [&](const auto& layer, const auto& lines, Start at, T sign) {
    const Targets<T, 1> target{{{sign, kappa + at.field, other + at.field}}};
    absorb<HALF, Leave::kAfter>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                                layer.zeta + at.zeta, target);
  };
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      return Leap<T, NDIM>{p + from, kappa + from, other + from, stride};
    });
    ends(wave, number, row, count, [&](const auto&... where) { add(where..., T(1)); });
  };
  const auto leading = [&](const auto&... where) { add(where..., T(-1)); };
  layers_and_rows<T, NDIM>(threads, wave, leading, inner, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) other[i] = 2 * p[i] - other[i];
  });
  mirror(wave, other);
}

// Where a row, by its number, lies along a leading axis: in the field.
template <typename T>
int64_t place(const Wave<T>& wave, int64_t number, int axis) {
  const int64_t n = wave.n[wave.ndim - 2];
  return wave.half + (axis == wave.ndim - 2 ? number % n : number / n);
}

// The share of ∇²(κ p̄') that a row gets: half on each wall that it lies on.
template <typename T>
T share_of(const Wave<T>& wave, int64_t number) {
  T share = 1;
  for (const Wall& wall : wave.walls) {
    if (wall.axis < wave.last() && place(wave, number, wall.axis) == wall.at) share /= 2;
  }
  return share;
}

// κ p̄' with twice its value on walls, and its images; zeros in κ̄.
template <typename T>
void scaled(Threads& threads, const Wave<T>& wave, const T* kappa, const T* after, T* product,
            T* picture) {
  threads.share(wave.full(0) * wave.stride[0], 16384, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) product[i] = kappa[i] * after[i];
    std::fill(picture + first, picture + end, T(0));
  });
  for (const Wall& wall : wave.walls) {
    const int64_t inner = wave.stride[wall.axis], size = wave.full(wall.axis) * inner;
    for (int64_t start = wall.at * inner; start < wave.full(0) * wave.stride[0]; start += size) {
      for (int64_t i = 0; i < inner; ++i) product[start + i] *= 2;
    }
  }
  mirror(wave, product);
}

// p° over p' where Σ w' C is made too: 2 p - p' + κ C with the curvature C = ∇²p and, at last, gains.
template <typename T, int NDIM>
struct LeapBack {
  Leap<T, NDIM> leap;
  Picture<T, NDIM> picture;
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    leap.wide(r, i, bend);
    picture.wide(r, i, bend);
  }
  void one(int r, int64_t i, T bend) const {
    leap.one(r, i, bend);
    picture.one(r, i, bend);
  }
};

// The transpose of `leap`: p̄° = -p̄' over p̄' (`after`), p̄ over that of the field itself (`bar`), the
// memory's over what it was afterwards, and κ̄ as `picture`. The images of p̄' are back in it.
// `product` is room for a field.
template <typename T, int NDIM, int HALF>
void transpose(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* after, T* bar,
               T* picture, T* product) {
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0, n = wave.n[NDIM - 1];
  const auto layered = [&](const auto& layer, const auto& lines, Start at, T sign) {
    const Targets<T, 1> target{{{T(1), after + at.field, picture + at.field}}};
    absorb<HALF, Leave::kSame>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                               layer.zeta + at.zeta, target);
    transpose_layer<HALF, false>(wave, layer, lines, kappa + at.field, after + at.field,
                                 layer.psi_bar + at.psi, layer.zeta_bar + at.zeta, bar + at.field,
                                 sign);
  };
  scaled(threads, wave, kappa, after, product, picture);
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, product + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      Pull<T, NDIM> use{after + from, bar + from, stride, {}};
      for (int64_t r = first; r < count; ++r) use.share[r - first] = share_of(wave, number + r);
      return use;
    });
    bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      return Picture<T, NDIM>{after + from, picture + from, stride};
    });
    for (int64_t r = 0; r < count; ++r) {
      const int64_t start = row + r * stride;
      for (const Wall& wall : wave.walls) {
        if (wall.axis != wave.last()) continue;
        const int64_t i = start + wall.at;
        bar[i] -= share_of(wave, number + r) / 2 * bend_at<NDIM, HALF>(wave, product + i);
      }
    }
    ends(wave, number, row, count, [&](const auto&... where) { layered(where..., T(1)); });
    for (int64_t r = 0; r < count; ++r) {
      const int64_t start = row + r * stride;
#pragma GCC ivdep
      for (int64_t i = start + wave.half; i < start + wave.half + n; ++i) after[i] = -after[i];
    }
  };
  const auto leading = [&](const auto&... where) { layered(where..., T(-1)); };
  layers_and_rows<T, NDIM>(threads, wave, leading, inner, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) {
      bar[i] += 2 * after[i];
      after[i] = -after[i];
    }
  });
}

// The scaled adjoint field leaps back, w° over w (`before`), once its images are made in w' (`after`).
// If the field is WALKED back beside it, p° comes over p' (`other`), its memory over that of after the
// step, and what the step adds to Σ w' ∇²p to `picture`.
template <typename T, int NDIM, int HALF, bool WALKED>
void retrace(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* after, T* before,
             T* picture, T* other) {
  mirror(wave, after);
  const auto layered = [&](const auto& layer, const auto& lines, Start at, T sign) {
    if constexpr (WALKED) {
      const Targets<T, 2> targets{{{T(1), after + at.field, picture + at.field},
                                   {sign, kappa + at.field, other + at.field}}};
      absorb<HALF, Leave::kBefore>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                                   layer.zeta + at.zeta, targets);
    }
    transpose_layer<HALF, true>(wave, layer, lines, kappa + at.field, after + at.field,
                                layer.psi_bar + at.psi, layer.zeta_bar + at.zeta,
                                before + at.field, sign);
  };
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, after + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      return Leap<T, NDIM>{after + from, kappa + from, before + from, stride};
    });
    if constexpr (WALKED) {
      bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
        const int64_t from = at + first * stride;
        return LeapBack<T, NDIM>{{p + from, kappa + from, other + from, stride},
                                 {after + from, picture + from, stride}};
      });
    }
    ends(wave, number, row, count, [&](const auto&... where) { layered(where..., T(1)); });
  };
  const auto leading = [&](const auto&... where) { layered(where..., T(-1)); };
  layers_and_rows<T, NDIM>(threads, wave, leading, inner, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) {
      if constexpr (WALKED) other[i] = 2 * p[i] - other[i];
      before[i] = 2 * after[i] - before[i];
    }
  });
  if (WALKED) mirror(wave, other);
}
