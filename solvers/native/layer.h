// An absorbing layer's recursion, its way back and its transpose: what crossing.h, across a leading
// axis, and margin.h, in rows, share. The arithmetic of solvers/layers.py, to which a test holds it;
// read it first. This file is included as wave.h is.
//
// Half points are counted from the outermost that a node of the layer sees (at the upper end of an
// axis from the innermost): node j sees those from j to j + HALF, half point s sees nodes from
// s - HALF to s. So both ends are one case.

// Σ weights · values, of layers.py's G or its transpose; values(k) is the k-th.
template <int HALF, typename T, typename Values>
INLINED auto weighted(const std::array<T, kHalf + 1>& weights, const Values& values) {
  auto sum = weights[0] * values(0);
#pragma GCC unroll 4
  for (int k = 1; k <= HALF; ++k) sum += weights[k] * values(k);
  return sum;
}

// G looks outwards, minus its transpose inwards.
template <typename T>
struct Root {
  std::array<T, kHalf + 1> outwards, inwards;

  Root(const Wave<T>& wave, const Layer<T>& layer)
      : outwards(layer.low ? wave.before : wave.behind),
        inwards(layer.low ? wave.behind : wave.before) {}
};

// Where a layer's gain goes: into a field, times a sign and the field `scale`;
template <typename T>
struct Target {
  T sign;
  const T* scale;
  T* field;
  Target moved(int64_t by) const { return {sign, scale + by, field + by}; }
  template <typename At, typename Load, typename V>
  INLINED void add(const At& at, const Load& load, int64_t i, const V& gain) const {
    at.put(field, i, load(field + i) + sign * load(scale + i) * gain);
  }
};

// as it is;
template <typename T>
struct Bare {
  T* field;
  Bare moved(int64_t by) const { return {field + by}; }
  template <typename At, typename Load, typename V>
  INLINED void add(const At& at, const Load& load, int64_t i, const V& gain) const {
    at.put(field, i, load(field + i) + gain);
  }
};

// to two places.
template <typename One, typename Other>
struct Both {
  One one;
  Other other;
  Both moved(int64_t by) const { return {one.moved(by), other.moved(by)}; }
  template <typename At, typename Load, typename V>
  INLINED void add(const At& at, const Load& load, int64_t i, const V& gain) const {
    one.add(at, load, i, gain), other.add(at, load, i, gain);
  }
};

// What is left in a layer's memory: that after a step, what was there, or, if that is of after the
// step, what was before it.
enum class Leave { kAfter, kSame, kBefore };

// One value of a layer's recursion `now = b before + a value`, and what is left of it in memory.
template <Leave LEAVE, typename V, typename A>
inline std::pair<V, V> remember(const A& a, const A& b, const A& per_b, const V& memory,
                                const V& value) {
  if constexpr (LEAVE == Leave::kBefore) return {memory, per_b * (memory - a * value)};
  const V now = b * memory + a * value;
  return {now, now};
}

// Where some lines of a layer start: in the field at its first node, in its memory's two arrays.
struct Start {
  int64_t field, psi, zeta;
};
