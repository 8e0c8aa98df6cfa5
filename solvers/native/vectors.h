// Values in vectors of VECTOR bytes, and work that is done a vector at a time. This file is included as
// wave.h is.

template <typename T>
using Vector __attribute__((vector_size(VECTOR), aligned(alignof(T)), may_alias)) = T;

template <typename T>
constexpr int64_t kWide = VECTOR / sizeof(T);

template <typename T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}

template <typename T, typename V>
inline void store(T* to, const V& values) {
  *reinterpret_cast<V*>(to) = values;
}

// Values `BY` places on in two vectors that lie side by side.
template <int BY, typename T, int... PLACES>
INLINED Vector<T> between(const Vector<T>& first, const Vector<T>& second,
                          std::integer_sequence<int, PLACES...>) {
#ifdef __clang__
  return __builtin_shufflevector(first, second, (PLACES + BY)...);
#else
  using Place = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  return __builtin_shuffle(first, second, Vector<Place>{(PLACES + BY)...});
#endif
}

template <int BY, typename T>
INLINED Vector<T> between(const Vector<T>& first, const Vector<T>& second) {
  return between<BY, T>(first, second, std::make_integer_sequence<int, kWide<T>>());
}

// Lanes of a vector from one up to another. Others are read as zeros; what they lie on is not touched.
#ifdef PLAIN
template <typename T>
struct Mask {
  int64_t first, end;
  bool has(int64_t lane) const { return lane >= first && lane < end; }
};

template <typename T>
inline Vector<T> load(const T* from, const Mask<T>& lanes) {
  Vector<T> values = {};
#pragma GCC unroll 4
  for (int i = 0; i < kWide<T>; ++i) values[i] = lanes.has(i) ? from[i] : T(0);
  return values;
}

template <typename T, typename V>
inline void store(T* to, const Mask<T>& lanes, const V& values) {
#pragma GCC unroll 4
  for (int i = 0; i < kWide<T>; ++i) {
    if (lanes.has(i)) to[i] = values[i];
  }
}
#elif VECTOR == 64
template <typename T>
struct Mask {
  std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8> lanes;
  Mask(int64_t first, int64_t end) : lanes((1u << end) - (1u << first)) {}
};

inline Vector<float> load(const float* from, Mask<float> mask) {
  return (Vector<float>)_mm512_maskz_loadu_ps(mask.lanes, from);
}
inline Vector<double> load(const double* from, Mask<double> mask) {
  return (Vector<double>)_mm512_maskz_loadu_pd(mask.lanes, from);
}
inline void store(float* to, Mask<float> mask, const Vector<float>& values) {
  _mm512_mask_storeu_ps(to, mask.lanes, (__m512)values);
}
inline void store(double* to, Mask<double> mask, const Vector<double>& values) {
  _mm512_mask_storeu_pd(to, mask.lanes, (__m512d)values);
}
#else
template <typename T>
struct Mask {
  using Place = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr std::array<Place, 3 * kWide<T>> kPlaces = [] {
    std::array<Place, 3 * kWide<T>> places{};
    for (int64_t i = kWide<T>; i < 2 * kWide<T>; ++i) places[i] = -1;
    return places;
  }();
  __m256i lanes;
  Mask(int64_t first, int64_t end)
      : lanes((__m256i)(load(kPlaces.data() + kWide<T> - first) &
                        load(kPlaces.data() + 2 * kWide<T> - end))) {}
};

inline Vector<float> load(const float* from, const Mask<float>& mask) {
  return (Vector<float>)_mm256_maskload_ps(from, mask.lanes);
}
inline Vector<double> load(const double* from, const Mask<double>& mask) {
  return (Vector<double>)_mm256_maskload_pd(from, mask.lanes);
}
#endif

// How values are read and written: all of a vector,
template <typename T>
struct Whole {
  Vector<T> operator()(const T* from, int64_t i) const { return load(from + i); }
  void put(T* to, int64_t i, const Vector<T>& values) const { store(to + i, values); }
};

// or some lanes of it. On most processors a mask that lets all through takes longer than none, and on
// AMD's (Zen 3) a store by a mask of AVX2 four times as long as two halves of a vector that overlap.
template <typename T>
class Lanes {
  const int64_t first_, end_;
  const Mask<T> mask_;
  bool whole() const { return VECTOR < 64 && end_ - first_ == kWide<T>; }
  INLINED void piecewise(T* to, const Vector<T>& values) const {
    constexpr int64_t half = kWide<T> / 2;
    using Half __attribute__((vector_size(VECTOR / 2), aligned(alignof(T)), may_alias)) = T;
    alignas(VECTOR) T lanes[kWide<T>];
    store(lanes, values);
    if (end_ - first_ < half) {
      for (int64_t lane = first_; lane < end_; ++lane) to[lane] = lanes[lane];
      return;
    }
    const Half front = *reinterpret_cast<const Half*>(lanes + first_);
    const Half back = *reinterpret_cast<const Half*>(lanes + end_ - half);
    store(to + first_, front), store(to + end_ - half, back);
  }

 public:
  Lanes(int64_t first, int64_t end)
      : first_(std::clamp<int64_t>(first, 0, kWide<T>)),
        end_(std::clamp<int64_t>(end, first_, kWide<T>)),
        mask_{first_, end_} {}
  Vector<T> operator()(const T* from, int64_t i) const {
    return whole() ? load(from + i) : load(from + i, mask_);
  }
  void put(T* to, int64_t i, const Vector<T>& values) const {
    if (whole()) return store(to + i, values);
    if constexpr (VECTOR == 32) {
      piecewise(to + i, values);
    } else {
      store(to + i, mask_, values);
    }
  }
};

// work(at, i) for values from 0 up to `count`, a vector at a time.
template <typename T, typename Work>
inline void along(int64_t count, const Work& work) {
  int64_t i = 0;
  for (; i + kWide<T> <= count; i += kWide<T>) work(Whole<T>(), i);
  if (i < count) work(Lanes<T>(0, count - i), i);
}

// work(first, rows) for some rows: ROWS together, or the last ones one by one.
template <int ROWS, typename Work>
inline void together(int64_t count, const Work& work) {
  int64_t first = 0;
  for (; first + ROWS <= count; first += ROWS) work(first, std::integral_constant<int, ROWS>());
  for (; first < count; ++first) work(first, std::integral_constant<int, 1>());
}
