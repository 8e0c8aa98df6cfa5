// The images beyond the faces of a field.
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
