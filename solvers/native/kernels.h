// The sweeps of wave.h, points.h, water.h and heat.h for XLA, in numbers of one type, REAL: what it hands over,
// made into a problem, and the best instructions. A library for each type: they compile side by side.

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

namespace ffi = xla::ffi;

namespace {

using T = REAL;
using Numbers = ffi::Span<const double>;
using Integers = ffi::Span<const int64_t>;

// The nodes without the halo, the weights and the layers. `weights` holds those of the second
// difference for nodes 0, 1, …, `root` those of layers.py's G; `layers` (axis, low, width) of each;
// `profiles` the four rows of each layer in turn; `images` (axis, beyond, within, sign); `walls`
// (axis, at).
struct Told {
  Integers shape;
  Numbers weights, root, spacing, profiles;
  Integers layers, images, walls;
};

class Problem : public Wave<T> {
 public:
  explicit Problem(const Told& told) {
    ndim = static_cast<int>(told.shape.size());
    half = static_cast<int64_t>(told.weights.size()) - 1;
    center = 0;
    int64_t size = 1;
    for (int axis = ndim - 1; axis >= 0; --axis) {
      n[axis] = told.shape[axis];
      stride[axis] = size;
      size *= full(axis);
      const double over = 1 / (told.spacing[axis] * told.spacing[axis]);
      this->over[axis] = static_cast<T>(over);
      for (int64_t k = 0; k <= half; ++k) {
        weights[axis][k] = static_cast<T>(told.weights[k] * over);
      }
      center += static_cast<T>(told.weights[0] * over);
    }
    for (int64_t k = 0; k <= half; ++k) {
      before[k] = static_cast<T>(told.root[k]);
      behind[k] = -static_cast<T>(told.root[half - k]);
    }
    numbers_.assign(told.profiles.begin(), told.profiles.end());
    const size_t count = numbers_.size();
    for (size_t i = 0; i < count; ++i) numbers_.push_back(1 / numbers_[i]);
    const T* row = numbers_.data();
    const auto damping = [&](int64_t places) {
      const T *a = row, *b = a + places;
      row = b + places;
      return Damping<T>{a, b, b + count};
    };
    for (size_t i = 0; i < told.layers.size(); i += 3) {
      Layer<T> layer{};
      layer.axis = static_cast<int>(told.layers[i]);
      layer.low = told.layers[i + 1] != 0;
      layer.width = told.layers[i + 2];
      const int64_t end = n[layer.axis] + half;
      layer.first = layer.low ? half : end - layer.width - 1;
      layer.half = damping(layer.width + 2);
      layer.node = damping(layer.width + 1);
      layers.push_back(layer);
    }
    for (size_t i = 0; i < told.images.size(); i += 4) {
      const int64_t* image = told.images.begin() + i;
      images.push_back(
          {static_cast<int>(image[0]), image[1], image[2], static_cast<int>(image[3])});
    }
    for (size_t i = 0; i < told.walls.size(); i += 2) {
      walls.push_back({static_cast<int>(told.walls[i]), told.walls[i + 1]});
    }
  }

 private:
  std::vector<T> numbers_;
};

// A result that starts as an argument: the same memory, unless XLA chose otherwise.
void* started(ffi::RemainingArgs& args, size_t from, ffi::RemainingRets& results, size_t to) {
  auto source = args.get<ffi::AnyBuffer>(from).value();
  auto target = results.get<ffi::AnyBuffer>(to).value();
  if (target->untyped_data() != source.untyped_data()) {
    std::memcpy(target->untyped_data(), source.untyped_data(), source.size_bytes());
  }
  return target->untyped_data();
}

T* argument(ffi::RemainingArgs& args, size_t i) {
  return static_cast<T*>(args.get<ffi::AnyBuffer>(i).value().untyped_data());
}

// Windows: integers [window, axis] where they start, weights [window, *nodes].
Windows<T> windows(ffi::RemainingArgs& args, size_t start, size_t weights) {
  const auto shape = args.get<ffi::AnyBuffer>(weights).value().dimensions();
  void* const starts = args.get<ffi::AnyBuffer>(start).value().untyped_data();
  Windows<T> all{shape[0], {}, static_cast<int32_t*>(starts), argument(args, weights)};
  for (size_t axis = 1; axis < shape.size(); ++axis) all.width[axis - 1] = shape[axis];
  return all;
}

T* result(ffi::RemainingRets& results, size_t i) {
  return static_cast<T*>(results.get<ffi::AnyBuffer>(i).value()->untyped_data());
}

T* started_as(ffi::RemainingArgs& args, size_t from, ffi::RemainingRets& results, size_t to) {
  return static_cast<T*>(started(args, from, results, to));
}

// κ, p, p°, sources' starts, weights and values, ψ, ζ, … -> p', ψ', ζ', …
template <int NDIM, int HALF>
ffi::Error leap_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                   ffi::RemainingRets results) {
  T* other = started_as(args, 2, results, 0);
  size_t from = 6, to = 1;
  for (auto& layer : problem.layers) {
    layer.psi = started_as(args, from++, results, to++);
    layer.zeta = started_as(args, from++, results, to++);
  }
  const T *kappa = argument(args, 0), *p = argument(args, 1);
  const auto sources = windows(args, 3, 4);
  T* const none = nullptr;
  CHOICES((put<NDIM>(problem, sources, argument(args, 5), T(-1), other)));
  CHOICES((leap<T, NDIM, HALF, false>(threads, problem, kappa, p, other, none)));
  return ffi::Error::Success();
}

// The one of several fields that a number is for.
T* one_of(const Problem& problem, T* fields, ffi::RemainingArgs& args, size_t number) {
  const auto n = *static_cast<int32_t*>(args.get<ffi::AnyBuffer>(number).value().untyped_data());
  return fields + n * problem.full(0) * problem.stride[0];
}

// κ, p, p°, sources' starts, weights and values, exposures, the number of this step's, ψ, ζ, … -> p',
// exposures, ψ', ζ', …
template <int NDIM, int HALF>
ffi::Error expose_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                     ffi::RemainingRets results) {
  T* other = started_as(args, 2, results, 0);
  T* curvature = one_of(problem, started_as(args, 6, results, 1), args, 7);
  size_t from = 8, to = 2;
  for (auto& layer : problem.layers) {
    layer.psi = started_as(args, from++, results, to++);
    layer.zeta = started_as(args, from++, results, to++);
  }
  const T *kappa = argument(args, 0), *p = argument(args, 1);
  const auto sources = windows(args, 3, 4);
  CHOICES((put<NDIM>(problem, sources, argument(args, 5), T(-1), other)));
  CHOICES((leap<T, NDIM, HALF, true>(threads, problem, kappa, p, other, curvature)));
  return ffi::Error::Success();
}

// κ, p, p̄', p̄°', sources' starts and weights, ψ, ζ, …, ψ̄, ζ̄, … -> p̄°, p̄, κ̄, room, what the
// sources felt, ψ̄, ζ̄, …
template <int NDIM, int HALF>
ffi::Error transpose_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                        ffi::RemainingRets results) {
  T* after = started_as(args, 2, results, 0);
  T* bar = started_as(args, 3, results, 1);
  size_t from = 6, to = 5;
  for (auto& layer : problem.layers) {
    layer.psi = argument(args, from++), layer.zeta = argument(args, from++);
  }
  for (auto& layer : problem.layers) {
    layer.psi_bar = started_as(args, from++, results, to++);
    layer.zeta_bar = started_as(args, from++, results, to++);
  }
  T *picture = result(results, 2), *room = result(results, 3);
  const T *kappa = argument(args, 0), *p = argument(args, 1);
  unmirror(threads, problem, after);
  CHOICES((copy_out<NDIM>(problem, windows(args, 4, 5), after, result(results, 4))));
  CHOICES((transpose<T, NDIM, HALF>(threads, problem, kappa, p, after, bar, picture, room)));
  return ffi::Error::Success();
}

// κ, w', w, sources' starts and weights, ψ̄, ζ̄, … -> w', w°, what the sources felt, ψ̄, ζ̄, …
template <int NDIM, int HALF>
ffi::Error adjoin_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                     ffi::RemainingRets results) {
  T* after = started_as(args, 1, results, 0);
  T* before = started_as(args, 2, results, 1);
  size_t from = 5, to = 3;
  for (auto& layer : problem.layers) {
    layer.psi_bar = started_as(args, from++, results, to++);
    layer.zeta_bar = started_as(args, from++, results, to++);
  }
  CHOICES((copy_out<NDIM>(problem, windows(args, 3, 4), after, result(results, 2))));
  T* const none = nullptr;
  CHOICES((retrace<T, NDIM, HALF, With::kNothing>(threads, problem, argument(args, 0), none, after,
                                                    before, none, none, none, T(0))));
  return ffi::Error::Success();
}

// κ, w', w, sources' starts and weights, Σ w' C, exposures, the number of this step's, how often its own
// counts, ψ̄, ζ̄, … -> w', w°, what the sources felt, the sum with that of this step, ψ̄, ζ̄, …
template <int NDIM, int HALF>
ffi::Error image_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                    ffi::RemainingRets results) {
  T* after = started_as(args, 1, results, 0);
  T* before = started_as(args, 2, results, 1);
  T* picture = started_as(args, 5, results, 3);
  const T* exposure = one_of(problem, argument(args, 6), args, 7);
  size_t from = 9, to = 4;
  for (auto& layer : problem.layers) {
    layer.psi_bar = started_as(args, from++, results, to++);
    layer.zeta_bar = started_as(args, from++, results, to++);
  }
  CHOICES((copy_out<NDIM>(problem, windows(args, 3, 4), after, result(results, 2))));
  T* const none = nullptr;
  CHOICES((retrace<T, NDIM, HALF, With::kImage>(threads, problem, argument(args, 0), none, after,
                                                  before, picture, none, exposure,
                                                  *argument(args, 8))));
  return ffi::Error::Success();
}

// κ, p, p', w', w, Σ w' ∇²p, sources' starts, weights and values, ψ', ζ', …, ψ̄, ζ̄, … -> p°, w', w°, the
// sum with that of this step, what the sources felt, ψ, ζ, …, ψ̄, ζ̄, …
template <int NDIM, int HALF>
ffi::Error retrace_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                      ffi::RemainingRets results) {
  T* other = started_as(args, 2, results, 0);
  T* after = started_as(args, 3, results, 1);
  T* before = started_as(args, 4, results, 2);
  T* picture = started_as(args, 5, results, 3);
  size_t from = 9, to = 5;
  for (auto& layer : problem.layers) {
    layer.psi = started_as(args, from++, results, to++);
    layer.zeta = started_as(args, from++, results, to++);
  }
  for (auto& layer : problem.layers) {
    layer.psi_bar = started_as(args, from++, results, to++);
    layer.zeta_bar = started_as(args, from++, results, to++);
  }
  const T *kappa = argument(args, 0), *p = argument(args, 1);
  const auto sources = windows(args, 6, 7);
  CHOICES((copy_out<NDIM>(problem, sources, after, result(results, 4))));
  CHOICES((put<NDIM>(problem, sources, argument(args, 8), T(-1), other)));
  T* const none = nullptr;
  CHOICES((retrace<T, NDIM, HALF, With::kWalk>(threads, problem, kappa, p, after, before, picture,
                                                 other, none, T(0))));
  return ffi::Error::Success();
}

// The sweep for a number of axes and a width of the stencil.
#define OF_HALF(SWEEP, NDIM)                                                     \
  switch (problem.half) {                                                        \
    case 1: return SWEEP<NDIM, 1>(threads, problem, args, results);           \
    case 2: return SWEEP<NDIM, 2>(threads, problem, args, results);           \
    case 3: return SWEEP<NDIM, 3>(threads, problem, args, results);           \
    case 4: return SWEEP<NDIM, 4>(threads, problem, args, results);           \
  }
#define HANDLER(NAME, SWEEP)                                                     \
  ffi::Error NAME##_impl(ffi::ThreadPool pool, ffi::RemainingArgs args,          \
                         ffi::RemainingRets results, Integers shape,             \
                         Numbers weights, Numbers root, Numbers spacing,         \
                         Numbers profiles, Integers layers, Integers images,     \
                         Integers walls) {                                       \
    Threads threads(pool);                                                       \
    Problem problem(                                                             \
        {shape, weights, root, spacing, profiles, layers, images, walls});       \
    switch (problem.ndim) {                                                      \
      case 1: OF_HALF(SWEEP, 1) break;                                           \
      case 2: OF_HALF(SWEEP, 2) break;                                           \
      case 3: OF_HALF(SWEEP, 3) break;                                           \
    }                                                                            \
    return ffi::Error::InvalidArgument("no sweep for these axes or this order"); \
  }

HANDLER(leap, leap_of)
HANDLER(expose, expose_of)
HANDLER(transpose, transpose_of)
HANDLER(adjoin, adjoin_of)
HANDLER(image, image_of)
HANDLER(retrace, retrace_of)

Field field_of(ffi::RemainingArgs& args) {
  const auto shape = args.get<ffi::AnyBuffer>(0).value().dimensions();
  Field field{static_cast<int>(shape.size()), {}};
  for (int64_t axis = field.ndim - 1, stride = 1; axis >= 0; stride *= shape[axis--]) {
    field.stride[axis] = stride;
  }
  return field;
}

// u, windows' starts and weights -> what is seen there
template <int NDIM>
ffi::Error take_of(const Field& field, ffi::RemainingArgs args, ffi::RemainingRets results) {
  CHOICES((take<NDIM>(field, windows(args, 1, 2), argument(args, 0), result(results, 0))));
  return ffi::Error::Success();
}

// u, windows' starts and weights, values -> u with them
template <int NDIM>
ffi::Error put_of(const Field& field, ffi::RemainingArgs args, ffi::RemainingRets results) {
  T* u = started_as(args, 0, results, 0);
  CHOICES((put<NDIM>(field, windows(args, 1, 2), argument(args, 3), T(1), u)));
  return ffi::Error::Success();
}

// The same for a number of axes. One thread does it before others wake.
#define POINTS_HANDLER(NAME)                                                     \
  ffi::Error NAME##_impl(ffi::RemainingArgs args, ffi::RemainingRets results) {  \
    FlushDenormals flush;                                                        \
    const Field field = field_of(args);                                          \
    switch (field.ndim) {                                                        \
      case 1: return NAME##_of<1>(field, args, results);                         \
      case 2: return NAME##_of<2>(field, args, results);                         \
      case 3: return NAME##_of<3>(field, args, results);                         \
    }                                                                            \
    return ffi::Error::InvalidArgument("no windows on so many axes");            \
  }

// Memory that nobody has written to.
ffi::Error unfilled_impl(ffi::RemainingArgs, ffi::RemainingRets) { return ffi::Error::Success(); }

POINTS_HANDLER(take)
POINTS_HANDLER(put)

// Depth, discharge along both axes, bed; depth, level and both velocities beyond each face; widths of
// the faces and of the cells of rows
Basin<T> basin_of(ffi::RemainingArgs& args, int64_t limiter, int64_t halo, double gravity,
                  double thin, double dt, Numbers spacing) {
  const auto shape = args.get<ffi::AnyBuffer>(0).value().dimensions();
  Basin<T> basin{shape[0], shape[1], halo, static_cast<Limiter>(limiter)};
  basin.gravity = static_cast<T>(gravity), basin.thin = static_cast<T>(thin);
  basin.dt = static_cast<T>(dt);
  basin.per_thin2 = static_cast<T>(1 / (thin * thin));
  for (int axis = 0; axis < 2; ++axis) {
    basin.per_length[axis] = static_cast<T>(1 / spacing[axis]);
    basin.discharge[axis] = argument(args, 1 + axis);
  }
  basin.depth = argument(args, 0), basin.bed = argument(args, 3);
  for (int n = 0; n < 16; ++n) basin.beyond[n / 4][n % 4] = argument(args, 4 + n);
  basin.face_width = argument(args, 20), basin.cell_width = argument(args, 21);
  return basin;
}

// -> depth and discharge after a step of dt
ffi::Error advance_impl(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results,
                        int64_t limiter, int64_t halo, double gravity, double thin, double dt,
                        Numbers spacing) {
  Threads threads(pool);
  Basin<T> basin = basin_of(args, limiter, halo, gravity, thin, dt, spacing);
  for (int n = 0; n < 3; ++n) basin.now[n] = result(results, n);
  CHOICES((water::advance(threads, basin)));
  return ffi::Error::Success();
}

// …, cotangents of those and of the bed so far -> those of depth, discharge, bed and cells beyond
ffi::Error pull_advance_impl(ffi::ThreadPool pool, ffi::RemainingArgs args,
                             ffi::RemainingRets results, int64_t limiter, int64_t halo,
                             double gravity, double thin, double dt, Numbers spacing) {
  Threads threads(pool);
  Basin<T> basin = basin_of(args, limiter, halo, gravity, thin, dt, spacing);
  for (int n = 0; n < 3; ++n) basin.now_bar[n] = argument(args, 22 + n);
  basin.depth_bar = result(results, 0), basin.bed_bar = started_as(args, 25, results, 3);
  for (int axis = 0; axis < 2; ++axis) basin.discharge_bar[axis] = result(results, 1 + axis);
  for (int n = 0; n < 16; ++n) basin.beyond_bar[n / 4][n % 4] = result(results, 4 + n);
  CHOICES((water::pull_advance(threads, basin)));
  return ffi::Error::Success();
}

// θ, base, scale, gains, conductances, maybe heating -> base + scale (∇·(conductance ∇θ) + heating) with
// the gains
template <int NDIM>
ffi::Error conduct_of(Threads& threads, Body<T>& body, ffi::RemainingArgs args,
                      ffi::RemainingRets results) {
  constexpr size_t kHeating = 4 + NDIM;
  for (int axis = 0; axis < NDIM; ++axis) body.conductance[axis] = argument(args, 4 + axis);
  body.gain = argument(args, 3), body.base = argument(args, 1), body.scale = argument(args, 2);
  body.heating = args.size() > kHeating ? argument(args, kHeating) : nullptr;
  body.scaled = args.get<ffi::AnyBuffer>(2).value().dimensions().size() > 0;
  CHOICES((conduct<NDIM>(threads, body, argument(args, 0), result(results, 0))));
  return ffi::Error::Success();
}

// θ, its cotangent after a step, scale, cotangents of the conductances so far -> these with the step's
template <int NDIM>
ffi::Error correlate_of(Threads& threads, Body<T>& body, ffi::RemainingArgs args,
                        ffi::RemainingRets results) {
  for (int axis = 0; axis < NDIM; ++axis) body.total[axis] = started_as(args, 3 + axis, results, axis);
  const T *theta = argument(args, 0), *bar = argument(args, 1), *scale = argument(args, 2);
  CHOICES((correlate<NDIM>(threads, body, theta, bar, *scale)));
  return ffi::Error::Success();
}

#define HEAT_HANDLER(NAME)                                                               \
  ffi::Error NAME##_impl(ffi::ThreadPool pool, ffi::RemainingArgs args,                  \
                         ffi::RemainingRets results) {                                   \
    Threads threads(pool);                                                               \
    Body<T> body{field_of(args)};                                                        \
    const auto shape = args.get<ffi::AnyBuffer>(0).value().dimensions();                 \
    for (int axis = 0; axis < body.ndim; ++axis) body.n[axis] = shape[axis] - 2;         \
    switch (body.ndim) {                                                                 \
      case 1: return NAME##_of<1>(threads, body, args, results);                         \
      case 2: return NAME##_of<2>(threads, body, args, results);                         \
      case 3: return NAME##_of<3>(threads, body, args, results);                         \
    }                                                                                    \
    return ffi::Error::InvalidArgument("no sweep for so many axes");                     \
  }

HEAT_HANDLER(conduct)
HEAT_HANDLER(correlate)

}  // namespace

#define EXPORT(NAME, BOUND) XLA_FFI_DEFINE_HANDLER_SYMBOL(diffsim_##NAME, NAME##_impl, BOUND)
#define SHARED_OUT ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
#define OF_WAVE                      \
  SHARED_OUT.Attr<Integers>("shape") \
      .Attr<Numbers>("weights")      \
      .Attr<Numbers>("root")         \
      .Attr<Numbers>("spacing")      \
      .Attr<Numbers>("profiles")     \
      .Attr<Integers>("layers")      \
      .Attr<Integers>("images")      \
      .Attr<Integers>("walls")
#define OF_POINTS ffi::Ffi::Bind().RemainingArgs().RemainingRets()
#define OF_WATER                      \
  SHARED_OUT.Attr<int64_t>("limiter") \
      .Attr<int64_t>("halo")          \
      .Attr<double>("gravity")        \
      .Attr<double>("thin")           \
      .Attr<double>("dt")             \
      .Attr<Numbers>("spacing")

EXPORT(leap, OF_WAVE);
EXPORT(expose, OF_WAVE);
EXPORT(transpose, OF_WAVE);
EXPORT(adjoin, OF_WAVE);
EXPORT(image, OF_WAVE);
EXPORT(retrace, OF_WAVE);
EXPORT(unfilled, OF_POINTS);
EXPORT(take, OF_POINTS);
EXPORT(put, OF_POINTS);
EXPORT(advance, OF_WATER);
EXPORT(pull_advance, OF_WATER);
EXPORT(conduct, SHARED_OUT);
EXPORT(correlate, SHARED_OUT);
