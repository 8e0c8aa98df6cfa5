// Euler's step of shallow water by the fluxes through faces, and its transpose: a sweep each.
//
// The arithmetic of solvers/finite_volumes.py, reconstruction.py and hll.py, to which a test holds it;
// read those first. A tile of columns goes down the rows with what it needs of the last few in cache.
// This file is included as wave.h is.
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

// --- rows

// A tile's part of rows; what it does not reach is still and dry.
template <typename T>
struct Reader {
  const Basin<T>& basin;
  const Tile& tile;

  // work on those of the columns from `first` to `last` that the tile reaches
  template <typename Work>
  void reached(int64_t first, int64_t last, const Work& work) const {
    const int64_t from = std::max(first, tile.first - kMargin);
    const int64_t to = std::min(last, tile.first - kMargin + tile.lanes());
    if (from < to) work(from, to);
  }

  // zeros but at the columns from `first` to `last`
  template <int N>
  void still(int64_t first, int64_t last, Lines<T, N>& lines) const {
    const int64_t from = std::clamp<int64_t>(tile.lane(first), 0, tile.lanes());
    const int64_t to = std::clamp<int64_t>(tile.lane(last), from, tile.lanes());
    for (int n = 0; n < N; ++n) {
      std::fill(lines[n], lines[n] + from, T(0));
      std::fill(lines[n] + to, lines[n] + tile.lanes(), T(0));
    }
  }

  void beyond(int face, int64_t at, int64_t first, int64_t last, Lines<T>& cells) const {
    reached(first, last, [&](int64_t from, int64_t to) {
      for (int n = 0; n < kQuantities; ++n) {
        const T* strip = basin.beyond[face][n] + at - first;
        std::copy(strip + from, strip + to, cells[n] + tile.lane(from));
      }
    });
  }

  void cells(int64_t row, Lines<T>& cells) const {
    const int64_t halo = basin.halo, columns = basin.columns, below = row - basin.rows;
    if (row < -halo || below >= halo) return still(0, 0, cells);
    if (row < 0 || below >= 0) {
      still(0, columns, cells);
      if (row < 0) return beyond(0, (row + halo) * columns, 0, columns, cells);
      return beyond(1, below * columns, 0, columns, cells);
    }
    still(-halo, columns + halo, cells);
    beyond(2, row * halo, -halo, 0, cells);
    beyond(3, row * halo, columns, columns + halo, cells);
    reached(0, columns, [&](int64_t from, int64_t to) {
      const int64_t at = row * columns + from, to_lane = tile.lane(from), lanes = to - from;
      const T *h = basin.depth + at, *z = basin.bed + at;
      const T *qy = basin.discharge[0] + at, *qx = basin.discharge[1] + at;
      T *depth = cells[0] + to_lane, *level = cells[kLevel] + to_lane;
      T *vy = cells[kSpeed] + to_lane, *vx = cells[kSpeed + 1] + to_lane;
      EACH_LANE {
        const T slowness = basin.slowness(h[k]);
        depth[k] = h[k];
        level[k] = h[k] + z[k];
        vy[k] = slowness * qy[k];
        vx[k] = slowness * qx[k];
      }
    });
  }

  // cotangents of the rates of cells, over the widths of those
  void rates(int64_t row, Lines<T, 3>& rates) const {
    if (row < 0 || row >= basin.rows) return still(0, 0, rates);
    still(0, basin.columns, rates);
    const T per_width = basin.dt / basin.cell_width[row + 1];
    reached(0, basin.columns, [&](int64_t from, int64_t to) {
      for (int n = 0; n < 3; ++n) {
        const T* bar = basin.now_bar[n] + row * basin.columns + from;
        T* lane = rates[n] + tile.lane(from);
        for (int64_t k = 0; k < to - from; ++k) lane[k] = per_width * bar[k];
      }
    });
  }
};

// The last rows of what goes down with a tile.
template <typename What, int N>
struct Recent {
  What row[N];
  What& operator[](int64_t n) { return row[(n + 4 * N) % N]; }  // n may be a few below 0
};

template <typename T>
struct Room {
  Recent<Lines<T>, 4> cells;
  Recent<Lines<T>, 2> slopes;  // across rows
  Lines<T> along;  // slopes along a row
  Recent<Lines<T, kThrough>, 2> down;  // fluxes
  Lines<T, kThrough> right;
  // of the transpose: cotangents
  Recent<Lines<T, 3>, 4> rates;
  Recent<Lines<T>, 2> after, bars, steps_after;
  Lines<T> before, beside, steps_before, steps_beside;
  Line<T> pull, more, none;
};

// work(tile, its first row, its last row, room) for the rows from `first` on, in parts.
template <typename T, typename Work>
void each_tile(Threads& threads, const Basin<T>& basin, int64_t first, int64_t last,
               const Work& work) {
  const int64_t tiles = (basin.columns + kTile - 1) / kTile;
  threads.share(last - first, kLeastRows, [&](int64_t from, int64_t to) {
    thread_local const auto room = std::make_unique<Room<T>>();
    for (int64_t n = 0; n < tiles; ++n) {
      const int64_t begin = n * basin.columns / tiles, end = (n + 1) * basin.columns / tiles;
      work(Tile{begin, end - begin}, first + from, first + to, *room);
    }
  });
}

// Slopes of a row's cells across rows.
template <typename T>
void slopes_down(const Basin<T>& basin, Room<T>& room, int64_t row, int64_t lanes) {
  for (int n = 0; n < kQuantities; ++n) {
    slopes(basin.limiter, room.cells[row - 1][n], room.cells[row][n], room.cells[row + 1][n], lanes,
           room.slopes[row][n]);
  }
}

// Slopes of a row's cells along it.
template <typename T>
void slopes_along(const Basin<T>& basin, Room<T>& room, int64_t row, int64_t lanes) {
  for (int n = 0; n < kQuantities; ++n) {
    const T* cells = room.cells[row][n];
    slopes(basin.limiter, cells - 1, cells, cells + 1, lanes, room.along[n]);
  }
}

// --- a step

// What the fluxes through its faces change in a row of cells.
template <typename T>
ALONE void balance(const Basin<T>& basin, const Tile& tile, int64_t row,
                   const Lines<T, kThrough>& above, const Lines<T, kThrough>& below,
                   const Lines<T, kThrough>& beside, const Lines<T>& cells,
                   const Lines<T>& slopes, const Lines<T>& along) {
  const T per_width = basin.dt / basin.cell_width[row + 1];
  const T by = per_width * basin.per_length[0], bx = per_width * basin.per_length[1];
  const int64_t at = row * basin.columns + tile.first, lanes = tile.count;
  const auto write = [=](const T* from, T* to, const T* over, const T* under, const T* left,
                         const T* right, T weight, const T* depth, const T* slope) {
    const T* const old = from + at;
    T* const __restrict now = to + at;
    EACH_LANE {
      const int64_t lane = k + kMargin;
      now[k] = old[k] + (by * (over[lane] - under[lane]) + bx * (left[lane] - right[lane + 1]) -
                         weight * depth[lane] * slope[lane]);
    }
  };
  const auto [qy, qx] = basin.discharge;
  const T* const h = cells[0];
  const T fall = basin.gravity * basin.dt * basin.per_length[0];
  write(basin.depth, basin.now[0], above[kMass], below[kMass], beside[kMass], beside[kMass], T(0), h, h);
  write(qy, basin.now[1], above[kAfter], below[kBefore], beside[kCarried], beside[kCarried], fall, h,
        slopes[kLevel]);
  write(qx, basin.now[2], above[kCarried], below[kCarried], beside[kAfter], beside[kBefore],
        bx * basin.gravity, h, along[kLevel]);
}

template <typename T>
void advance_tile(const Basin<T>& basin, const Tile& tile, int64_t first, int64_t last,
                  Room<T>& room) {
  const Reader<T> reader{basin, tile};
  const int64_t lanes = tile.lanes();
  for (int64_t row = first - 2; row <= first; ++row) reader.cells(row, room.cells[row]);
  slopes_down(basin, room, first - 1, lanes);
  for (int64_t face = first; face <= last; ++face) {
    const int64_t row = face - 1;
    reader.cells(face + 1, room.cells[face + 1]);
    slopes_down(basin, room, face, lanes);
    fluxes<0>(basin.gravity, width_of(basin, face), {&room.cells[row], &room.slopes[row], 0},
              {&room.cells[face], &room.slopes[face], 0}, lanes, room.down[face]);
    if (row < first) continue;
    slopes_along(basin, room, row, lanes);
    fluxes<1>(basin.gravity, T(1), {&room.cells[row], &room.along, -1},
              {&room.cells[row], &room.along, 0}, lanes, room.right);
    balance(basin, tile, row, room.down[row], room.down[face], room.right, room.cells[row],
            room.slopes[row], room.along);
  }
}

template <typename T>
void advance(Threads& threads, const Basin<T>& basin) {
  each_tile(threads, basin, 0, basin.rows, [&](const auto& tile, int64_t first, int64_t last,
                                               auto& room) {
    advance_tile(basin, tile, first, last, room);
  });
}

// --- and their transpose

// Cotangents that a row's cells have of the pull of the sloping surface on them: of its rate, and of
// the level's slope.
template <typename T>
ALONE void pull_slope(T weight, const T* rate_bar, const T* depth, int64_t lanes, T* __restrict pull,
                      T* __restrict more) {
  EACH_LANE {
    pull[k] = weight * rate_bar[k];
    more[k] = pull[k] * depth[k];
  }
}

template <typename T>
ALONE void add_product(const T* a, const T* b, int64_t lanes, T* __restrict sum) {
  EACH_LANE sum[k] += a[k] * b[k];
}

// What faces along a row and slopes through them hold for its cells, added to their cotangents.
template <typename T>
ALONE void add_along(int64_t lanes, const Room<T>& room, Lines<T>& bars) {
  for (int n = 0; n < kQuantities; ++n) {
    const T *left = room.before[n], *right = room.beside[n];
    const T *b = room.steps_before[n], *a = room.steps_beside[n];
    T* const __restrict bar = bars[n];
    EACH_LANE bar[k] += right[k] + left[k + 1] + b[k] - a[k] - b[k + 1] + a[k - 1];
  }
}

// Those between rows: a row's own, with which it starts, and what is left of the last one's.
template <typename T>
ALONE void add_down(int64_t lanes, Room<T>& room, int64_t row) {
  for (int n = 0; n < kQuantities; ++n) {
    const T *left = room.before[n], *right = room.after[row][n], *b = room.steps_before[n];
    const T *a = room.steps_after[row][n], *c = room.steps_after[row - 1][n];
    T *const __restrict bar = room.bars[row][n], *const __restrict last = room.bars[row - 1][n];
    EACH_LANE {
      bar[k] = right[k] + left[k] + b[k] - a[k] + c[k];
      last[k] -= b[k];
    }
  }
}

// Cotangents of the cells of a row to those of its state and of what lies beyond its ends.
template <typename T>
ALONE void write_bars(const Basin<T>& basin, const Tile& tile, int64_t row, const Lines<T>& bars) {
  const int64_t halo = basin.halo, columns = basin.columns, end = tile.first + tile.count;
  const auto copy = [&](int face, int64_t from, int64_t to, int64_t at) {
    for (int n = 0; n < kQuantities; ++n) {
      const T* lane = bars[n] + tile.lane(from);
      std::copy(lane, lane + (to - from), basin.beyond_bar[face][n] + at);
    }
  };
  if (row < 0) return copy(0, tile.first, end, (row + halo) * columns + tile.first);
  if (row >= basin.rows) return copy(1, tile.first, end, (row - basin.rows) * columns + tile.first);
  if (tile.first == 0) copy(2, -halo, 0, row * halo);
  if (end == columns) copy(3, columns, columns + halo, row * halo);
  const int64_t at = row * columns + tile.first, lanes = tile.count;
  const T *h = basin.depth + at, *qy = basin.discharge[0] + at, *qx = basin.discharge[1] + at;
  const T *depth = bars[0] + kMargin, *level = bars[kLevel] + kMargin;
  const T *vy = bars[kSpeed] + kMargin, *vx = bars[kSpeed + 1] + kMargin;
  const T *h_now = basin.now_bar[0] + at, *qy_now = basin.now_bar[1] + at;
  const T* qx_now = basin.now_bar[2] + at;
  T *const __restrict h_bar = basin.depth_bar + at, *const __restrict z_bar = basin.bed_bar + at;
  T* const __restrict qy_bar = basin.discharge_bar[0] + at;
  T* const __restrict qx_bar = basin.discharge_bar[1] + at;
  EACH_LANE {
    const T slowness = basin.slowness(h[k]);
    const T falls = h[k] > basin.thin ? -slowness * slowness : basin.per_thin2;
    h_bar[k] = h_now[k] + depth[k] + level[k] + falls * (vy[k] * qy[k] + vx[k] * qx[k]);
    z_bar[k] += level[k];
    qy_bar[k] = qy_now[k] + slowness * vy[k];
    qx_bar[k] = qx_now[k] + slowness * vx[k];
  }
}

// What the faces along a row hold for its cells, added to their cotangents.
template <typename T>
void pull_along(const Basin<T>& basin, Room<T>& room, int64_t row, int64_t lanes) {
  const Lines<T>& cells = room.cells[row];
  T *pull = room.pull.lanes(), *more = room.more.lanes();
  slopes_along(basin, room, row, lanes);
  pull_fluxes<1>(basin.gravity, basin.per_length[1], T(1), {&cells, &room.along, -1},
                 {&cells, &room.along, 0}, room.rates[row], -1, room.rates[row], lanes, room.before,
                 room.beside);
  pull_slope(-basin.gravity * basin.per_length[1], room.rates[row][2], cells[0], lanes, pull, more);
  for (int n = 0; n < kQuantities; ++n) {
    const T* u = cells[n];
    pull_slopes(basin.limiter, u - 1, u, u + 1, room.before[n] + 1, room.beside[n],
                n == kLevel ? more : room.none.lanes(), lanes, room.steps_before[n],
                room.steps_beside[n]);
  }
  add_along(lanes, room, room.bars[row]);
  add_product(pull, room.along[kLevel], lanes, room.bars[row][0]);
}

// What the faces between rows hold for the cells of one.
template <typename T>
void pull_down(const Basin<T>& basin, Room<T>& room, int64_t row, int64_t lanes) {
  const T width = row < 0 || row >= basin.rows ? T(1) : basin.cell_width[row + 1];
  T *pull = room.pull.lanes(), *more = room.more.lanes();
  pull_slope(-basin.gravity * basin.per_length[0] * width, room.rates[row][1], room.cells[row][0],
             lanes, pull, more);
  for (int n = 0; n < kQuantities; ++n) {
    pull_slopes(basin.limiter, room.cells[row - 1][n], room.cells[row][n], room.cells[row + 1][n],
                room.before[n], room.after[row][n], n == kLevel ? more : room.none.lanes(), lanes,
                room.steps_before[n], room.steps_after[row][n]);
  }
  add_down(lanes, room, row);
  add_product(pull, room.slopes[row][kLevel], lanes, room.bars[row][0]);
}

template <typename T>
void pull_tile(const Basin<T>& basin, const Tile& tile, int64_t first, int64_t last,
               Room<T>& room) {
  const Reader<T> reader{basin, tile};
  const int64_t lanes = tile.lanes();
  for (int64_t row = first - 3; row < first; ++row) reader.cells(row, room.cells[row]);
  reader.rates(first - 2, room.rates[first - 2]);
  slopes_down(basin, room, first - 2, lanes);
  for (int64_t face = first - 1; face < last + 2; ++face) {
    const int64_t row = face - 1;
    reader.cells(face + 1, room.cells[face + 1]);
    reader.rates(face, room.rates[face]);
    slopes_down(basin, room, face, lanes);
    pull_fluxes<0>(basin.gravity, basin.per_length[0], width_of(basin, face),
                   {&room.cells[row], &room.slopes[row], 0}, {&room.cells[face], &room.slopes[face], 0},
                   room.rates[row], 0, room.rates[face], lanes, room.before, room.after[face]);
    if (row >= first - 1) pull_down(basin, room, row, lanes);
    if (row <= first) continue;
    if (row > 0 && row <= basin.rows) pull_along(basin, room, row - 1, lanes);
    write_bars(basin, tile, row - 1, room.bars[row - 1]);
  }
}

template <typename T>
void pull_advance(Threads& threads, const Basin<T>& basin) {
  each_tile(threads, basin, -basin.halo, basin.rows + basin.halo,
            [&](const auto& tile, int64_t first, int64_t last, auto& room) {
              pull_tile(basin, tile, first, last, room);
            });
}

#undef EACH_LANE
}  // namespace water
