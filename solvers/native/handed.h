// What XLA hands over: arguments, results, and what makes windows and fields of them. This file and those
// that follow it are part of kernels.h.

namespace ffi = xla::ffi;

namespace {

using T = REAL;
using Numbers = ffi::Span<const double>;
using Integers = ffi::Span<const int64_t>;

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

Field field_of(ffi::RemainingArgs& args) {
  const auto shape = args.get<ffi::AnyBuffer>(0).value().dimensions();
  Field field{static_cast<int>(shape.size()), {}};
  for (int64_t axis = field.ndim - 1, stride = 1; axis >= 0; stride *= shape[axis--]) {
    field.stride[axis] = stride;
  }
  return field;
}

}  // namespace

#define EXPORT(NAME, BOUND) XLA_FFI_DEFINE_HANDLER_SYMBOL(diffsim_##NAME, NAME##_impl, BOUND)
#define SHARED_OUT ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets()
