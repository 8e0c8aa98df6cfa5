// What is seen at points between nodes, by windows of a field, and what is put there. This file is
// included as wave.h is: a row's work would be a call from outside its namespace.

// A row of the most common window, or as much of it as a vector holds.
constexpr int64_t kCommon = 8;
template <typename T>
constexpr int64_t kPart = std::min<int64_t>(VECTOR / sizeof(T), kCommon);
template <typename T>
using Part __attribute__((vector_size(kPart<T> * sizeof(T)), aligned(alignof(T)), may_alias)) = T;

template <typename T>
inline Part<T> part(const T* from) {
  return *reinterpret_cast<const Part<T>*>(from);
}

// work(place in the windows, place in the field) for each row of the n-th window, of a length that
// may be a constant.
template <int NDIM, typename T, typename Width, typename Work>
inline void each_row(const Field& field, const Windows<T>& windows, int64_t n, Width width,
                     const Work& work) {
  const int64_t across = NDIM > 1 ? windows.width[NDIM > 1 ? NDIM - 2 : 0] : 1;
  const int64_t beside = NDIM > 2 ? windows.width[0] : 1;
  int64_t at = n * beside * across * width, first = 0;
  for (int axis = 0; axis < NDIM; ++axis) {
    first += windows.start[n * NDIM + axis] * field.stride[axis];
  }
  for (int64_t k = 0; k < beside; ++k) {
    for (int64_t j = 0; j < across; ++j, at += width) {
      work(at, first + k * field.stride[0] + j * field.stride[NDIM > 1 ? NDIM - 2 : 0]);
    }
  }
}

template <typename Work>
void of_width(int64_t width, const Work& work) {
  if (width == kCommon) return work(std::integral_constant<int64_t, kCommon>());
  if (width == 1) return work(std::integral_constant<int64_t, 1>());
  work(width);
}

// Σ weights · u of each window
template <int NDIM, typename T>
void take(const Field& field, const Windows<T>& windows, const T* u, T* seen) {
  of_width(windows.width[NDIM - 1], [=, &field, &windows](auto width) {
    for (int64_t n = 0; n < windows.count; ++n) {
      Part<T> sums = {};
      T sum = 0;
      each_row<NDIM>(field, windows, n, width, [&](int64_t at, int64_t from) {
        const T *w = windows.weights + at, *v = u + from;
        int64_t i = 0;
        for (; i + kPart<T> <= width; i += kPart<T>) sums += part(w + i) * part(v + i);
        for (; i < width; ++i) sum += w[i] * v[i];
      });
      for (int64_t i = 0; i < kPart<T>; ++i) sum += sums[i];
      seen[n] = sum;
    }
  });
}

// u + sign Σ value · weights
template <int NDIM, typename T>
void put(const Field& field, const Windows<T>& windows, const T* values, T sign, T* u) {
  of_width(windows.width[NDIM - 1], [=, &field, &windows](auto width) {
    for (int64_t n = 0; n < windows.count; ++n) {
      const T value = sign * values[n];
      each_row<NDIM>(field, windows, n, width, [&](int64_t at, int64_t to) {
        const T* w = windows.weights + at;
        T* v = u + to;
        int64_t i = 0;
        for (; i + kPart<T> <= width; i += kPart<T>) {
          *reinterpret_cast<Part<T>*>(v + i) = part(v + i) + value * part(w + i);
        }
        for (; i < width; ++i) v[i] += value * w[i];
      });
    }
  });
}

template <int NDIM, typename T>
void copy_out(const Field& field, const Windows<T>& windows, const T* u, T* seen) {
  for (int64_t n = 0; n < windows.count; ++n) {
    const int64_t width = windows.width[NDIM - 1];
    each_row<NDIM>(field, windows, n, width, [&](int64_t to, int64_t from) {
      for (int64_t i = 0; i < width; ++i) seen[to + i] = u[from + i];
    });
  }
}
