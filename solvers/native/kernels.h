// All sweeps for XLA in numbers of one type, REAL, and the choice of the best instructions. A library for each
// type: they compile side by side.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "problem.h"
#include "edges.h"
#include "threads.h"

// What is compiled once for all that call it.
#define ALONE __attribute__((noinline))
// What must be part of the loop that calls it.
#define INLINED inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi2")
namespace avx2 {
#define VECTOR 32
#include "wave.h"
#include "points.h"
#include "water.h"
#include "heat.h"
#undef VECTOR
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma,bmi2,prefer-vector-width=512")
namespace avx512 {
#define VECTOR 64
#include "wave.h"
#include "points.h"
#include "water.h"
#include "heat.h"
#undef VECTOR
}  // namespace avx512
#pragma GCC pop_options
#define CHOICES(CALL)                                     \
  if (__builtin_cpu_supports("avx512dq")) {               \
    using namespace avx512;                               \
    CALL;                                                 \
  } else if (__builtin_cpu_supports("avx2")) {            \
    using namespace avx2;                                 \
    CALL;                                                 \
  } else {                                                \
    return ffi::Error::Internal("this processor has no AVX2"); \
  }
extern "C" int diffsim_runs_here() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
namespace plain {
#define PLAIN  // vectors of the language's own, whatever the processor
#define VECTOR 16
#include "wave.h"
#include "points.h"
#include "water.h"
#include "heat.h"
#undef VECTOR
#undef PLAIN
}  // namespace plain
#define CHOICES(CALL)      \
  {                        \
    using namespace plain; \
    CALL;                  \
  }
extern "C" int diffsim_runs_here() { return 1; }
#endif

#ifndef DIFFSIM_SOURCES
#define DIFFSIM_SOURCES "unknown"
#endif
extern "C" const char* diffsim_sources() { return DIFFSIM_SOURCES; }

#include "handed.h"
#include "wave_calls.h"
#include "points_calls.h"
#include "water_calls.h"
#include "heat_calls.h"
