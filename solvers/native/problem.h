// What the sweeps know of a field, and those of wave.h of a grid, its layers and its images.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

constexpr int kAxes = 3;
constexpr int kHalf = 4;  // of the widest stencil, order 8

// A recursion `memory = b memory + a value` along a layer, and 1/b.
template <typename T>
struct Damping {
  const T *a, *b, *per_b;
};

template <typename T>
struct Layer {
  int axis;
  bool low;
  int64_t width;
  int64_t first;  // along the axis, in the field, of its first node
  Damping<T> half, node;  // at half points and at nodes
  T *psi = nullptr, *zeta = nullptr;  // memory
  T *psi_bar = nullptr, *zeta_bar = nullptr;
};

// What lies beyond a face: `count` nodes from `beyond` on show those from `within` on, in a mirror
// of sign ±1, or as they are if the sign is 0.
struct Image {
  int axis;
  int64_t beyond, within;
  int sign;
  // which node the k-th one beyond shows
  int64_t shown(int64_t k, int64_t count) const { return within + (sign == 0 ? k : count - 1 - k); }
};

// Nodes of a rigid wall, `at` along an axis.
struct Wall {
  int axis;
  int64_t at;
};

// How a field lies in memory.
struct Field {
  int ndim;
  int64_t stride[kAxes];
};

// Windows on a field, so many nodes wide along each axis.
template <typename T>
struct Windows {
  int64_t count, width[kAxes];
  const int32_t* start;
  const T* weights;
};

template <typename T>
struct Wave : Field {  // with the halo
  int64_t half;  // nodes of the halo
  int64_t n[kAxes];  // nodes without the halo
  T weights[kAxes][kHalf + 1];  // of second differences along each axis, over h²
  T center;  // the sum of the axes' weights of the node itself
  T over[kAxes];  // 1/h²
  // of layers.py's G where first nodes lie outwards; of G where last ones do, or minus its transpose
  std::array<T, kHalf + 1> before, behind;
  std::vector<Layer<T>> layers;
  std::vector<Image> images;
  std::vector<Wall> walls;

  int last() const { return ndim - 1; }
  int64_t full(int axis) const { return n[axis] + 2 * half; }
};

enum class Limiter : int64_t { kNone, kMinmod, kVanLeer, kMonotonizedCentral };

// A grid of shallow water, [y, x], and what lies beyond its four faces: cells of its halo.
template <typename T>
struct Basin {
  int64_t rows, columns, halo;
  Limiter limiter;
  T gravity, thin, per_thin2;
  T dt, per_length[2];  // a step; over the spacing
  const T *depth, *discharge[2], *bed;
  const T* beyond[4][4];  // of each face depth, level and both velocities
  const T *face_width, *cell_width;  // of rows, over the spacing; of cells with one more at each end
  T* now[3];  // depth and discharge after a step
  const T* now_bar[3];  // or their cotangents, and those of all that they depend on
  T *depth_bar, *discharge_bar[2], *bed_bar;
  T* beyond_bar[4][4];

  // velocity over discharge
  T slowness(T h) const { return h > thin ? 1 / (h > thin ? h : T(1)) : h * per_thin2; }
};

// A body that conducts heat, in cells with a halo of one.
template <typename T>
struct Body : Field {
  int64_t n[kAxes];  // cells without the halo
  const T* conductance[kAxes];  // of the faces before the cells, along each axis; none in the halo
  const T *base, *scale, *heating;  // fields, the last one null if there is none
  bool scaled;  // by a field, or by one number
  const T* gain;  // what comes in through each of the grid's faces in turn, in the cells beside it
  T* total[kAxes];  // the conductances' cotangents
};
