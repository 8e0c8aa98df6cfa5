// The images beyond the faces of a field. Behind layers there are none, and zeros for good.
#pragma once

#include "problem.h"
#include "threads.h"

// work(image, k) for the k-th place beyond each face across an axis.
template <typename T, typename Work>
void beyond(const Wave<T>& wave, int axis, const Work& work) {
  for (const Image& image : wave.images) {
    for (int64_t k = 0; image.axis == axis && k < wave.half; ++k) work(image, k);
  }
}

// Makes `count` values there, of the lines along the axis that start at `line`.
template <typename T>
void show(const Wave<T>& wave, const Image& image, int64_t k, int64_t count, T* line) {
  const int64_t stride = wave.stride[image.axis];
  const T* const from = line + image.shown(k, wave.half) * stride;
  T* const to = line + (image.beyond + k) * stride;
  for (int64_t i = 0; i < count; ++i) to[i] = image.sign < 0 ? -from[i] : from[i];
}

// Across leading axes; what lies at the ends of rows is shown as it is. Where there are planes each
// makes all that lies in it.
template <typename T>
void mirror(Threads& threads, const Wave<T>& wave, T* u) {
  if (wave.images.empty() || wave.ndim == 1) return;
  const int64_t size = wave.stride[0], row = wave.stride[1], rim = wave.half * row;
  if (wave.ndim == 2) {
    return beyond(wave, 0, [&](const Image& image, int64_t k) { show(wave, image, k, size, u); });
  }
  threads.share(wave.full(0), 4096 / rim, [&](int64_t first, int64_t end) {
    beyond(wave, 0, [&](const Image& image, int64_t k) {
      const int64_t plane = image.beyond + k;
      if (plane >= first && plane < end) show(wave, image, k, size - 2 * rim, u + rim);
    });
    for (T* plane = u + first * size; plane < u + end * size; plane += size) {
      beyond(wave, 1, [&](const Image& image, int64_t k) { show(wave, image, k, row, plane); });
    }
  });
}

// At the ends of a row, by who has just made it: a cache line for a few values would come twice.
template <typename T>
inline void mirror_ends(const Wave<T>& wave, T* row) {
  for (const Image& image : wave.images) {
    if (image.axis != wave.last()) continue;
    for (int64_t k = 0; k < wave.half; ++k) {
      const T value = row[image.shown(k, wave.half)];
      row[image.beyond + k] = image.sign < 0 ? -value : value;
    }
  }
}

// The transpose of both.
template <typename T>
void unmirror(Threads& threads, const Wave<T>& wave, T* u) {
  const int64_t half = wave.half;
  for (auto image = wave.images.rbegin(); image != wave.images.rend(); ++image) {
    const int64_t size = wave.full(image->axis), inner = wave.stride[image->axis];
    const int64_t lines = wave.full(0) * wave.stride[0] / (size * inner) * half;
    threads.share(lines, 16384 / inner, [&](int64_t first, int64_t end) {
      for (int64_t n = first; n < end; ++n) {
        const int64_t line = n / half * size, k = n % half;
        T* const beyond = u + (line + image->beyond + k) * inner;
        T* const within = u + (line + image->shown(k, half)) * inner;
        for (int64_t i = 0; i < inner; ++i) {
          within[i] += image->sign < 0 ? -beyond[i] : beyond[i];
          beyond[i] = 0;
        }
      }
    });
  }
}
