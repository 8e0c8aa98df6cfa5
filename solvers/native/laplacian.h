// The Laplacian of rows, and the leaps that are made of it. This file is included as wave.h is.

// Rows that share what a stencil reads across them. In three dimensions each is as many streams as the
// planes that it reads: with four of them processors of AMD's (Zen 3) take a third longer than with two.
template <int NDIM>
constexpr int kRows = NDIM == 3 && VECTOR < 64 ? 2 : 4;

// Whether rows that lie side by side are one line, with what lies between them: in three dimensions
// they are too short for a processor to foresee its streams, and with AVX2 too many at once.
template <int NDIM>
constexpr bool kLine = NDIM == 3 && VECTOR < 64;

// Rows of an item of work.
template <int NDIM>
constexpr int kGroup = kLine<NDIM> ? 16 : kRows<NDIM>;

// Fetch what is needed soon. In three dimensions the rows of several planes and fields are so many
// streams that no processor foresees them: half of a step was waiting. In two it does.
template <int NDIM, typename T>
inline void soon(const T* at, int64_t row) {
  if constexpr (NDIM == 3) __builtin_prefetch(at + (kLine<NDIM> ? 1024 / sizeof(T) : kRows<NDIM> * row));
}

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

// The values of R rows and those beside them. Where shifts of whole vectors are cheap each value is
// loaded once, a vector ahead: in one dimension that would reach beyond the field.
template <bool HELD, int R, typename T>
struct Beside {
  int64_t row;
  Vector<T> left[R], mid[R], right[R];

  Beside(const T* u, int64_t row_) : row(row_) {
    for (int r = 0; r < R; ++r) mid[r] = load(u + r * row - kWide<T>), right[r] = load(u + r * row);
  }
  // From here on: one vector after the last ones.
  INLINED void move(const T* u) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      left[r] = mid[r], mid[r] = right[r];
      right[r] = load(u + r * row + kWide<T>);
    }
  }
  INLINED Vector<T> at(int r) const { return mid[r]; }
  // u[-K] + u[K]
  template <int K>
  INLINED Vector<T> pair(int r) const {
    return between<kWide<T> - K, T>(left[r], mid[r]) + between<K, T>(mid[r], right[r]);
  }
};

template <int R, typename T>
struct Beside<false, R, T> {
  int64_t row;
  const T* u;

  Beside(const T* u_, int64_t row_) : row(row_), u(u_) {}
  void move(const T* u_) { u = u_; }
  Vector<T> at(int r) const { return load(u + r * row); }
  template <int K>
  Vector<T> pair(int r) const {
    return load(u + r * row - K) + load(u + r * row + K);
  }
};

template <int NDIM>
constexpr bool kHeld = VECTOR == 64 && NDIM > 1;

// Adds weights[k] (u[-k] + u[k]) along a row, for k from K on.
template <int HALF, int K, typename T, typename Rows>
INLINED void add_pairs(const T* weights, const Rows& rows, int r, Vector<T>& sum) {
  sum += weights[K] * rows.template pair<K>(r);
  if constexpr (K < HALF) add_pairs<HALF, K + 1, T>(weights, rows, r, sum);
}

template <typename T, int R>
struct Sums {
  Vector<T> of[R];
};

// A vector of ∇²u in each of R rows. Rows share what they read across: with four of them 11 loads a
// value instead of 17, at order 8 in two dimensions.
template <int NDIM, int HALF, int R, typename T, typename Rows>
INLINED Sums<T, R> bend_of(const Wave<T>& wave, const T* u, const Rows& rows) {
  const T *x = wave.weights[NDIM - 1], *y = wave.weights[NDIM > 1 ? NDIM - 2 : 0];
  const T* z = wave.weights[0];
  const int64_t plane = wave.stride[0], row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  Sums<T, R> sums;
  Vector<T>* const sum = sums.of;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    sum[r] = x[1] * rows.template pair<1>(r);
    if constexpr (HALF > 1) add_pairs<HALF, 2, T>(x, rows, r, sum[r]);
  }
  if constexpr (NDIM == 1) sum[0] += wave.center * rows.at(0);
  if constexpr (NDIM > 1) {
#pragma GCC unroll 16
    for (int j = -HALF; j < R + HALF; ++j) {
      const Vector<T> value = j >= 0 && j < R ? rows.at(j) : load(u + j * row);
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
ALONE void bend_rest(const Wave<T>& wave, const T* u, int64_t n, int64_t rest, const Use& use) {
  const int64_t row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  const int64_t first = std::max<int64_t>(0, n - kWide<T>);
  const Lanes<T> lanes(rest - first, n - first);
  if (n < kWide<T>) {
    for (int r = 0; r < R; ++r) {
      Vector<T> bend = {};
      for (int64_t i = 0; i < n; ++i) bend[i] = bend_at<NDIM, HALF>(wave, u + r * row + i);
      use(lanes, r, 0, bend);
    }
    return;
  }
  Beside<kHeld<NDIM>, R, T> rows(u + first, row);
  rows.move(u + first);
  const auto sums = bend_of<NDIM, HALF, R>(wave, u + first, rows);
  for (int r = 0; r < R; ++r) use(lanes, r, first, sums.of[r]);
}

// ∇²u of R rows of n nodes, given to `use` in vectors.
template <int NDIM, int HALF, int R, typename T, typename Use>
inline void bend(const Wave<T>& wave, const T* u, int64_t n, const Use& use) {
  const int64_t row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  int64_t i = 0;
  if (n >= kWide<T>) {
    Beside<kHeld<NDIM>, R, T> rows(u, row);
    for (; i + kWide<T> <= n; i += kWide<T>) {
      rows.move(u + i);
      const auto sums = bend_of<NDIM, HALF, R>(wave, u + i, rows);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) use(Whole<T>(), r, i, sums.of[r]);
    }
  }
  if (i < n) bend_rest<NDIM, HALF, R>(wave, u, n, i, use);
}

// The same of two fields side by side: where memory is what they wait for, they wait for more of it at
// once, and what both use is there.
template <int NDIM, int HALF, int R, typename T, typename Use, typename Other>
ALONE void bend_both(const Wave<T>& wave, int64_t n, const T* u, const Use& use, const T* v,
                     const Other& other) {
  const int64_t row = NDIM > 1 ? wave.stride[NDIM - 2] : 0;
  int64_t i = 0;
  if (n >= kWide<T>) {
    Beside<kHeld<NDIM>, R, T> rows(u, row), others(v, row);
    for (; i + kWide<T> <= n; i += kWide<T>) {
      rows.move(u + i);
      const auto sums = bend_of<NDIM, HALF, R>(wave, u + i, rows);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) use(Whole<T>(), r, i, sums.of[r]);
      others.move(v + i);
      const auto more = bend_of<NDIM, HALF, R>(wave, v + i, others);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) other(Whole<T>(), r, i, more.of[r]);
    }
  }
  if (i == n) return;
  bend_rest<NDIM, HALF, R>(wave, u, n, i, use);
  bend_rest<NDIM, HALF, R>(wave, v, n, i, other);
}

// p' = 2 p - p° + κ ∇²p, over p°.
template <typename T, int NDIM>
struct Leap {
  const T *p, *kappa;
  T* other;
  int64_t row;
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    const int64_t to = r * row + i;
    soon<NDIM>(other + to, row), soon<NDIM>(kappa + to, row);
    at.put(other, to, 2 * at(p, to) - at(other, to) + at(kappa, to) * bend);
  }
};

// The same, and ∇²p added to `curvature`.
template <typename T, int NDIM>
struct Expose {
  Leap<T, NDIM> leap;
  T* curvature;
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    leap(at, r, i, bend);
    const int64_t to = r * leap.row + i;
    at.put(curvature, to, at(curvature, to) + bend);
  }
};

// `Leap` of the adjoint field w', and w' times an exposure and a number added to its image.
template <typename T, int NDIM>
struct Image {
  Leap<T, NDIM> leap;
  T count;
  const T* exposure;
  T* picture;
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    leap(at, r, i, bend);
    const int64_t to = r * leap.row + i;
    soon<NDIM>(exposure + to, leap.row), soon<NDIM>(picture + to, leap.row);
    at.put(picture, to, at(picture, to) + count * at(leap.p, to) * at(exposure, to));
  }
};

// p̄ + 2 p̄' + ∇²(κ p̄'), over p̄; on rigid walls the last term by half.
template <typename T, int NDIM>
struct Pull {
  const T* after;
  T* bar;
  int64_t row;
  T share[kRows<NDIM>];
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    const int64_t to = r * row + i;
    soon<NDIM>(bar + to, row), soon<NDIM>(after + to, row);
    at.put(bar, to, at(bar, to) + 2 * at(after, to) + share[r] * bend);
  }
};

// κ̄ + p̄' ∇²p, over κ̄.
template <typename T, int NDIM>
struct Picture {
  const T* after;
  T* picture;
  int64_t row;
  template <typename At>
  INLINED void operator()(const At& at, int r, int64_t i, const Vector<T>& bend) const {
    const int64_t to = r * row + i;
    soon<NDIM>(picture + to, row);
    at.put(picture, to, at(picture, to) + at(after, to) * bend);
  }
};
