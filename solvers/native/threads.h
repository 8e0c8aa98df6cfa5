// Work shared out over the threads of XLA's own pool, so that its limits hold here too.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
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
  // done. Whoever is free takes the next share, the caller too, so that it waits only for shares
  // that are under way: the pool's threads may all be callers themselves. The caller then spins,
  // for the shares take microseconds.
  template <typename Work>
  void share(int64_t size, int64_t least, const Work& work) {
    const int64_t parts = std::clamp<int64_t>(size / std::max<int64_t>(1, least), 1, count_);
    // outlives the call: a thread of the pool may look for a share when all are done
    const auto counts = std::make_shared<Counts>();
    const auto take = [counts, parts, size, &work] {
      FlushDenormals flush;
      for (int64_t part; (part = counts->taken.fetch_add(1)) < parts;) {
        work(part * size / parts, (part + 1) * size / parts);
        counts->done.fetch_add(1, std::memory_order_release);
      }
    };
    for (int64_t part = 1; part < parts; ++part) pool_.Schedule([take] { take(); });
    take();
    for (int64_t spins = 0; counts->done.load(std::memory_order_acquire) < parts; ++spins) {
      if (spins > 1000) std::this_thread::yield();
    }
  }

 private:
  struct Counts {
    std::atomic<int64_t> taken{0}, done{0};
  };

  xla::ffi::ThreadPool pool_;
  int64_t count_;
};
