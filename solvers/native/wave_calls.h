// The sweeps of wave.h for XLA: what it hands over, made into a problem.

namespace {

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

// The layers' memory, or its cotangents: arguments from one number on, over which the results come.
void remember(Problem& problem, T* Layer<T>::*psi, T* Layer<T>::*zeta, ffi::RemainingArgs& args,
              size_t& from, ffi::RemainingRets& results, size_t& to) {
  for (auto& layer : problem.layers) {
    layer.*psi = started_as(args, from++, results, to++);
    layer.*zeta = started_as(args, from++, results, to++);
  }
}

// κ, p, p°, sources' starts, weights and values, ψ, ζ, … -> p', ψ', ζ', …
template <int NDIM, int HALF>
ffi::Error leap_of(Threads& threads, Problem& problem, ffi::RemainingArgs args,
                   ffi::RemainingRets results) {
  T* other = started_as(args, 2, results, 0);
  size_t from = 6, to = 1;
  remember(problem, &Layer<T>::psi, &Layer<T>::zeta, args, from, results, to);
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
  remember(problem, &Layer<T>::psi, &Layer<T>::zeta, args, from, results, to);
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
  remember(problem, &Layer<T>::psi_bar, &Layer<T>::zeta_bar, args, from, results, to);
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
  remember(problem, &Layer<T>::psi_bar, &Layer<T>::zeta_bar, args, from, results, to);
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
  remember(problem, &Layer<T>::psi_bar, &Layer<T>::zeta_bar, args, from, results, to);
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
  remember(problem, &Layer<T>::psi, &Layer<T>::zeta, args, from, results, to);
  remember(problem, &Layer<T>::psi_bar, &Layer<T>::zeta_bar, args, from, results, to);
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

}  // namespace

#define OF_WAVE                      \
  SHARED_OUT.Attr<Integers>("shape") \
      .Attr<Numbers>("weights")      \
      .Attr<Numbers>("root")         \
      .Attr<Numbers>("spacing")      \
      .Attr<Numbers>("profiles")     \
      .Attr<Integers>("layers")      \
      .Attr<Integers>("images")      \
      .Attr<Integers>("walls")
EXPORT(leap, OF_WAVE);
EXPORT(expose, OF_WAVE);
EXPORT(transpose, OF_WAVE);
EXPORT(adjoin, OF_WAVE);
EXPORT(image, OF_WAVE);
EXPORT(retrace, OF_WAVE);
