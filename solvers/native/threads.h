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
    static std::atomic<unsigned> sweeps{0};
    count_ = std::max<int64_t>(1, pool_.num_threads());
    outwards_ = sweeps.fetch_add(1, std::memory_order_relaxed) % 2 != 0;
  }

  // work(first, last) on shares of 0 … size, of `least` items and more; returns when all are done.
  // The caller takes shares from the front, threads of the pool from the back as soon as they wake,
  // which takes as long as a sweep; so each finds in its cache what it left there a sweep before.
  // Every second sweep goes from the middle to the ends: what was touched last is touched first,
  // where the cache holds less than a thread's half. The caller waits for shares that are under way
  // alone: all threads of the pool may be callers.
  template <typename Work>
  void share(int64_t size, int64_t least, const Work& work) {
    const int64_t most = count_ == 1 ? 1 : kShares * count_;
    const int64_t parts = std::clamp<int64_t>(size / std::max<int64_t>(1, least), 1, most);
    const auto part = [&, size, parts](int64_t n) {
      work(n * size / parts, (n + 1) * size / parts);
    };
    FlushDenormals flush;
    if (parts == 1) return part(0);
    const auto left = std::make_shared<Left>(parts, outwards_);
    for (int64_t n = 1; n < std::min(count_, parts); ++n) {
      // a task that comes too late must not touch the caller's variables
      pool_.Schedule([left, work = &part] {
        FlushDenormals flush;
        for (int64_t n; (n = left->last()) >= 0; left->done.fetch_add(1, std::memory_order_release)) {
          (*work)(n);
        }
      });
    }
    for (int64_t n; (n = left->first()) >= 0; left->done.fetch_add(1, std::memory_order_release)) {
      part(n);
    }
    for (int64_t spins = 0; left->done.load(std::memory_order_acquire) < parts; ++spins) {
      if (spins > 1000) std::this_thread::yield();
    }
  }

 private:
  static constexpr int64_t kShares = 8;  // for each thread

  // Shares from one number up to another, in one word: those that nobody has taken yet or,
  // outwards, those that somebody has.
  class Left {
    const uint64_t parts_;
    const bool outwards_;
    std::atomic<uint64_t> ends_;

   public:
    std::atomic<int64_t> done{0};
    Left(uint64_t parts, bool outwards)
        : parts_(parts), outwards_(outwards),
          ends_(outwards ? parts / 2 << 32 | parts / 2 : parts) {}

    int64_t first() { return take(true); }
    int64_t last() { return take(false); }

   private:
    int64_t take(bool front) {
      uint64_t ends = ends_.load(std::memory_order_relaxed);
      while (true) {
        uint64_t first = ends >> 32, end = ends & 0xffffffff;
        if (end - first == (outwards_ ? parts_ : 0)) return -1;
        const bool low = outwards_ ? first > 0 && (front || end == parts_) : front;
        const uint64_t part = outwards_ ? (low ? --first : end++) : (low ? first++ : --end);
        if (ends_.compare_exchange_weak(ends, first << 32 | end, std::memory_order_acq_rel)) {
          return static_cast<int64_t>(part);
        }
      }
    }
  };

  xla::ffi::ThreadPool pool_;
  int64_t count_;
  bool outwards_;
};
