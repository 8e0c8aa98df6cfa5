// The sweeps of water.h for XLA.

namespace {

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

}  // namespace

#define OF_WATER                      \
  SHARED_OUT.Attr<int64_t>("limiter") \
      .Attr<int64_t>("halo")          \
      .Attr<double>("gravity")        \
      .Attr<double>("thin")           \
      .Attr<double>("dt")             \
      .Attr<Numbers>("spacing")
EXPORT(advance, OF_WATER);
EXPORT(pull_advance, OF_WATER);
