// What touches few values of a field: the images beyond its faces, and the windows of its sources.
#pragma once

#include "problem.h"

// work(to, from, sign) for the values beyond faces, face after face; from the last one if `back`.
template <typename T, typename Work>
void images(const Wave<T>& wave, bool back, const Work& work) {
  const int count = static_cast<int>(wave.images.size());
  for (int n = 0; n < count; ++n) {
    const Image& image = wave.images[back ? count - 1 - n : n];
    int64_t outer = 1, inner = 1;
    for (int axis = 0; axis < wave.ndim; ++axis) {
      if (axis < image.axis) outer *= wave.full(axis);
      if (axis > image.axis) inner *= wave.full(axis);
    }
    const int64_t size = wave.full(image.axis);
    for (int64_t j = 0; j < outer; ++j) {
      for (int64_t k = 0; k < wave.half; ++k) {
        const int64_t to = (j * size + image.beyond + k) * inner;
        const int64_t shown = image.sign == 0 ? k : wave.half - 1 - k;
        const int64_t from = (j * size + image.within + shown) * inner;
        for (int64_t i = 0; i < inner; ++i) work(to + i, from + i, image.sign < 0 ? T(-1) : T(1));
      }
    }
  }
}

template <typename T>
void mirror(const Wave<T>& wave, T* u) {
  images(wave, false, [&](int64_t to, int64_t from, T sign) { u[to] = sign * u[from]; });
}

template <typename T>
void unmirror(const Wave<T>& wave, T* u) {
  images(wave, true, [&](int64_t to, int64_t from, T sign) {
    u[from] += sign * u[to];
    u[to] = 0;
  });
}

// Windows on a field, `width` nodes along each axis.
template <typename T>
struct Windows {
  int64_t count, width;
  const int32_t* start;
  const T* weights;
};

// work(window, place in the windows, place in the field, nodes) for each row of each window.
template <typename T, typename Work>
void each_row(const Wave<T>& wave, const Windows<T>& windows, const Work& work) {
  const int64_t width = windows.width;
  const int64_t across = wave.ndim > 1 ? width : 1, beside = wave.ndim > 2 ? width : 1;
  for (int64_t n = 0; n < windows.count; ++n) {
    int64_t first = 0;
    for (int axis = 0; axis < wave.ndim; ++axis) {
      first += windows.start[n * wave.ndim + axis] * wave.stride[axis];
    }
    for (int64_t j = 0; j < beside * across; ++j) {
      int64_t place = first;
      if (wave.ndim > 1) place += j % across * wave.stride[wave.ndim - 2];
      if (wave.ndim > 2) place += j / across * wave.stride[0];
      work(n, (n * beside * across + j) * width, place, width);
    }
  }
}

// field - Σ value · weights
template <typename T>
void take_away(const Wave<T>& wave, const Windows<T>& windows, const T* values, T* field) {
  each_row(wave, windows, [&](int64_t n, int64_t from, int64_t to, int64_t width) {
    for (int64_t i = 0; i < width; ++i) field[to + i] -= windows.weights[from + i] * values[n];
  });
}

template <typename T>
void copy_out(const Wave<T>& wave, const Windows<T>& windows, const T* field, T* seen) {
  each_row(wave, windows, [&](int64_t, int64_t to, int64_t from, int64_t width) {
    for (int64_t i = 0; i < width; ++i) seen[to + i] = field[from + i];
  });
}
