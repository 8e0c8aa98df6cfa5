// The images beyond the faces of a field. Behind layers there are none, and zeros for good.
#pragma once

#include "problem.h"
#include "threads.h"

// work(to, from, sign) for the values beyond a face, shared out.
template <typename T, typename Work>
void image(Threads& threads, const Wave<T>& wave, const Image& image, const Work& work) {
  const int64_t half = wave.half, size = wave.full(image.axis), inner = wave.stride[image.axis];
  const int64_t lines = wave.full(0) * wave.stride[0] / (size * inner) * half;
  threads.share(lines, std::max<int64_t>(1, 16384 / inner), [&](int64_t first, int64_t end) {
    for (int64_t n = first; n < end; ++n) {
      const int64_t line = n / half, k = n % half;
      const int64_t to = (line * size + image.beyond + k) * inner;
      const int64_t from = (line * size + image.shown(k, half)) * inner;
      for (int64_t i = 0; i < inner; ++i) work(to + i, from + i, image.sign < 0 ? T(-1) : T(1));
    }
  });
}

// Across leading axes; what lies at the ends of rows is shown as it is.
template <typename T>
void mirror(Threads& threads, const Wave<T>& wave, T* u) {
  for (const Image& one : wave.images) {
    if (one.axis == wave.last()) continue;
    image(threads, wave, one, [&](int64_t to, int64_t from, T sign) { u[to] = sign * u[from]; });
  }
}

// At the ends of a row, by who has just made it: a cache line for a few values would come twice.
template <typename T>
void mirror_ends(const Wave<T>& wave, T* row) {
  for (const Image& one : wave.images) {
    if (one.axis != wave.last()) continue;
    for (int64_t k = 0; k < wave.half; ++k) {
      const T value = row[one.shown(k, wave.half)];
      row[one.beyond + k] = one.sign < 0 ? -value : value;
    }
  }
}

// The transpose of both.
template <typename T>
void unmirror(Threads& threads, const Wave<T>& wave, T* u) {
  for (size_t n = wave.images.size(); n-- > 0;) {
    image(threads, wave, wave.images[n], [&](int64_t to, int64_t from, T sign) {
      u[from] += sign * u[to];
      u[to] = 0;
    });
  }
}
