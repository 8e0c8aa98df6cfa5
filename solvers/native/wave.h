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

// ∇²u of R rows, given to `use` in vectors and then one by one. Rows share what they
// read across: with four of them 11 loads a value instead of 17, at order 8 in two dimensions.
template <int NDIM, int HALF, int R, typename T, typename Use>
inline void bend(const Wave<T>& wave, const T* u, const Use& use) {
  constexpr int64_t kWide = VECTOR / sizeof(T);
  const T *x = wave.weights[NDIM - 1], *y = wave.weights[NDIM > 1 ? NDIM - 2 : 0];
  const T* z = wave.weights[0];
  const T center = wave.center;
  const int64_t n = wave.n[NDIM - 1], plane = wave.stride[0];
  const int64_t row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  int64_t i = 0;
  for (; i + kWide <= n; i += kWide) {
    Vector<T> sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T* at = u + r * row + i;
      sum[r] = x[1] * (load(at - 1) + load(at + 1));
#pragma GCC unroll 8
      for (int k = 2; k <= HALF; ++k) sum[r] += x[k] * (load(at - k) + load(at + k));
    }
    if constexpr (NDIM == 1) sum[0] += center * load(u + i);
    if constexpr (NDIM > 1) {
#pragma GCC unroll 16
      for (int j = -HALF; j < R + HALF; ++j) {
        const Vector<T> value = load(u + j * row + i);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const int k = j > r ? j - r : r - j;
          if (k == 0) sum[r] += center * value;
          if (k > 0 && k <= HALF) sum[r] += y[k] * value;
        }
      }
    }
    if constexpr (NDIM > 2) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T* at = u + r * row + i;
#pragma GCC unroll 8
        for (int k = 1; k <= HALF; ++k) {
          sum[r] += z[k] * (load(at - k * plane) + load(at + k * plane));
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) use.wide(r, i, sum[r]);
  }
  for (; i < n; ++i) {
    for (int r = 0; r < R; ++r) use.one(r, i, bend_at<NDIM, HALF>(wave, u + r * row + i));
  }
}

// p' = 2 p - p° + κ ∇²p, over p°.
template <typename T>
struct Leap {
  const T *p, *kappa;
  T* other;
  int64_t row;
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    store(other + at, 2 * load(p + at) - load(other + at) + load(kappa + at) * bend);
  }
  void one(int r, int64_t i, T bend) const {
    const int64_t at = r * row + i;
    other[at] = 2 * p[at] - other[at] + kappa[at] * bend;
  }
};

// p̄ + 2 p̄' + ∇²(κ p̄'), over p̄; on rigid walls the last term by half.
template <typename T>
struct Pull {
  const T* after;
  T* bar;
  int64_t row;
  T share[kRows];
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    store(bar + at, load(bar + at) + 2 * load(after + at) + share[r] * bend);
  }
  void one(int r, int64_t i, T bend) const {
    const int64_t at = r * row + i;
    bar[at] += 2 * after[at] + share[r] * bend;
  }
};

// κ̄ = p̄' ∇²p, added to what leading layers have put there if `more`.
template <typename T>
struct Picture {
  const T* after;
  T* picture;
  int64_t row;
  bool more[kRows];
  void wide(int r, int64_t i, const Vector<T>& bend) const {
    const int64_t at = r * row + i;
    Vector<T> value = load(after + at) * bend;
    if (more[r]) value += load(picture + at);
    store(picture + at, value);
  }
  void one(int r, int64_t i, T bend) const {
    const int64_t at = r * row + i;
    picture[at] = after[at] * bend + (more[r] ? picture[at] : 0);
  }
};

// --- layers

// Lines that cross a layer side by side. Across the last axis there is one, contiguous.
template <bool LAST>
struct Lines {
  int64_t field, memory, lanes;  // strides across the layer; lines

  int64_t in_field(int64_t i) const { return LAST ? i : i * field; }
  int64_t in_memory(int64_t i) const { return LAST ? i : i * memory; }
  int64_t aside(int64_t i) const { return LAST ? i : i * kLanes; }
  int64_t room(int64_t count) const { return LAST ? count + 16 : count * kLanes; }

  // at(i)(lane) for all i from `first` on and all lines; what at(i) has looked up holds for a row.
  // Across the last axis the places along the layer are what `lane` counts.
  template <typename At>
  void each(int64_t first, int64_t end, const At& at) const {
    if constexpr (LAST) {
      const auto work = at(0);
#pragma GCC ivdep
      for (int64_t i = first; i < end; ++i) work(i);
    } else {
      for (int64_t i = first; i < end; ++i) {
        const auto work = at(i);
        const int64_t count = lanes;
#pragma GCC ivdep
        for (int64_t lane = 0; lane < count; ++lane) work(lane);
      }
    }
  }
};

// A row of a layer's recursion where `Lines::each` asks for it.
template <typename T, bool LAST>
struct Along {
  const T* row;
  T value;
  Along(const T* values, int64_t i) : row(values), value(LAST ? 0 : values[i]) {}
  T operator[](int64_t lane) const { return LAST ? row[lane] : value; }
};

// Room aside for a layer's raw gain, with zeros around.
template <int HALF, typename T, bool LAST>
T* room_for_gain(const Layer<T>& layer, const Lines<LAST>& lines) {
  const int64_t w = layer.width, rim = 2 * (HALF - 1);
  T* gain = scratch<T>(lines.room(w + 1 + 2 * rim), 0) + lines.aside(rim);
  const auto nothing = [&](int64_t i) {
    T* to = gain + lines.aside(i);
    return [=](int64_t l) { to[l] = 0; };
  };
  lines.each(-rim, 0, nothing);
  lines.each(w + 1, w + 1 + rim, nothing);
  return gain;
}

// The raw gain ∂ψ' + ζ' of a layer, put aside. `p` points at the layer's first node, `psi` and
// `zeta` at the memory before the step, which is replaced if `keep`.
template <int HALF, typename T, bool LAST>
T* raw_gain(const Layer<T>& layer, const Lines<LAST>& lines, const T* p, T* psi, T* zeta,
            bool keep) {
  const int64_t w = layer.width, one = LAST ? 1 : lines.field;
  T* gain = room_for_gain<HALF>(layer, lines);
  T* after = scratch<T>(lines.room(w + 2), 1);
  lines.each(0, w + 2, [=](int64_t i) {
    const T *psi_i = psi + lines.in_memory(i), *p_i = p + lines.in_field(i);
    const Along<T, LAST> a{layer.a_half, i}, b{layer.b_half, i};
    T* to = after + lines.aside(i);
    return [=](int64_t l) { to[l] = b[l] * psi_i[l] + a[l] * (p_i[l] - p_i[l - one]); };
  });
  lines.each(0, w + 1, [=](int64_t i) {
    T *zeta_i = zeta + lines.in_memory(i), *to = gain + lines.aside(i);
    const T *p_i = p + lines.in_field(i), *psi_i = after + lines.aside(i);
    const Along<T, LAST> a{layer.a, i}, b{layer.b, i};
    return [=](int64_t l) {
      const T twice = (p_i[l + one] - p_i[l]) - (p_i[l] - p_i[l - one]);
      const T change = psi_i[l + (LAST ? 1 : kLanes)] - psi_i[l];
      const T zeta = b[l] * zeta_i[l] + a[l] * (twice + change);
      to[l] = change + zeta;
      if (keep) zeta_i[l] = zeta;
    };
  });
  if (keep) {
    lines.each(0, w + 2, [=](int64_t i) {
      T* to = psi + lines.in_memory(i);
      const T* from = after + lines.aside(i);
      return [=](int64_t l) { to[l] = from[l]; };
    });
  }
  return gain;
}

// The raw gain that was kept, put aside.
template <int HALF, typename T, bool LAST>
T* kept_gain(const Layer<T>& layer, const Lines<LAST>& lines, const T* kept) {
  T* gain = room_for_gain<HALF>(layer, lines);
  lines.each(0, layer.width + 1, [=](int64_t i) {
    const T* from = kept + lines.in_memory(i);
    T* to = gain + lines.aside(i);
    return [=](int64_t l) { to[l] = from[l]; };
  });
  return gain;
}

// A raw gain from the memory after a step, where it is to be kept.
template <typename T, bool LAST>
void keep_gain(const Layer<T>& layer, const Lines<LAST>& lines, const T* psi, const T* zeta,
               T* kept) {
  const int64_t one = LAST ? 1 : lines.memory;
  lines.each(0, layer.width + 1, [=](int64_t i) {
    const int64_t at = lines.in_memory(i);
    return [=](int64_t l) { kept[at + l] = psi[at + l + one] - psi[at + l] + zeta[at + l]; };
  });
}

// P of values put aside, around one of them.
template <int HALF, bool LAST, typename T>
inline T smoothed(const std::array<T, kHalf>& weights, const T* at) {
  T sum = weights[0] * at[0];
#pragma GCC unroll 4
  for (int k = 1; k < HALF; ++k) {
    const int64_t by = k * (LAST ? 1 : kLanes);
    sum += weights[k] * (at[-by] + at[by]);
  }
  return sum;
}

// Add P of a layer's raw gain, times the field `scale`, to `field`, or take it away.
template <int HALF, typename T, bool LAST>
void add_gain(const Wave<T>& wave, const Layer<T>& layer, const Lines<LAST>& lines, const T* gain,
              T sign, const T* scale, T* field) {
  const int64_t reach = HALF - 1;
  const int64_t first = layer.low ? 0 : -reach, end = layer.width + 1 + (layer.low ? reach : 0);
  const T factor = sign * wave.over[layer.axis];
  const auto weights = wave.smooth;
  lines.each(first, end, [=](int64_t i) {
    const T *gain_i = gain + lines.aside(i), *scale_i = scale + lines.in_field(i);
    T* to = field + lines.in_field(i);
    return [=](int64_t l) {
      to[l] += factor * scale_i[l] * smoothed<HALF, LAST>(weights, gain_i + l);
    };
  });
}

// The transpose of a layer's recursion: its memory's cotangents, and what it adds to p̄.
template <int HALF, typename T, bool LAST>
void transpose_layer(const Wave<T>& wave, const Layer<T>& layer, const Lines<LAST>& lines,
                     const T* kappa, const T* after, T* psi_bar, T* zeta_bar, T* bar) {
  const int64_t w = layer.width, reach = HALF - 1, room = lines.room(w + 5 + 2 * reach);
  const int64_t one = LAST ? 1 : kLanes;
  T* felt = scratch<T>(4 * room, 2) + lines.aside(reach + 1);
  T *bends = felt + room, *curls = bends + room, *firsts = curls + room;
  const auto nothing = [=](T* where) {
    return [=](int64_t i) {
      T* to = where + lines.aside(i);
      return [=](int64_t l) { to[l] = 0; };
    };
  };
  const int64_t first = layer.low ? 0 : -reach, end = w + 1 + (layer.low ? reach : 0);
  lines.each(-reach, first, nothing(felt));
  lines.each(end, w + 1 + reach, nothing(felt));
  lines.each(first, end, [=](int64_t i) {
    const T *kappa_i = kappa + lines.in_field(i), *after_i = after + lines.in_field(i);
    T* to = felt + lines.aside(i);
    return [=](int64_t l) { to[l] = kappa_i[l] * after_i[l]; };
  });
  for (T* ends : {bends, curls}) {
    lines.each(-1, 0, nothing(ends));
    lines.each(w + 1, w + 2, nothing(ends));
  }
  lines.each(-1, 0, nothing(firsts));
  lines.each(w + 2, w + 3, nothing(firsts));
  const T over = wave.over[layer.axis];
  const auto weights = wave.smooth;
  lines.each(0, w + 1, [=](int64_t i) {
    const Along<T, LAST> a{layer.a, i}, b{layer.b, i};
    const T* felt_i = felt + lines.aside(i);
    T *bend = bends + lines.aside(i), *curl = curls + lines.aside(i);
    T* zeta_i = zeta_bar + lines.in_memory(i);
    return [=](int64_t l) {
      const T sum = over * smoothed<HALF, LAST>(weights, felt_i + l);
      const T zeta = zeta_i[l] + sum;
      curl[l] = a[l] * zeta;
      bend[l] = sum + a[l] * zeta;
      zeta_i[l] = b[l] * zeta;
    };
  });
  lines.each(0, w + 2, [=](int64_t i) {
    const Along<T, LAST> a{layer.a_half, i}, b{layer.b_half, i};
    const T *bend = bends + lines.aside(i), *curl = curls + lines.aside(i);
    T *psi_i = psi_bar + lines.in_memory(i), *to = firsts + lines.aside(i);
    return [=](int64_t l) {
      const T psi = psi_i[l] + (bend[l - one] - bend[l]);
      to[l] = a[l] * psi + (curl[l - one] - curl[l]);
      psi_i[l] = b[l] * psi;
    };
  });
  lines.each(-1, w + 2, [=](int64_t i) {
    const T* from = firsts + lines.aside(i);
    T* to = bar + lines.in_field(i);
    return [=](int64_t l) { to[l] += from[l] - from[l + one]; };
  });
}

// Where some lines of a layer start: in the field at its first node, in its memory's two arrays.
struct Start {
  int64_t field, psi, zeta;
};

// work(layer, lines, start) for all lines across the layers of a leading axis, shared out. Layers at
// both ends of a line are one thread's: on a small grid their gains overlap.
template <typename T, typename Work>
void across(Threads& threads, const Wave<T>& wave, int axis, const Work& work) {
  bool any = false;
  for (const auto& layer : wave.layers) any |= layer.axis == axis;
  if (!any) return;
  const int last = wave.last();
  const int other = wave.ndim == 3 ? 1 - axis : -1;
  const int64_t n = wave.n[last], pieces = (n + kLanes - 1) / kLanes;
  const int64_t rows = other < 0 ? 1 : wave.n[other];
  threads.share(rows * pieces, 1, [&](int64_t first, int64_t end) {
    for (int64_t item = first; item < end; ++item) {
      const int64_t j = item / pieces, x = item % pieces * kLanes;
      for (const auto& layer : wave.layers) {
        if (layer.axis != axis) continue;
        const int64_t beside = other < 0 ? 1 : wave.n[other];
        const bool outer = other < axis;  // the other axis varies slower
        Lines<false> lines{wave.stride[axis], outer ? n : beside * n, std::min(kLanes, n - x)};
        const int64_t sheet = outer ? j * n : 0, line = (outer || other < 0 ? 0 : j * n) + x;
        Start start;
        start.field = layer.first * wave.stride[axis] + wave.half + x;
        if (other >= 0) start.field += (wave.half + j) * wave.stride[other];
        start.psi = (other < 0 ? 0 : sheet * (layer.width + 2)) + line;
        start.zeta = (other < 0 ? 0 : sheet * (layer.width + 1)) + line;
        work(layer, lines, start);
      }
    }
  });
}

// work(layer, lines, start) for the layers across the last axis, in one row.
template <typename T, typename Work>
inline void ends(const Wave<T>& wave, int64_t number, int64_t row, const Work& work) {
  for (const auto& layer : wave.layers) {
    if (layer.axis != wave.last()) continue;
    const Start start{row + layer.first, number * (layer.width + 2), number * (layer.width + 1)};
    work(layer, Lines<true>{1, 1, 1}, start);
  }
}

// --- sweeps

// Rows of a field, shared out: inner(row, number, count) for up to kRows rows without the halo,
// outer(first, end) for values in it. `row` is where the first one starts, `number` counts rows
// without the halo. What lies before and behind a row is its own thread's, for the layers at its
// ends reach into it; between two rows of one thread it is one stretch.
template <typename T, int NDIM, typename Inner, typename Outer>
void rows(Threads& threads, const Wave<T>& wave, const Inner& inner, const Outer& outer) {
  const int64_t half = wave.half, stride = NDIM > 1 ? wave.stride[NDIM - 2] : wave.full(0);
  const int64_t n = NDIM > 1 ? wave.n[NDIM - 2] : 1, rim = NDIM > 1 ? half : 0;
  const int64_t groups = (n + kRows - 1) / kRows, planes = NDIM > 2 ? wave.full(0) : 1;
  const int64_t size = stride * (n + 2 * rim), width = wave.n[NDIM - 1];
  const int64_t least = std::max<int64_t>(1, 8192 / (stride * kRows));
  threads.share(planes * groups, least, [&](int64_t begin, int64_t stop) {
    for (int64_t item = begin; item < stop; ++item) {
      const int64_t plane = item / groups, group = item % groups, start = plane * size;
      const bool deep = NDIM < 3 || (plane >= half && plane < half + wave.n[0]);
      if (!deep) {
        if (group == 0) outer(start, start + size);
        continue;
      }
      const int64_t first = rim + group * kRows, end = std::min(first + kRows, rim + n);
      outer(start + (group > 0 ? first * stride : 0), start + first * stride + half);
      for (int64_t row = first; row < end; ++row) {
        const int64_t at = start + row * stride + half + width, next = at + half;
        outer(at, row < end - 1 ? next + half : group < groups - 1 ? next : start + size);
      }
      const int64_t number = (NDIM > 2 ? (plane - half) * n : 0) + first - rim;
      inner(start + first * stride, number, end - first);
    }
  });
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
    const T* gain = raw_gain<HALF>(layer, lines, p + at.field, layer.psi + at.psi,
                                   layer.zeta + at.zeta, true);
    add_gain<HALF>(wave, layer, lines, gain, sign, kappa + at.field, other + at.field);
  };
  for (int axis = 0; axis < wave.last(); ++axis) {
    across(threads, wave, axis, [&](const auto&... where) { add(where..., T(-1)); });
  }
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      return Leap<T>{p + from, kappa + from, other + from, stride};
    });
    for (int64_t r = 0; r < count; ++r) {
      ends(wave, number + r, row + r * stride, [&](const auto&... where) { add(where..., T(1)); });
    }
  };
  rows<T, NDIM>(threads, wave, inner, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) other[i] = 2 * p[i] - other[i];
  });
  mirror(wave, other);
}

// ∂ψ' + ζ' of all layers, where they are to be kept.
template <typename T>
void keep(Threads& threads, const Wave<T>& wave) {
  const auto one = [&](const auto& layer, const auto& lines, Start at) {
    keep_gain(layer, lines, layer.psi + at.psi, layer.zeta + at.zeta, layer.kept + at.zeta);
  };
  for (int axis = 0; axis < wave.last(); ++axis) across(threads, wave, axis, one);
  const int64_t number = wave.size_without_halo() / wave.n[wave.last()];
  threads.share(number, 64, [&](int64_t first, int64_t end) {
    for (int64_t row = first; row < end; ++row) ends(wave, row, 0, one);
  });
}

// Where a row, by its number, lies along a leading axis: in the field.
template <typename T>
int64_t place(const Wave<T>& wave, int64_t number, int axis) {
  const int64_t n = wave.n[wave.ndim - 2];
  return wave.half + (axis == wave.ndim - 2 ? number % n : number / n);
}

// Whether layers across a leading axis add to a row.
template <typename T>
bool touched(const Wave<T>& wave, int64_t number) {
  const int64_t reach = wave.half - 1;
  for (const auto& layer : wave.layers) {
    if (layer.axis == wave.last()) continue;
    const int64_t at = place(wave, number, layer.axis) - layer.first;
    if (at >= -reach && at <= layer.width + reach) return true;
  }
  return false;
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

// κ p̄' with twice its value on walls, and its images.
template <typename T>
void scaled(Threads& threads, const Wave<T>& wave, const T* kappa, const T* after, T* product) {
  threads.share(wave.full(0) * wave.stride[0], 16384, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) product[i] = kappa[i] * after[i];
  });
  for (const Wall& wall : wave.walls) {
    const int64_t inner = wave.stride[wall.axis], size = wave.full(wall.axis) * inner;
    for (int64_t start = wall.at * inner; start < wave.full(0) * wave.stride[0]; start += size) {
      for (int64_t i = 0; i < inner; ++i) product[start + i] *= 2;
    }
  }
  mirror(wave, product);
}

// p' over p° where κ̄ is made too: 2 p - p° + κ C with the curvature C = ∇²p and, at last, gains.
template <typename T>
struct LeapBack {
  Leap<T> leap;
  Picture<T> picture;
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
// `product` is room for a field. With `other`, the field after, that before is put over it.
template <typename T, int NDIM, int HALF, bool BACK>
void transpose(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* after, T* bar,
               T* picture, T* product, T* other) {
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0, n = wave.n[NDIM - 1];
  const auto layered = [&](const auto& layer, const auto& lines, Start at, T sign) {
    const T* gain;
    if constexpr (BACK) {
      gain = kept_gain<HALF>(layer, lines, layer.kept + at.zeta);
      add_gain<HALF>(wave, layer, lines, gain, sign, kappa + at.field, other + at.field);
    } else {
      gain = raw_gain<HALF>(layer, lines, p + at.field, layer.psi + at.psi, layer.zeta + at.zeta,
                            false);
    }
    add_gain<HALF>(wave, layer, lines, gain, T(1), after + at.field, picture + at.field);
    transpose_layer<HALF>(wave, layer, lines, kappa + at.field, after + at.field,
                          layer.psi_bar + at.psi, layer.zeta_bar + at.zeta, bar + at.field);
  };
  const auto clear = [&](int64_t row, int64_t number, int64_t count) {
    for (int64_t r = 0; r < count; ++r) {
      T* start = picture + row + r * stride + wave.half;
      if (touched(wave, number + r)) std::fill(start, start + n, T(0));
    }
  };
  if (NDIM > 1) rows<T, NDIM>(threads, wave, clear, [](int64_t, int64_t) {});
  for (int axis = 0; axis < wave.last(); ++axis) {
    across(threads, wave, axis, [&](const auto&... where) { layered(where..., T(-1)); });
  }
  scaled(threads, wave, kappa, after, product);
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, product + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      Pull<T> use{after + from, bar + from, stride, {}};
      for (int64_t r = first; r < count; ++r) use.share[r - first] = share_of(wave, number + r);
      return use;
    });
    bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      Picture<T> use{after + from, picture + from, stride, {}};
      for (int64_t r = first; r < count; ++r) use.more[r - first] = touched(wave, number + r);
      if constexpr (BACK) {
        return LeapBack<T>{{p + from, kappa + from, other + from, stride}, use};
      } else {
        return use;
      }
    });
    for (int64_t r = 0; r < count; ++r) {
      const int64_t start = row + r * stride;
      for (const Wall& wall : wave.walls) {
        if (wall.axis != wave.last()) continue;
        const int64_t i = start + wall.at;
        bar[i] -= share_of(wave, number + r) / 2 * bend_at<NDIM, HALF>(wave, product + i);
      }
      ends(wave, number + r, start, [&](const auto&... where) { layered(where..., T(1)); });
#pragma GCC ivdep
      for (int64_t i = start + wave.half; i < start + wave.half + n; ++i) after[i] = -after[i];
    }
  };
  rows<T, NDIM>(threads, wave, inner, [&](int64_t first, int64_t end) {
#pragma GCC ivdep
    for (int64_t i = first; i < end; ++i) {
      if constexpr (BACK) other[i] = 2 * p[i] - other[i];
      bar[i] += 2 * after[i];
      picture[i] = 0;
      after[i] = -after[i];
    }
  });
  if (BACK) mirror(wave, other);
}
