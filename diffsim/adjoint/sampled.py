"""Image every k-th step only, as an option: an approximation whose error is known beforehand.

Where a step is linear in state and forcing, the adjoint field needs no state: only the medium's
cotangent does, the image ``κ̄ = Σ_n p̄'_n ∇²p_n``, a sum over time of a product of two fields of
limited band. So is the product: with nothing above ``f`` in either field it has nothing above
``2 f``, and every k-th term, times k, gives the same sum if ``1/(k dt) > 2 f`` (Sun & Fu 2013,
Computers & Geosciences 56).
"""

from functools import partial
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Gt
from jax import lax

from diffsim.adjoint import growth
from diffsim.adjoint.loop import DifferentiableLoop
from diffsim.adjoint.scan import Adjoint
from diffsim.adjoint.slices import in_turn, put, take
from diffsim.adjoint.smooth import SmoothStep
from diffsim.adjoint.steps import Leaves, Split, Step
from diffsim.adjoint.stretches import piling, stretches
from diffsim.adjoint.trail import run
from diffsim.linear import inexact, varying
from diffsim.solver import ImagingSolver, Record, Remark, Solver, frozen

LOUD = 1e-3  # of a spectrum's peak: what is below adds its square and some more to an image
HEARD = 1e-4  # the same for estimates; below is what cutting a wavelet off leaves


@frozen
class Sampled(Adjoint):
    """Transpose every step, but image one in ``every``, which counts for all of them.

    With ``every=1`` it is exact, and stores what images need of each step, as wave codes do: at
    constant density one field, where `StoreAll` stores that and its layers' memory, and takes
    longer.
    Otherwise it is the one strategy that is not exact, and no other stands for it: gradients with
    respect to the medium (a wave's speed and density) are approximate, those with respect to
    sources, receivers, time functions and initial fields are not. Runs on an `ImagingSolver`,
    observed at each step.

    Measured, of the whole image of the speed, for a Ricker wavelet of 15 Hz and steps of 2 ms,
    where `largest` is 5 and half the squared data are the misfit:

    ========  =====  =====  =====  =====  =====  =====  =====  =====
    every         1      2      4      5      6      7      8     10
    error     1e-15   2e-7   1e-6   3e-6   3e-5   5e-3   0.08   0.95
    ========  =====  =====  =====  =====  =====  =====  =====  =====

    A residual of nearly equal data prefers high frequencies: there it was 6e-5 at 5, 4e-3 at 6. A
    record that ends while waves arrive adds what a sum's ends do, 3e-4 at 5.

    Memory: ``n / every`` exposures, of a wave the curvature of the field, where the density varies
    the field and its layers' memory; of what is observed what its transpose needs: nothing for
    instruments, but the field itself for its energy. One evaluation a step. Forward over reverse
    differentiates the approximation.

    Args:
        every: steps for each that is imaged; those that are left over at the start share an image
    """

    every: Annotated[int, Gt(0)]  # steps

    def loop(self, step, consts, carry, xs, length):
        if not step.blind:
            raise TypeError(
                f"{self!r} cannot run this step: nothing says how to transpose it without its "
                "state. Give simulate an ImagingSolver, or use Revolve(checkpoints=…)"
            )
        forward, backward = partial(_forward, self, length), partial(_backward, self, length)
        loop = DifferentiableLoop(step, partial(run, length), forward, backward, length)
        return loop(consts, carry, xs)

    def states(self, length):
        return -(-length // self.every)

    def evaluations(self, length):
        return length

    def size(self, length):
        """Steps in a stretch."""
        return min(self.every, length)

    def remarks(self, solver: Solver, forcing: Record) -> list[Remark]:
        """What is wrong or doubtful about sampling such a run; ``forcing`` is concrete."""
        if not isinstance(solver, ImagingSolver):
            return [Remark("adjoint", self.refusal(solver))]
        if not _driven(forcing):
            text = "nothing but an initial field drives the run: compare the gradient with every: 1"
            return [Remark("adjoint.every", text, fatal=False)]
        if self.every <= (most := largest(solver, forcing)):
            return []
        text = (
            f"every={self.every} images at {1 / (self.every * solver.dt):.4g} Hz, not above twice "
            f"the highest frequency of the forcing, {_highest(solver, forcing):.4g} Hz: the image "
            f"is aliased, by about {self.aliased(solver, forcing):.1g} of it; give at most {most}"
        )
        return [Remark("adjoint.every", text)]

    def refusal(self, solver: Solver) -> str:
        """Why a solver that is no `ImagingSolver` cannot be sampled."""
        name = type(solver).__name__
        return (
            f"{self!r} cannot run {name}: a step of {name} has no transpose without its state; "
            "use Revolve(checkpoints=…)"
        )

    def aliased(self, solver: ImagingSolver, forcing: Record) -> float:
        """How much of the image is an alias: its order, for the exact one asks for all the images.

        For fields with the forcing's spectrum A, and ∇² of one of them, the product's is at most
        ``C(f) = ∫ f' A(f') (f - f') A(f - f') df'``, and sampling adds those of the multiples of
        its frequency to the sum, C(0). Nan if nothing is known of what drives the run.
        """
        if not _driven(forcing):
            return float("nan")
        half, steps = solver.spectrum(forcing), _steps(forcing)
        half = np.where(half > HEARD * half.max(), half, 0)
        number = np.abs(np.round(np.fft.fftfreq(steps) * steps)).astype(int)
        product = np.fft.ifft(np.fft.fft(number * half[number]) ** 2).real
        folded = np.round(np.arange(1, self.every) * steps / self.every).astype(int)
        return max(float(product[folded].sum() / product[0]), 0.0) if product[0] > 0 else 0.0


def largest(solver: ImagingSolver, forcing: Record) -> int:
    """The largest ``every`` whose image is not aliased: ``1/(every dt)`` is above twice the highest
    frequency that drives the state with `LOUD` of the spectrum's peak.

    That is for data of the forcing's band: a residual that holds higher frequencies (noise, another
    wavelet) wants more.
    """
    highest = _highest(solver, forcing)
    steps = _steps(forcing)
    most = steps if highest == 0 else int(np.ceil(1 / (2 * highest * solver.dt) - 1e-9)) - 1
    return max(most, 1)


def _highest(solver, forcing):
    """Hz"""
    spectrum = solver.spectrum(forcing)
    return np.flatnonzero(spectrum > LOUD * spectrum.max())[-1] / (_steps(forcing) * solver.dt)


def _steps(forcing):
    return len(jax.tree.leaves(forcing)[0])


def _driven(forcing):
    return any(np.any(series) for series in jax.tree.leaves(forcing))


def _forward(adjoint, length, step, consts, carry, xs):
    """All steps once; keeps an exposure of each stretch, and what transposes of `observe` need."""
    if not step.blind:
        raise NotImplementedError(
            f"{adjoint!r} has no reverse over forward mode: take forward over reverse, "
            "jax.jvp(jax.grad(f), …), or Revolve(checkpoints=…)"
        )
    sight = _Sight.of(step, consts, carry, xs, step.scaling(consts).scale())

    def seeing(move, carry, x):
        new, y, *exposures = move(carry, x)
        return new, [y, sight.kept(consts, new, x)], *exposures

    def stretch(size, walk, inputs):
        (loop, exposures), (first, place) = walk, inputs
        places, middle = first + jnp.arange(size), size // 2
        exposing = partial(seeing, lambda *args: blind.expose(*args, exposures, place))
        loop, _ = lax.scan(one, loop, places[:middle], unroll=step.unroll)
        loop, exposures = one(loop, places[middle], exposing)
        loop, _ = lax.scan(one, loop, places[middle + 1 :], unroll=step.unroll)
        return (loop, exposures), None

    blind = step.blind(consts)
    one, loop = piling(partial(seeing, partial(step, consts)), carry, xs, length)
    walk = loop, blind.exposures(carry, adjoint.states(length))
    for size, *inputs in _parts(adjoint, length):
        walk, _ = lax.scan(partial(stretch, size), walk, inputs, unroll=_unroll(step, size))
    (carry, (ys, sights), _), exposures = walk
    return (carry, ys), (exposures, sights, Split.by_type(carry).rest(carry))


def _unroll(step, size):
    """Stretches in a loop's body: single steps swap two levels in time there as others do."""
    return step.unroll if size == 1 else 1


def _parts(adjoint, length):
    """Steps in a stretch, where such begin, and the places of their exposures."""
    place = 0
    for size, firsts in stretches(length, adjoint.size(length)):
        yield size, jnp.array(firsts), place + jnp.arange(len(firsts))
        place += len(firsts)


def _backward(adjoint, length, smooth: SmoothStep, consts, xs, kept, carry_bar, ys_bar):
    """Transpose step by step; in the middle of each stretch, where a sum's sample errs least at
    its ends, with the image of all of it."""
    exposures, sights, rest = kept
    silent = smooth.carry.join(*(map(jnp.zeros_like, leaves) for leaves in (carry_bar, rest)))
    scale, carry_bar = smooth.scaled(consts, carry_bar)
    sight = _Sight.of(smooth.step, consts, silent, xs, scale)
    count = sum(smooth.xs.smooth)

    def one(walk, i, *image):
        consts_bar, carry_bar, xs_bar = walk
        x, y_bar, kept = take(xs, i), take(ys_bar, i), take(sights, i)
        seen_bar, carry_bar = sight.pull(smooth, consts, silent, x, kept, carry_bar, y_bar)
        consts_bar = _sum(consts_bar, seen_bar)
        pull = _imaged if image else _blind
        consts_bar, carry_bar, x_bar = pull(smooth, consts, x, consts_bar, carry_bar, scale, *image)
        return (consts_bar, carry_bar, put(xs_bar, x_bar, i)), None

    def stretch(size, walk, inputs):
        first, place = inputs
        *walk, noted = walk
        places, middle = first + jnp.arange(size), size // 2
        blindly = partial(lax.scan, one, reverse=True, unroll=smooth.step.unroll)
        walk, _ = blindly(tuple(walk), places[middle + 1 :])
        (consts_bar, *walk), _ = one(walk, places[middle], exposures, place, size)
        walk, _ = blindly((*in_turn(consts_bar, walk[0]), walk[1]), places[:middle])
        consts_bar, carry_bar, xs_bar = walk
        noted = [growth.note(n, carry_bar, first, size, length) for n in noted]
        noted, carry_bar = in_turn(noted, carry_bar)
        return (consts_bar, carry_bar, xs_bar, noted), None

    consts_bar, xs_bar = smooth.zeros(consts, xs)
    walk = consts_bar, carry_bar, xs_bar[:count], xs_bar[count:]
    for size, *inputs in reversed(list(_parts(adjoint, length))):
        unroll = _unroll(smooth.step, size)
        walk, _ = lax.scan(partial(stretch, size), walk, inputs, reverse=True, unroll=unroll)
    consts_bar, carry_bar, xs_bar, noted = walk
    return *smooth.unscaled(consts, scale, consts_bar, carry_bar), [*xs_bar, *noted]


def _blind(smooth, consts, x, consts_bar, carry_bar, scale):
    """A step's transpose, its cotangents of consts added to those so far, but for images."""
    given = x, carry_bar, scale
    found, carry_bar, x_bar = smooth.step.blind(consts).transpose(*given)
    more = smooth.consts.of([found.get(i) for i in range(len(consts))])
    return _sum(consts_bar, more), carry_bar, smooth.xs.of(x_bar)


def _imaged(smooth, consts, x, consts_bar, carry_bar, scale, exposures, place, count):
    """The same, with ``count`` times the images that the exposure at a place gives."""
    blind, given = smooth.step.blind(consts), (x, carry_bar, scale)
    exact = jax.eval_shape(blind.transpose, *given)[0]
    total = smooth.consts.spread(consts_bar)
    if all(exact[i] is not None for i, bar in enumerate(total) if bar is not None and i in exact):
        return _blind(smooth, consts, x, consts_bar, carry_bar, scale)  # nobody wants an image
    found, carry_bar, x_bar = blind.image(*given, exposures, place, count, total)
    images = {i for i, bar in exact.items() if bar is None}
    total = [found[i] if i in images else bar for i, bar in enumerate(total)]
    more = [None if i in images else found.get(i) for i in range(len(consts))]
    return _sum(*map(smooth.consts.of, (total, more))), carry_bar, smooth.xs.of(x_bar)


def _sum(*lists):
    return [sum(bar for bar in bars if bar is not None) for bars in zip(*lists, strict=True)]


class _Sight(NamedTuple):
    """The transpose of what is seen of each carry, and what of the carry it needs.

    What instruments see is most often linear: then they need nothing, and a moving one the few
    nodes around it. The energy of a field needs the field.
    """

    step: Step
    varying: Split  # of the leaves of the transposes
    scale: Leaves  # of the cotangents of carries

    @classmethod
    def of(cls, step, consts, carry, xs, scale):
        """For one problem; nothing is computed."""
        shapes = jax.ShapeDtypeStruct
        x = [shapes(leaf.shape[1:], leaf.dtype) for leaf in xs]
        carries = [shapes((1, *leaf.shape), leaf.dtype) for leaf in carry]
        seen = cls(step, Split(()), scale)
        leaves = lambda *args: jax.tree.leaves(seen.of_carry(*args))  # noqa: E731
        found = varying(jax.vmap, leaves, (None, 0, None), (consts, carries, x))
        return seen._replace(varying=Split(tuple(axis is not None for axis in found)))

    def of_carry(self, consts, carry, x):
        """The transposes at a carry."""
        return _transposes(self.step, consts, carry, x, self.scale)

    def kept(self, consts, carry, x):
        """What is to be kept of a carry."""
        return self.varying.of(jax.tree.leaves(self.of_carry(consts, carry, x)))

    def pull(self, smooth, consts, silent, x, kept, carry_bar, y_bar):
        """The cotangents of the differentiated consts, and the carry's with those seen added."""
        leaves, tree = jax.tree.flatten(self.of_carry(consts, silent, x))
        leaves = self.varying.join(kept, self.varying.rest(leaves))
        consts_bar = [None] * sum(smooth.consts.smooth)
        seen = zip(jax.tree.unflatten(tree, leaves), smooth.ys.spread(y_bar), strict=True)
        for transpose, bar in seen:
            if bar is not None:
                more, carry_bar = transpose((carry_bar, bar))
                more = smooth.consts.of(Split.by_type(consts).spread(more))
                consts_bar = _sum(consts_bar, more)
        return consts_bar, carry_bar


def _transposes(step, consts, carry, x, scale):
    """For each y that has a derivative what ``jax.vjp`` of it and the carry handed on gives; by
    themselves, to be left out by themselves."""
    splits = Split.by_type(consts), Split.by_type(carry)
    rests = [split.rest(part) for split, part in zip(splits, (consts, carry), strict=True)]

    def seen(i, *moved):
        joined = (s.join(m, rest) for s, m, rest in zip(splits, moved, rests, strict=True))
        carry, ys = step.look(*joined, x, scale)
        return splits[1].of(carry), ys[i]

    moved = [split.of(part) for split, part in zip(splits, (consts, carry), strict=True)]
    ys = jax.eval_shape(step.look, consts, carry, x, scale)[1]
    rows = enumerate(map(inexact, ys))
    return [jax.vjp(partial(seen, i), *moved)[1] if yes else None for i, yes in rows]
