"""Is the derivative of code outside JAX its derivative? Asked once, before it is used.

``⟨J v, w⟩ = ⟨v, Jᵀ w⟩`` for random ``v`` and ``w``, one array of the arguments at a time, so that a
small one is not lost beside a large one. Both sides are sums of products with random signs, about
as large as the root of the sum of their squares: mismatches are relative to that. What passes is
the square root of the round-off unit ``ε``: half of the digits may go in an ill-conditioned or
iterative solve, and a wrong term is larger.

Where ``J v`` comes from fourth-order differences over ``h = ε^⅓``, their round-off ``ε |y| / h``
passes too: an argument that moves the results by less than that is seen by a ``jvp`` only.
"""

import jax.numpy as jnp
import numpy as np

from diffsim.adjoint.steps import Leaves
from diffsim.external.code import Code, as_jax_gives

SEED = 0


def check(code: Code, args: Leaves, batched: bool):
    """``ValueError`` if a derivative does not fit the function, or a batch not its members."""
    moved, seen = code.args.split, code.results.split
    types = [*moved.of(code.args.types), *seen.of(code.results.types)]
    epsilon = max((float(jnp.finfo(t.dtype).eps) for t in types), default=0.0)
    random = np.random.default_rng(SEED)
    results = seen.of(code.forward(*args))
    w = as_jax_gives([_normal(random, y, 1 / _scale(y)) for y in results])
    v = as_jax_gives([_normal(random, x, _scale(x)) for x in moved.of(args)])
    h, passing = epsilon ** (1 / 3), np.sqrt(epsilon)
    if batched:
        _check_batch(code, args, v, w, h, passing)
    noise = 10 * epsilon / h * np.linalg.norm(_products(results, w)) if h else 0.0
    bars = code.vjp(*args, *w)
    for i, path in enumerate(moved.of(code.args.paths())):
        alone = as_jax_gives([x if i == j else np.zeros_like(x) for j, x in enumerate(v)])
        transposed = _products([v[i]], [bars[i]])
        pushed = _products(_differences(code, args, alone, h), w)
        _compare(path, "differences of forward", pushed, transposed, passing, noise)
        if code.of_jvp:
            pushed = _products(code.jvp(*args, *alone), w)
            _compare(path, "jvp", pushed, transposed, passing, 0.0)


def _compare(path, way, pushed, transposed, passing, noise):
    """The two sums of products."""
    size = np.hypot(np.linalg.norm(pushed), np.linalg.norm(transposed))
    gap = abs(np.sum(pushed) - np.sum(transposed))
    if not gap <= passing * size + noise:  # NaN does not pass
        raise ValueError(
            f"{path}: vjp is not the transpose of {way}: ⟨J v, w⟩ = {np.sum(pushed):.6g}, "
            f"⟨v, Jᵀ w⟩ = {np.sum(transposed):.6g}, mismatch {gap / size:.1e} of their size where "
            f"{passing + noise / size:.1e} passes; correct one of them, or give an example at "
            "which forward is smooth"
        )


def _check_batch(code, args, v, w, h, passing):
    """A batch of two must give what its members give alone."""
    other = _moved(code, args, v, h)
    calls = {"forward": (code.forward, []), "vjp": (code.vjp, w)}
    if code.of_jvp:
        calls["jvp"] = code.jvp, v
    for name, (function, more) in calls.items():
        members = [[*args, *more], [*other, *more]]
        both = function(*as_jax_gives([np.stack(pair) for pair in zip(*members, strict=True)]))
        for k, member in enumerate(members):
            for got, alone in zip(both, function(*member), strict=True):
                gap = np.max(np.abs(_wide(got[k]) - _wide(alone)), initial=0) / _scale(alone)
                if not gap <= passing:
                    raise ValueError(
                        f"{code.name}: {name} of a batch differs from that of member {k} alone by "
                        f"{gap:.1e} where {passing:.1e} passes: treat the first axis of all arrays "
                        "as members, or leave out batched=True"
                    )


def _moved(code, args, v, h) -> Leaves:
    split = code.args.split
    smooth = [_wide(x) + h * _wide(d) for x, d in zip(split.of(args), v, strict=True)]
    typed = [x.astype(d.dtype) for x, d in zip(smooth, v, strict=True)]
    return as_jax_gives(split.join(typed, split.rest(args)))


def _differences(code, args, v, h) -> Leaves:
    """``J v`` to fourth order in ``h``."""

    def at(h):
        return [_wide(y) for y in code.results.split.of(code.forward(*_moved(code, args, v, h)))]

    nodes = zip(at(h), at(-h), at(2 * h), at(-2 * h), strict=True)
    return [(8 * (a - b) - (c - d)) / (12 * h) for a, b, c, d in nodes]


def _normal(random, like, scale):
    """Normal numbers, complex where the array is."""
    drawn = random.standard_normal((2, *np.shape(like)))
    drawn = drawn[0] + 1j * drawn[1] if np.iscomplexobj(like) else drawn[0]
    return (scale * drawn).astype(like.dtype)


def _scale(array) -> float:
    """The largest magnitude, 1 if that is 0."""
    return float(np.max(np.abs(_wide(array)), initial=0)) or 1.0


def _products(one, other):
    """All ``Re a b``, the terms of JAX's product of arrays."""
    pairs = zip(one, other, strict=True)
    return np.concatenate([np.real(_wide(a) * _wide(b)).ravel() for a, b in pairs])


def _wide(array):
    return np.asarray(array).astype(np.complex128 if np.iscomplexobj(array) else np.float64)
