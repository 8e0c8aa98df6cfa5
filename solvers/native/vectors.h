// Values in vectors of VECTOR bytes, and work that is done a vector at a time. This file is included as
// wave.h is.

template <typename T, int BYTES = VECTOR>
using Vector __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias)) = T;

template <int BYTES = VECTOR, typename T>
inline Vector<T, BYTES> load(const T* from) {
  return *reinterpret_cast<const Vector<T, BYTES>*>(from);
}

template <typename T, typename V>
inline void store(T* to, const V& values) {
  *reinterpret_cast<V*>(to) = values;
}

// How values are read and written: one by one, or a vector of them.
template <typename T>
struct One {
  T operator()(const T* from, int64_t i) const { return from[i]; }
  void put(T* to, int64_t i, T value) const { to[i] = value; }
};

template <typename T, int BYTES>
struct Many {
  static constexpr int64_t kWide = BYTES / sizeof(T);
  Vector<T, BYTES> operator()(const T* from, int64_t i) const { return load<BYTES>(from + i); }
  void put(T* to, int64_t i, const Vector<T, BYTES>& values) const { store(to + i, values); }
};

// The vector that so many values fill: half a one where a layer in a row is narrow; none if it is 1.
template <typename T>
inline int64_t filled(int64_t count) {
  constexpr int64_t kWide = VECTOR / sizeof(T);
  return count >= kWide ? kWide : count >= kWide / 2 ? kWide / 2 : 1;
}

// put(at, i, make(at, i)) for i from `first` on, which may work in place: the last vector overlaps
// the one before, so it is made before anything is put.
template <typename Many, typename Work>
inline void each_vector(int64_t first, int64_t end, const Work& work) {
  const auto& [make, put] = work;
  const Many at;
  const auto last = make(at, end - at.kWide);
  for (int64_t i = first; i < end - at.kWide; i += at.kWide) put(at, i, make(at, i));
  put(at, end - at.kWide, last);
}

template <typename T, typename Work>
inline void each(int64_t first, int64_t end, const Work& work) {
  const int64_t wide = filled<T>(end - first);
  if (wide == VECTOR / sizeof(T)) return each_vector<Many<T, VECTOR>>(first, end, work);
  if constexpr (VECTOR / 2 > sizeof(T)) {
    if (wide > 1) return each_vector<Many<T, VECTOR / 2>>(first, end, work);
  }
  const auto& [make, put] = work;
  const One<T> at;
  for (int64_t i = first; i < end; ++i) put(at, i, make(at, i));
}
