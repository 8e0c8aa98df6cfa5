// The constant-density wave step, its way back and its transpose: few sweeps over the fields.
//
// The arithmetic of solvers/constant_density.py, to which a test holds it; read it first. This file
// is included once for each instruction set, in a namespace of its own, with VECTOR bytes a vector.

#include "vectors.h"
#include "laplacian.h"
#include "layer.h"
#include "crossing.h"
#include "margin.h"

// The rows of a plane in groups: those that a layer of the axis before the last one adds to are one
// group, its own thread's, and the others kGroup each.
template <int NDIM>
struct Groups {
  int64_t n, low, high;  // rows; those of the layers at both ends

  template <typename T>
  explicit Groups(const Wave<T>& wave) : n(NDIM > 1 ? wave.n[NDIM - 2] : 1), low(0), high(0) {
    for (const auto& layer : wave.layers) {
      if (NDIM > 1 && layer.axis == NDIM - 2) {
        (layer.low ? low : high) = layer.width + 1 + wave.half;
      }
    }
    if (low + high >= n) low = low + high > 0 ? n : 0, high = 0;
  }

  int64_t between() const { return (n - low - high + kGroup<NDIM> - 1) / kGroup<NDIM>; }
  int64_t count() const { return (low > 0) + between() + (high > 0); }
  bool layered(int64_t group) const {
    return (low > 0 && group == 0) || (high > 0 && group == count() - 1);
  }
  // the first of its rows
  int64_t first(int64_t group) const {
    if (group == count()) return n;
    if (low > 0) --group;
    return group < 0 ? 0 : std::min(low + group * kGroup<NDIM>, n - high);
  }
};

// Rows of a field, shared out: layered(plane) before those that layers of the axis before the last
// one add to, inner(row, number, count) for up to kGroup rows without the halo. `row` is where the first
// one starts, `number` counts rows without the halo. What lies before and behind a row is its own
// thread's, for the layers at its ends reach into it.
template <typename T, int NDIM, typename Layered, typename Inner>
void rows(Threads& threads, const Wave<T>& wave, const Layered& layered, const Inner& inner) {
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : wave.full(0);
  const Groups<NDIM> groups(wave);
  const int64_t n = groups.n, rim = NDIM > 1 ? wave.half : 0, planes = NDIM > 2 ? wave.n[0] : 1;
  const int64_t least = std::max<int64_t>(1, 8192 / (stride * kGroup<NDIM>)), count = groups.count();
  threads.share(planes * count, least, [&](int64_t begin, int64_t stop) {
    for (int64_t item = begin; item < stop; ++item) {
      const int64_t plane = item / count, group = item % count;
      const int64_t start = NDIM > 2 ? (plane + rim) * wave.stride[0] : 0;
      if (groups.layered(group)) layered(plane, group == 0);
      const int64_t end = groups.first(group + 1);
      for (int64_t row = groups.first(group); row < end; row += kGroup<NDIM>) {
        const int64_t rows = std::min<int64_t>(end - row, kGroup<NDIM>);
        inner(start + (row + rim) * stride, plane * n + row, rows);
      }
    }
  });
}

// `rows` with work(layer, lines, start) for the layers of all leading axes before them.
template <typename T, int NDIM, typename Work, typename Inner>
void layers_and_rows(Threads& threads, const Wave<T>& wave, const Work& work, const Inner& inner) {
  if (NDIM == 3) across_planes(threads, wave, work);
  const int64_t count = pieces(wave);
  const bool both = Groups<NDIM>(wave).high == 0;  // or one layer alone
  const auto layered = [&](int64_t plane, bool low) {
    for (int64_t piece = 0; piece < count; ++piece) {
      across(wave, std::max(0, NDIM - 2), plane, piece, [&](const auto& layer, const auto&... at) {
        if (both || layer.low == low) work(layer, at...);
      });
    }
  };
  rows<T, NDIM>(threads, wave, layered, inner);
}

// The images at the ends of some rows.
template <typename T>
void mirror_ends(const Wave<T>& wave, T* row, int64_t count) {
  const int64_t stride = wave.ndim > 1 ? wave.stride[wave.ndim - 2] : 0;
  for (int64_t r = 0; r < count; ++r) ::mirror_ends(wave, row + r * stride);
}

// work(first, rows, n) for ROWS of a group's rows at a time, or for all of them as one line.
template <int NDIM, int ROWS, bool LINE, typename T, typename Work>
inline void each_line(const Wave<T>& wave, int64_t count, const Work& work) {
  const int64_t n = wave.n[NDIM - 1];
  if constexpr (LINE) {
    work(0, std::integral_constant<int, 1>(), (count - 1) * wave.stride[NDIM - 2] + n);
  } else {
    together<ROWS>(count, [&](int64_t first, auto rows) { work(first, rows, n); });
  }
}

// ∇²u of a group's rows, as `bend` gives it; uses(first) is what takes it from that row on.
template <int NDIM, int HALF, bool LINE = kLine<NDIM>, typename T, typename Uses>
inline void bends(const Wave<T>& wave, const T* u, int64_t count, const Uses& uses) {
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  each_line<NDIM, NDIM == 1 ? 1 : kRows<NDIM>, LINE>(wave, count, [&](int64_t first, auto rows, int64_t n) {
    bend<NDIM, HALF, rows>(wave, u + first * stride, n, uses(first));
  });
}

// p' = 2 p - p° + κ C over p° with the curvature C = ∇²p + gains, and the layers' memory after it. If
// EXPOSED, C itself as `curvature`.
template <typename T, int NDIM, int HALF, bool EXPOSED>
void leap(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* other, T* curvature) {
  if (EXPOSED) {
    threads.share(wave.full(0) * wave.stride[0], 16384, [&](int64_t first, int64_t end) {
      std::fill(curvature + first, curvature + end, T(0));
    });
  }
  const auto add = [&](const auto& layer, const auto& lines, Start at, T sign) {
    const auto absorbed = [&](const auto& target) {
      absorb<HALF, Leave::kAfter>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                                  layer.zeta + at.zeta, target);
    };
    const Target<T> next{sign, kappa + at.field, other + at.field};
    if constexpr (EXPOSED) absorbed(Both<Target<T>, Bare<T>>{next, {curvature + at.field}});
    if constexpr (!EXPOSED) absorbed(next);
  };
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    bends<NDIM, HALF>(wave, p + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      const Leap<T, NDIM> next{p + from, kappa + from, other + from, stride};
      if constexpr (EXPOSED) return Expose<T, NDIM>{next, curvature + from};
      if constexpr (!EXPOSED) return next;
    });
    ends(wave, number, row, count, [&](const auto&... where) { add(where..., T(1)); });
    mirror_ends(wave, other + row, count);
  };
  layers_and_rows<T, NDIM>(threads, wave, [&](const auto&... where) { add(where..., T(-1)); }, inner);
  mirror(threads, wave, other);
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

// κ p̄' with twice its value on walls, and its images across leading axes; zeros in κ̄.
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
  mirror(threads, wave, product);
}

// p° over p' where Σ w' C is made too: 2 p - p' + κ C with the curvature C = ∇²p and, at last, gains.
template <typename T, int NDIM>
struct LeapBack {
  Leap<T, NDIM> leap;
  Picture<T, NDIM> picture;
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    leap(at, r, i, bend);
    picture(at, r, i, bend);
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
    const Target<T> target{T(1), after + at.field, picture + at.field};
    absorb<HALF, Leave::kSame>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                               layer.zeta + at.zeta, target);
    transpose_layer<HALF, false>(wave, layer, lines, kappa + at.field, after + at.field,
                                 layer.psi_bar + at.psi, layer.zeta_bar + at.zeta, bar + at.field,
                                 sign);
  };
  scaled(threads, wave, kappa, after, product, picture);
  const auto inner = [&](int64_t row, int64_t number, int64_t count) {
    const int64_t at = row + wave.half;
    mirror_ends(wave, product + row, count);
    bends<NDIM, HALF, false>(wave, product + at, count, [&](int64_t first) {
      const int64_t from = at + first * stride;
      Pull<T, NDIM> use{after + from, bar + from, stride, {}};
      const int64_t last = std::min<int64_t>(count, first + kRows<NDIM>);
      for (int64_t r = first; r < last; ++r) use.share[r - first] = share_of(wave, number + r);
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
  layers_and_rows<T, NDIM>(
      threads, wave, [&](const auto&... where) { layered(where..., T(-1)); }, inner);
}

// What the adjoint field leaps back with: nothing, the field itself that is walked back, or an image of the
// curvature that a step forth has exposed.
enum class With { kNothing, kWalk, kImage };

// The scaled adjoint field leaps back, w° over w (`before`), once its images are made in w' (`after`).
// If the field is walked back beside it, p° comes over p' (`other`), its memory over that of after the
// step; then, and if an exposure is imaged, `count` of w' C are added to `picture`.
template <typename T, int NDIM, int HALF, With WITH>
void retrace(Threads& threads, const Wave<T>& wave, const T* kappa, const T* p, T* after, T* before,
             T* picture, T* other, const T* exposure, T count) {
  constexpr bool WALKED = WITH == With::kWalk;
  mirror(threads, wave, after);
  const auto layered = [&](const auto& layer, const auto& lines, Start at, T sign) {
    if constexpr (WALKED) {
      const Both<Target<T>, Target<T>> targets{{T(1), after + at.field, picture + at.field},
                                               {sign, kappa + at.field, other + at.field}};
      absorb<HALF, Leave::kBefore>(wave, layer, lines, p + at.field, layer.psi + at.psi,
                                   layer.zeta + at.zeta, targets);
    }
    transpose_layer<HALF, true>(wave, layer, lines, kappa + at.field, after + at.field,
                                layer.psi_bar + at.psi, layer.zeta_bar + at.zeta,
                                before + at.field, sign);
  };
  const int64_t stride = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const auto inner = [&](int64_t row, int64_t number, int64_t rows) {
    const int64_t at = row + wave.half;
    mirror_ends(wave, after + row, rows);
    const auto adjoint = [&](int64_t first) {
      const int64_t from = at + first * stride;
      const Leap<T, NDIM> leap{after + from, kappa + from, before + from, stride};
      if constexpr (WITH == With::kImage) {
        return Image<T, NDIM>{leap, count, exposure + from, picture + from};
      }
      if constexpr (WITH != With::kImage) return leap;
    };
    const auto walked = [&](int64_t first) {
      const int64_t from = at + first * stride;
      return LeapBack<T, NDIM>{{p + from, kappa + from, other + from, stride},
                               {after + from, picture + from, stride}};
    };
    if constexpr (WALKED && NDIM == 3) {
      each_line<NDIM, 2, kLine<NDIM>>(wave, rows, [&](int64_t first, auto some, int64_t n) {
        const int64_t from = at + first * stride;
        bend_both<NDIM, HALF, some>(wave, n, after + from, adjoint(first), p + from, walked(first));
      });
    } else {
      bends<NDIM, HALF>(wave, after + at, rows, adjoint);
      if constexpr (WALKED) bends<NDIM, HALF>(wave, p + at, rows, walked);
    }
    ends(wave, number, row, rows, [&](const auto&... where) { layered(where..., T(1)); });
    if (WALKED) mirror_ends(wave, other + row, rows);
  };
  layers_and_rows<T, NDIM>(
      threads, wave, [&](const auto&... where) { layered(where..., T(-1)); }, inner);
  if (WALKED) mirror(threads, wave, other);
}
