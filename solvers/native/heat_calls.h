// The sweeps of heat.h for XLA.

namespace {

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

EXPORT(conduct, SHARED_OUT);
EXPORT(correlate, SHARED_OUT);
