// Slopes of shallow water's cells, fluxes through their faces, and the transposes of both, in lines of cells:
// the arithmetic of solvers/reconstruction.py and hll.py. This file is included as wave.h is.
namespace water {

constexpr int kQuantities = 4;  // of cells: depth, level, velocity along both axes
constexpr int kLevel = 1, kSpeed = 2;  // the latter the first of the velocities
constexpr int64_t kTile = 256;  // columns, at most
constexpr int64_t kMargin = 8;  // lanes beyond a tile, for what depends on its neighbours
constexpr int64_t kLeastRows = 16;  // that a thread does at once
constexpr int64_t kLine = kTile + 4 * kMargin;  // lanes; what is read beside them is of no use

template <typename T>
struct alignas(64) Line {
  T of[kLine] = {};
  T* lanes() { return of + kMargin; }
  const T* lanes() const { return of + kMargin; }
};

// One line for each quantity.
template <typename T, int N = kQuantities>
struct Lines {
  Line<T> line[N];
  T* operator[](int n) { return line[n].lanes(); }
  const T* operator[](int n) const { return line[n].lanes(); }
};

// Columns from `first` on, of which `count` are the tile's own, computed in whole vectors.
struct Tile {
  int64_t first, count;
  int64_t lanes() const { return (count + 2 * kMargin + 15) / 16 * 16; }
  int64_t lane(int64_t column) const { return column - first + kMargin; }
};

#define EACH_LANE _Pragma("GCC ivdep") for (int64_t k = 0; k < lanes; ++k)

// --- slopes

// work(slope of two differences, its transpose) for the limiter
template <typename T, typename Work>
inline void limited(Limiter limiter, const Work& work) {
  switch (limiter) {
    case Limiter::kNone:
      return work([](T, T) { return T(0); }, [](T, T, T, T* a_bar, T* b_bar) { *a_bar = *b_bar = 0; });
    case Limiter::kMinmod:
      return work(
          [](T a, T b) { return a * b > 0 ? (std::abs(a) < std::abs(b) ? a : b) : T(0); },
          [](T a, T b, T bar, T* a_bar, T* b_bar) {
            const T own = a * b > 0 ? bar : T(0);
            *a_bar = std::abs(a) < std::abs(b) ? own : T(0);
            *b_bar = own - *a_bar;
          });
    case Limiter::kVanLeer:
      return work(
          [](T a, T b) {
            const bool monotone = a * b > T(1e-30);
            const T part = 1 / (monotone ? a + b : T(1));
            return monotone ? 2 * (a * part) * b : T(0);
          },
          [](T a, T b, T bar, T* a_bar, T* b_bar) {
            const bool monotone = a * b > T(1e-30);
            const T part = 1 / (monotone ? a + b : T(1));
            const T of_a = a * part, of_b = b * part;
            *a_bar = monotone ? 2 * bar * of_b * of_b : T(0);
            *b_bar = monotone ? 2 * bar * of_a * of_a : T(0);
          });
    case Limiter::kMonotonizedCentral:
      return work(
          [](T a, T b) {
            const T mean = (a + b) / 2, small = std::abs(a) < std::abs(b) ? a : b;
            return a * b > 0 ? (std::abs(mean) < 2 * std::abs(small) ? mean : 2 * small) : T(0);
          },
          [](T a, T b, T bar, T* a_bar, T* b_bar) {
            const bool first = std::abs(a) < std::abs(b);
            const T own = a * b > 0 ? bar : T(0);
            const bool central = std::abs((a + b) / 2) < 2 * std::abs(first ? a : b);
            *a_bar = central ? own / 2 : first ? 2 * own : T(0);
            *b_bar = central ? own / 2 : first ? T(0) : 2 * own;
          });
  }
}

// Of cells, from those before and after them.
template <typename T>
ALONE void slopes(Limiter limiter, const T* before, const T* here, const T* after, int64_t lanes,
                  T* __restrict slope) {
  limited<T>(limiter, [=](const auto& of, const auto&) {
    EACH_LANE slope[k] = of(here[k] - before[k], after[k] - here[k]);
  });
}

// Cotangents of the differences before and after each cell, from those of its slope: what the face
// after it holds and what that before it holds, half of both, and more.
template <typename T>
ALONE void pull_slopes(Limiter limiter, const T* before, const T* here, const T* after,
                       const T* by_after, const T* by_before, const T* more, int64_t lanes,
                       T* __restrict before_bar, T* __restrict after_bar) {
  limited<T>(limiter, [=](const auto&, const auto& pull) {
    EACH_LANE {
      const T bar = (by_after[k] - by_before[k]) / 2 + more[k];
      pull(here[k] - before[k], after[k] - here[k], bar, before_bar + k, after_bar + k);
    }
  });
}

// --- faces

// The cells on one side of faces, of which some lie a lane before.
template <typename T>
struct Side {
  const Lines<T>*value, *slope;
  int64_t shift;
};

// Of the faces before a row, over their spacing; beyond the grid nothing counts.
template <typename T>
T width_of(const Basin<T>& basin, int64_t row) {
  return row < 0 || row > basin.rows ? T(1) : basin.face_width[row];
}

template <typename T>
struct Water {
  T depth, level, speed;
};

// What hll.py computes of a face; without branches, so that lanes fill vectors.
template <typename T>
struct Hll {
  T gravity, hl, hr, ul, ur, cl, cr, sl, sr, share, of_left, of_right, mixing, ql, qr, lift, step;

  static T positive(T x) { return x > T(1e-18) ? x : T(0); }
  static T root(T x) { return x > T(1e-36) ? std::sqrt(x) : T(0); }

  Hll(T gravity, const Water<T>& left, const Water<T>& right) : gravity(gravity) {
    const T low = left.level - left.depth, high = right.level - right.depth;
    const T sill = low > high ? low : high;
    step = low - high;
    hl = positive(left.level - sill), hr = positive(right.level - sill);
    ul = left.speed, ur = right.speed;
    cl = root(gravity * hl), cr = root(gravity * hr);
    const T slow = ul - cl < ur - cr ? ul - cl : ur - cr;
    const T fast = ul + cl > ur + cr ? ul + cl : ur + cr;
    sl = slow < 0 ? slow : T(0), sr = fast > 0 ? fast : T(0);
    const bool wet = hl + hr > 0;
    share = wet ? 1 / (wet ? sr - sl : T(1)) : T(0);
    of_left = sr * share, of_right = 1 - of_left, mixing = sl * of_left;
    ql = hl * ul, qr = hr * ur;
    lift = gravity / 2 * (hr - hl) * (hr + hl);
  }

  T mass() const { return of_left * ql + of_right * qr + mixing * (hr - hl); }
  T before() const { return of_left * ql * ul + of_right * (qr * ur + lift) + mixing * (qr - ql); }

  void pull(T mass_bar, T before_bar, T after_bar, Water<T>* left, Water<T>* right) const {
    const T momentum_bar = before_bar + after_bar;
    const T left_bar = mass_bar * (ql - qr) + momentum_bar * (ql * ul - qr * ur - lift);
    const T mixing_bar = mass_bar * (hr - hl) + momentum_bar * (qr - ql);
    const T sl_bar = of_left * (share * left_bar + of_left * mixing_bar);
    const T sr_bar = of_right * (share * left_bar - of_right * mixing_bar);
    const T lift_bar = gravity * (of_right * before_bar - of_left * after_bar);
    const auto side = [&](T h, T u, T c, T slow_bar, T fast_bar, T part, T sign, T* u_bar) {
      const T q_bar = part * (mass_bar + u * momentum_bar) + sign * mixing * momentum_bar;
      const T half = gravity / 2 / (h > 0 ? c : T(1));
      const T h_bar =
          (fast_bar - slow_bar) * half + u * q_bar + sign * (mixing * mass_bar + lift_bar * h);
      *u_bar = h * (q_bar + part * u * momentum_bar) + fast_bar + slow_bar;
      return h > 0 ? h_bar : T(0);
    };
    const bool slow = ul - cl == sl, fast = ul + cl == sr;
    const T hl_bar = side(hl, ul, cl, slow ? sl_bar : T(0), fast ? sr_bar : T(0), of_left, T(-1),
                          &left->speed);
    // waves of both sides may be equally fast: those of the left count alone
    const T slow_bar = slow ? T(0) : sl_bar, fast_bar = fast ? T(0) : sr_bar;
    const T hr_bar = side(hr, ur, cr, ur - cr == sl ? slow_bar : T(0),
                          ur + cr == sr ? fast_bar : T(0), of_right, T(1), &right->speed);
    const T both = hl_bar + hr_bar;
    left->depth = (step > 0 ? T(1) : step < 0 ? T(0) : T(0.5)) * both;
    right->depth = both - left->depth;
    left->level = hl_bar - left->depth;
    right->level = -left->level;
  }
};

// The water on both sides of faces across an axis.
template <int AXIS, typename T>
struct Sides {
  const T *before[kQuantities], *after[kQuantities];  // of cells
  const T *rise[kQuantities], *fall[kQuantities];  // their slopes

  Sides(const Side<T>& low, const Side<T>& high) {
    for (int n = 0; n < kQuantities; ++n) {
      before[n] = (*low.value)[n] + low.shift, rise[n] = (*low.slope)[n] + low.shift;
      after[n] = (*high.value)[n] + high.shift, fall[n] = (*high.slope)[n] + high.shift;
    }
  }

  T left(int n, int64_t k) const { return before[n][k] + rise[n][k] / 2; }
  T right(int n, int64_t k) const { return after[n][k] - fall[n][k] / 2; }
  T other_before(int64_t k) const { return left(kSpeed + 1 - AXIS, k); }
  T other_after(int64_t k) const { return right(kSpeed + 1 - AXIS, k); }
  Hll<T> hll(T gravity, int64_t k) const {
    constexpr int kAcross = kSpeed + AXIS;
    return {gravity,
            {left(0, k), left(kLevel, k), left(kAcross, k)},
            {right(0, k), right(kLevel, k), right(kAcross, k)}};
  }
};

// Through faces: of mass; of momentum across them less the pressure before or after; of the other.
enum Through { kMass, kBefore, kAfter, kCarried, kThrough };

template <int AXIS, typename T>
ALONE void fluxes(T gravity, T width, const Side<T>& before, const Side<T>& after, int64_t lanes,
                  Lines<T, kThrough>& through) {
  const Sides<AXIS, T> sides(before, after);
  T *mass = through[kMass], *less_before = through[kBefore], *less_after = through[kAfter];
  T* carried = through[kCarried];
  EACH_LANE {
    const Hll<T> hll = sides.hll(gravity, k);
    const T m = width * hll.mass(), p = hll.before();
    mass[k] = m;
    less_before[k] = width * p;
    less_after[k] = width * (p - hll.lift);
    carried[k] = m * (m > 0 ? sides.other_before(k) : sides.other_after(k));
  }
}

// From cotangents of the rates (of depth, of discharge along both axes) on both sides of faces to those
// of the water there.
template <int AXIS, typename T>
ALONE void pull_fluxes(T gravity, T per_length, T width, const Side<T>& before, const Side<T>& after,
                       const Lines<T, 3>& rates_before, int64_t shift,
                       const Lines<T, 3>& rates_after, int64_t lanes, Lines<T>& before_bar,
                       Lines<T>& after_bar) {
  constexpr int kAcross = kSpeed + AXIS, kOther = kSpeed + 1 - AXIS;
  const Sides<AXIS, T> sides(before, after);
  const T *rb = rates_before[0] + shift, *ra = rates_after[0];
  const T *rub = rates_before[1 + AXIS] + shift, *rua = rates_after[1 + AXIS];
  const T *rvb = rates_before[2 - AXIS] + shift, *rva = rates_after[2 - AXIS];
  T *b0 = before_bar[0], *b1 = before_bar[1], *b2 = before_bar[kAcross], *b3 = before_bar[kOther];
  T *a0 = after_bar[0], *a1 = after_bar[1], *a2 = after_bar[kAcross], *a3 = after_bar[kOther];
  const T per_area = per_length * width;
  EACH_LANE {
    const Hll<T> hll = sides.hll(gravity, k);
    const T mass = hll.mass(), carried_bar = per_area * (rva[k] - rvb[k]);
    const bool out = mass > 0;
    const T other = out ? sides.other_before(k) : sides.other_after(k);
    const T mass_bar = per_area * (ra[k] - rb[k]) + carried_bar * other;
    Water<T> left, right;
    hll.pull(mass_bar, -per_area * rub[k], per_area * rua[k], &left, &right);
    const T other_bar = carried_bar * mass;
    b0[k] = left.depth, b1[k] = left.level, b2[k] = left.speed, b3[k] = out ? other_bar : T(0);
    a0[k] = right.depth, a1[k] = right.level, a2[k] = right.speed, a3[k] = out ? T(0) : other_bar;
  }
}

}  // namespace water
