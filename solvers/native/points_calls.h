// The sweeps of points.h for XLA, and memory.

namespace {

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

}  // namespace

#define OF_POINTS ffi::Ffi::Bind().RemainingArgs().RemainingRets()
EXPORT(unfilled, OF_POINTS);
EXPORT(take, OF_POINTS);
EXPORT(put, OF_POINTS);
