// What flows between the cells of a body that conducts heat, and what its conductances feel of it.
//
// The arithmetic of solvers/conduction.py, to which a test holds it; read it first. No face of a cell in
// the halo conducts: so all rows are one line, in which the neighbours along any axis lie so far ahead
// and behind. This file is included as wave.h is.

// now = base + scale (∇·(conductance ∇θ) + heating) in a stretch of the line
template <int NDIM, bool SCALED, bool HEATED, typename T>
ALONE void flow(const Body<T>& body, const T* theta, int64_t first, int64_t end, T* __restrict now) {
  const T *base = body.base, *scale = body.scale, *heating = body.heating, one = *scale;
  along<T>(end - first, [&](const auto& values, int64_t i) {
    i += first;
    const Vector<T> here = values(theta, i);
    Vector<T> rate = {};
#pragma GCC unroll 3
    for (int axis = 0; axis < NDIM; ++axis) {
      const int64_t far = body.stride[axis];
      const T* conductance = body.conductance[axis];
      rate += values(conductance, i + far) * (values(theta, i + far) - here);
      rate -= values(conductance, i) * (here - values(theta, i - far));
    }
    if (HEATED) rate += values(heating, i);
    const Vector<T> gain = SCALED ? values(scale, i) * rate : one * rate;
    values.put(now, i, values(base, i) + gain);
  });
}

// What comes in through the grid's faces, to the cells beside them, in rows from `first` to `end`.
template <int NDIM, typename T>
void let_in(const Body<T>& body, int64_t first, int64_t end, T* now) {
  const T* gains = body.gain;
  for (int face = 0; face < 2 * NDIM; ++face) {
    const int axis = face / 2;
    int64_t from[kAxes] = {}, to[kAxes] = {1, 1, 1}, far[kAxes] = {};
    for (int a = 0; a < NDIM; ++a) {
      far[a] = body.stride[a];
      from[a] = a == axis && face % 2 != 0 ? body.n[a] : 1;
      to[a] = a == axis ? from[a] + 1 : body.n[a] + 1;
    }
    const int64_t beside = to[1] - from[1], deep = to[2] - from[2];
    for (int64_t i = std::max(first, from[0]); i < std::min(end, to[0]); ++i) {
      const T* gain = gains + (i - from[0]) * beside * deep;
      for (int64_t j = from[1]; j < to[1]; ++j) {
        T* row = now + i * far[0] + j * far[1];
        for (int64_t k = from[2]; k < to[2]; ++k) row[k * far[2]] += *gain++;
      }
    }
    gains += (to[0] - from[0]) * beside * deep;
  }
}

template <int NDIM, typename T>
void conduct(Threads& threads, const Body<T>& body, const T* theta, T* now) {
  const int64_t row = body.stride[0], rows = body.n[0] + 2;
  const auto unheated = body.scaled ? flow<NDIM, true, false, T> : flow<NDIM, false, false, T>;
  const auto heated = body.scaled ? flow<NDIM, true, true, T> : flow<NDIM, false, true, T>;
  threads.share(rows, std::max<int64_t>(1, 8192 / row), [&](int64_t first, int64_t end) {
    const int64_t begin = std::max<int64_t>(first, 1) * row, stop = std::min(end, rows - 1) * row;
    if (first == 0) std::copy(body.base, body.base + row, now);
    (body.heating ? heated : unheated)(body, theta, begin, stop, now);
    if (end == rows) std::copy(body.base + stop, body.base + stop + row, now + stop);
    let_in<NDIM>(body, first, end, now);
  });
}

// total -= scale (jump of the cotangent) (jump of θ), across the faces before the cells
template <int NDIM, typename T>
void correlate(Threads& threads, const Body<T>& body, const T* theta, const T* bar, T scale) {
  const int64_t row = body.stride[0], rows = body.n[0] + 2;
  threads.share(rows - 1, std::max<int64_t>(1, 8192 / row), [&](int64_t first, int64_t end) {
    const int64_t begin = (first + 1) * row;
    along<T>((end - first) * row, [&](const auto& values, int64_t i) {
      i += begin;
      const Vector<T> here = values(theta, i), weighted = scale * values(bar, i);
#pragma GCC unroll 3
      for (int axis = 0; axis < NDIM; ++axis) {
        const int64_t before = i - body.stride[axis];
        T* total = body.total[axis];
        const Vector<T> jump = weighted - scale * values(bar, before);
        values.put(total, i, values(total, i) - jump * (here - values(theta, before)));
      }
    });
  });
}
