"""A leapfrog step at constant density, ``p' = 2 p - p° + κ (∇²p + gains)``, its way back and its
transpose, all with the images of the faces.

Each is plain JAX here and one compiled sweep on a CPU (`solvers.native`). Behind layers
fields are zero for good, and the sweeps leave them alone there; in the halo, where κ is zero, the
scaled adjoint field has no meaning.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from solvers import acoustics, layers, native, off_grid, stencil
from solvers.acoustics import Shot
from solvers.faces import Frame


def advance(frame: Frame, dt: float, kappa, p, previous, memory, shot: Shot | None):
    """The next field, and the layers' memory."""
    return _twin(_advance, _advance_compiled, frame, dt)(kappa, p, previous, memory, shot)


def exposures(kappa, count: int):
    """Room for so many curvatures of fields, whatever is in it."""

    def unfilled(like):
        room = jax.ShapeDtypeStruct((count, *like.shape), like.dtype)
        return native.call("unfilled", [room], {}, [])[0]

    return native.twin(lambda like: jnp.zeros((count, *like.shape), like.dtype), unfilled)(kappa)


def expose(frame: Frame, dt: float, kappa, p, previous, memory, shot: Shot | None, exposed, place):
    """`advance`, and the curvature ``C = ∇²p + gains`` at its place among those of other steps.

    Returns:
        the next field, the layers' memory, and all the curvatures.
    """
    sweeps = _twin(_expose, _expose_compiled, frame, dt)
    return sweeps(kappa, p, previous, memory, shot, exposed, place)


def transpose(frame: Frame, dt: float, kappa, p, memory, points, new_bar, p_bar, memory_bar):
    """The cotangents of `advance`'s arguments from those of what it returns.

    The Laplacian is its own transpose (on rigid walls if their nodes count half), so the adjoint
    field ``κ p̄'`` obeys the forward recursion. κ is zero in the halo for good and has no cotangent
    there.

    Args:
        points: the sources', or None
        p_bar: what the field's cotangent is without this step

    Returns:
        the cotangents of κ, p, p° and the memory, and what the sources' windows see of the adjoint
        field, ``[source, *window]``.
    """
    sweeps = _twin(_transpose, _transpose_compiled, frame, dt)
    return sweeps(kappa, p, memory, points, new_bar, p_bar, memory_bar)


def adjoin(frame: Frame, dt: float, kappa, points, new_w, w, memory_bar):
    """`transpose` for all but κ: the adjoint field alone, which follows without the field itself.

    It is scaled, ``w = κ p̄`` with rigid walls' nodes counted twice, and obeys the step's own
    recursion, ``w° = 2 w' - w + κ (∇²w' + gains)``.

    Args:
        new_w, w: the cotangents of the new field and, negative, of p, scaled
        memory_bar: with rigid walls' nodes twice

    Returns:
        the cotangents of p and, negative, p°, of the memory, and what the sources' windows see, all
        of it scaled.
    """
    sweeps = _twin(_adjoin, _adjoin_compiled, frame, dt)
    return sweeps(kappa, points, new_w, w, memory_bar)


def image(
    frame: Frame, dt: float, kappa, points, new_w, w, memory_bar, exposed, place, count, total
):
    """`adjoin`, and ``Σ w' C``, which is κ̄ scaled: ``total`` with ``count`` times the product of
    this step, whose curvature `expose` has put at ``place``."""
    sweeps = _twin(_image, _image_compiled, frame, dt)
    return sweeps(kappa, points, new_w, w, memory_bar, exposed, place, count, total)


def retrace(frame: Frame, dt: float, kappa, p, new, memory, shot, new_w, w, memory_bar, total):
    """The field before ``p`` and the memory of then, from both after the step, and `adjoin`.

    Where the curvature of p is known, both the way back and ``Σ w' ∇²p``, which is κ̄ scaled, follow
    from it: that is added to ``total``.

    Returns:
        the field and the memory before the step, the sum, and what `adjoin` returns.
    """
    sweeps = _twin(_retrace, _retrace_compiled, frame, dt)
    return sweeps(kappa, p, new, memory, shot, new_w, w, memory_bar, total)


def _twin(plain, compiled, frame, dt):
    if frame.grid.ndim > 3:  # no sweep is compiled for so many
        return partial(plain, frame, dt)
    return native.twin(partial(plain, frame, dt), partial(compiled, frame, dt))


# --- in plain JAX


def _advance(frame, dt, kappa, p, previous, memory, shot):
    gains, memory = layers.absorb(frame, dt, p, memory)
    return _leap(frame, kappa, p, previous, gains, shot), memory


def _expose(frame, dt, kappa, p, previous, memory, shot, exposed, place):
    gains, memory = layers.absorb(frame, dt, p, memory)
    curvature = stencil.materialise(stencil.laplacian(p, frame.order, frame.grid.spacing))
    curvature = layers.add(frame, curvature, gains)
    new = stencil.materialise(2 * p - previous + kappa * curvature)
    exposed = jax.lax.dynamic_update_index_in_dim(exposed, curvature, place, 0)
    return acoustics.fed(frame, new, shot), memory, exposed


def _leap(frame, kappa, p, other, gains, shot):
    curvature = stencil.laplacian(p, frame.order, frame.grid.spacing)
    # the other field at its full shape lets XLA write the new field over it
    new = stencil.materialise(2 * p - other + kappa * curvature)
    new = layers.add(frame, new, gains, scale=kappa)
    return acoustics.fed(frame, new, shot)


def _transpose(frame, dt, kappa, p, memory, points, new_bar, p_bar, memory_bar):
    new_bar = frame.unmirror(new_bar)
    gains, _ = layers.absorb(frame, dt, p, memory)
    scaled = stencil.materialise(kappa * new_bar)
    images = frame.mirror(frame.weigh(scaled, 2))
    slabs_bar, memory_bar = layers.absorb_transpose(frame, dt, scaled, memory_bar)
    bend_bar = frame.weigh(stencil.laplacian(images, frame.order, frame.grid.spacing), 0.5)
    p_bar = stencil.materialise(p_bar + 2 * new_bar + bend_bar)
    p_bar = layers.add(frame, p_bar, slabs_bar, inward=frame.halo)
    curvature = stencil.laplacian(p, frame.order, frame.grid.spacing)
    kappa_bar = stencil.materialise(new_bar * curvature)
    kappa_bar = layers.add(frame, kappa_bar, gains, scale=new_bar)
    return kappa_bar, p_bar, -new_bar, memory_bar, _felt(new_bar, points)


def _adjoin(frame, dt, kappa, points, new_w, w, memory_bar):
    new_w = frame.mirror(new_w)
    slabs, memory_bar = layers.absorb_transpose(frame, dt, new_w, memory_bar)
    bend = stencil.laplacian(new_w, frame.order, frame.grid.spacing)
    w = stencil.materialise(2 * new_w - w + kappa * bend)
    w = layers.add(frame, w, slabs, inward=frame.halo, scale=kappa)
    return w, new_w, memory_bar, _felt(new_w, points)


def _image(frame, dt, kappa, points, new_w, w, memory_bar, exposed, place, count, total):
    w, new_w, *rest = _adjoin(frame, dt, kappa, points, new_w, w, memory_bar)
    curvature = jax.lax.dynamic_index_in_dim(exposed, place, keepdims=False)
    return w, new_w, *rest, total + count * new_w * curvature


def _felt(new_bar, points):
    return None if points is None else off_grid.windows(new_bar, points)


def _retrace(frame, dt, kappa, p, new, memory, shot, new_w, w, memory_bar, total):
    gains, memory = layers.unabsorb(frame, dt, p, memory)
    curvature = stencil.laplacian(p, frame.order, frame.grid.spacing)
    curvature = layers.add(frame, stencil.materialise(curvature), gains)
    old = acoustics.fed(frame, stencil.materialise(2 * p - new + kappa * curvature), shot)
    w, new_w, *rest = _adjoin(frame, dt, kappa, shot and shot.points, new_w, w, memory_bar)
    return old, memory, total + new_w * curvature, w, new_w, *rest


# --- as calls of compiled sweeps


def _advance_compiled(frame, dt, kappa, p, previous, memory, shot):
    memory, tree = jax.tree.flatten(memory)
    args = [kappa, p, previous, *_windows(frame, kappa, shot), *memory]
    aliases = {2: 0} | {6 + i: 1 + i for i in range(len(memory))}
    new, *memory = native.call("leap", [previous, *memory], aliases, args, **_told(frame, dt))
    return new, jax.tree.unflatten(tree, memory)


def _expose_compiled(frame, dt, kappa, p, previous, memory, shot, exposed, place):
    memory, tree = jax.tree.flatten(memory)
    place = jnp.asarray(place, jnp.int32)
    args = [kappa, p, previous, *_windows(frame, kappa, shot), exposed, place, *memory]
    aliases = {2: 0, 6: 1} | {8 + i: 2 + i for i in range(len(memory))}
    results = [previous, exposed, *memory]
    new, exposed, *memory = native.call("expose", results, aliases, args, **_told(frame, dt))
    return new, jax.tree.unflatten(tree, memory), exposed


def _retrace_compiled(frame, dt, kappa, p, new, memory, shot, new_w, w, memory_bar, total):
    memories, tree = jax.tree.flatten((memory, memory_bar))
    args = [kappa, p, new, new_w, w, total, *_windows(frame, kappa, shot), *memories]
    weights = args[7]
    results = native.call(
        "retrace",
        [new, new_w, w, total, weights, *memories],
        {2: 0, 3: 1, 4: 2, 5: 3} | {9 + i: 5 + i for i in range(len(memories))},
        args,
        **_told(frame, dt),
    )
    old, new_w, w, total, felt, *memories = results
    memory, memory_bar = jax.tree.unflatten(tree, memories)
    felt = None if shot is None else felt
    return old, memory, total, w, new_w, memory_bar, felt


def _transpose_compiled(frame, dt, kappa, p, memory, points, new_bar, p_bar, memory_bar):
    bars, tree = jax.tree.flatten(memory_bar)
    shot = None if points is None else Shot(points, points.weights)
    start, weights, _ = _windows(frame, kappa, shot)
    args = [kappa, p, new_bar, p_bar, start, weights, *jax.tree.leaves(memory), *bars]
    first, room = len(args) - len(bars), kappa
    results = native.call(
        "transpose",
        [new_bar, p_bar, kappa, room, weights, *bars],
        {2: 0, 3: 1} | {first + i: 5 + i for i in range(len(bars))},
        args,
        **_told(frame, dt),
    )
    previous_bar, p_bar, kappa_bar, _, felt, *bars = results
    felt = None if points is None else felt
    return kappa_bar, p_bar, previous_bar, jax.tree.unflatten(tree, bars), felt


def _adjoin_compiled(frame, dt, kappa, points, new_w, w, memory_bar):
    bars, tree = jax.tree.flatten(memory_bar)
    start, weights, _ = _windows(frame, kappa, points and Shot(points, points.weights))
    args = [kappa, new_w, w, start, weights, *bars]
    results = native.call(
        "adjoin",
        [new_w, w, weights, *bars],
        {1: 0, 2: 1} | {5 + i: 3 + i for i in range(len(bars))},
        args,
        **_told(frame, dt),
    )
    new_w, w, felt, *bars = results
    return w, new_w, jax.tree.unflatten(tree, bars), felt if points else None


def _image_compiled(frame, dt, kappa, points, new_w, w, memory_bar, exposed, place, count, total):
    bars, tree = jax.tree.flatten(memory_bar)
    start, weights, _ = _windows(frame, kappa, points and Shot(points, points.weights))
    place, count = jnp.asarray(place, jnp.int32), jnp.asarray(count, kappa.dtype)
    args = [kappa, new_w, w, start, weights, total, exposed, place, count, *bars]
    results = native.call(
        "image",
        [new_w, w, weights, total, *bars],
        {1: 0, 2: 1, 5: 3} | {9 + i: 4 + i for i in range(len(bars))},
        args,
        **_told(frame, dt),
    )
    new_w, w, felt, total, *bars = results
    return w, new_w, jax.tree.unflatten(tree, bars), felt if points else None, total


def _windows(frame, kappa, shot):
    """Starts, weights and values of the sources; of none if there are none."""
    if shot is None:
        ndim = frame.grid.ndim
        none = [np.zeros(shape, kappa.dtype) for shape in ((0, *(1,) * ndim), (0,))]
        return np.zeros((0, ndim), np.int32), *none
    points, values = shot
    return jnp.asarray(points.start, jnp.int32), points.weights, values


def _told(frame: Frame, dt: float):
    """What a sweep has to know of the grid, as `wave_calls.h` takes it."""
    faces = [(axis, int(low), face.width) for axis, low, face in frame.layers]
    shift = layers.root_shift(frame.order)
    profiles = [row for profile in layers.profiles(frame, dt, shift) for row in profile]
    images = [
        (axis, beyond[axis].start, within[axis].start, sign)
        for axis, beyond, within, sign in frame.images()
    ]
    return {
        "shape": np.asarray(frame.inner, np.int64),
        "weights": np.asarray(stencil.SECOND_DIFFERENCE[frame.order]),
        "root": np.asarray(layers.root_difference(frame.order)),
        "spacing": np.asarray(frame.grid.spacing),
        "profiles": np.concatenate([*profiles, np.zeros(0)]),
        "layers": np.asarray(faces, np.int64).reshape(-1),
        "images": np.asarray(images, np.int64).reshape(-1),
        "walls": np.asarray(list(frame.walls()), np.int64).reshape(-1),
    }
