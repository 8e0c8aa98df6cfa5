// The Laplacian of rows, and the leaps that are made of it. This file is included as wave.h is.

constexpr int kRows = 4;  // that share what a stencil reads across them

// Fetch what the next rows need. In three dimensions the rows of several planes and fields are so many
// streams that no processor foresees them: half of a step was waiting. In two it does.
template <int NDIM, typename T>
inline void soon(const T* at, int64_t row) {
  if constexpr (NDIM == 3) __builtin_prefetch(at + kRows * row);
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
