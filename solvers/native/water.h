// Euler's step of shallow water by the fluxes through faces, and its transpose: a sweep each.
//
// The arithmetic of solvers/finite_volumes.py, reconstruction.py and hll.py, to which a test holds it;
// read those first. A tile of columns goes down the rows with what it needs of the last few in cache.
// This file is included as wave.h is.

#include "water_faces.h"

namespace water {

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
