// Work shared out over the threads of XLA's own pool, so that its limits hold here too.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

// Layers decay into denormal numbers, which cost a hundred times as much: zeros do as well.
class FlushDenormals {
#if defined(__x86_64__)
  unsigned before_ = _mm_getcsr();

 public:
  FlushDenormals() { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
#endif
};

class Threads {
 public:
  explicit Threads(xla::ffi::ThreadPool pool) : pool_(pool) {
    count_ = std::max<int64_t>(1, pool_.num_threads());
  }

  // work(first, last) on equal shares of 0 … size, of `least` items and more; returns when all are
  // done. The caller works too and then spins: the shares take microseconds.
  template <typename Work>
  void share(int64_t size, int64_t least, const Work& work) {
    int64_t parts = std::clamp<int64_t>(size / std::max<int64_t>(1, least), 1, count_);
    std::atomic<int64_t> left{parts - 1};
    for (int64_t part = 1; part < parts; ++part) {
      pool_.Schedule([&, part] {
        FlushDenormals flush;
        work(part * size / parts, (part + 1) * size / parts);
        left.fetch_sub(1, std::memory_order_release);
      });
    }
    {
      FlushDenormals flush;
      work(int64_t{0}, size / parts);
    }
    for (int64_t spins = 0; left.load(std::memory_order_acquire) > 0; ++spins) {
      if (spins > 1000) std::this_thread::yield();
    }
  }

 private:
  xla::ffi::ThreadPool pool_;
  int64_t count_;
};
