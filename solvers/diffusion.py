"""Steps in time for diffusion: explicit, stabilised explicit and implicit.

For ``c ∂T/∂t = A θ(T) + q`` with a symmetric operator A that lets fields decay, and an increasing
function θ: temperature and heat potential, head and Kirchhoff's potential, concentration itself.
"""

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from jax import lax

from diffsim.solver import frozen
from solvers import multigrid

INEXACT = 1e-4  # of a linear system within Newton's iteration, relative: it corrects itself


class Problem(NamedTuple):
    """What a scheme sees of one step."""

    potential: Callable  # T -> θ
    inverse: Callable  # θ -> T
    pace: jax.Array  # dt / c, [*field] or one number
    increment: Callable  # θ, base (None: θ), pace, factor -> base + factor pace (A θ + q)
    operator: Callable  # -> about -A, a `multigrid.Operator`


@frozen
class Explicit:
    """Forward Euler: first order in time, steps up to ``h² c / (2 k axes)``."""

    @property
    def reach(self) -> float:
        """The longest stable step, in forward Euler's."""
        return 1.0

    def advance(self, problem, field):
        one, theta = jnp.ones((), field.dtype), problem.potential(field)
        # of one array as both, the transpose would be two sweeps and a sum
        return problem.increment(theta, None if theta is field else field, problem.pace, one)


@frozen
class RKL2:
    """Runge-Kutta-Legendre, second order in time: stages that together reach far.

    ``s`` evaluations stand for ``(s² + s - 2) / 4`` steps of forward Euler (Meyer, Balsara & Aslam
    2014, J. Comput. Phys. 257, eq. 16-18).

    Args:
        stages: odd; 9 reach 22 explicit steps, 19 reach 94
    """

    stages: Annotated[int, Ge(3)]

    def __post_init__(self):
        if self.stages % 2 == 0:
            raise ValueError(
                f"{self.stages} stages hardly damp the shortest waves: give an odd number"
            )

    @property
    def reach(self) -> float:
        """The longest stable step, in forward Euler's."""
        return (self.stages**2 + self.stages - 2) / 4

    def advance(self, problem, field):
        potential, _, pace, increment, _ = problem
        first, table = self._weights(field.dtype)
        one = jnp.ones((), field.dtype)
        change = increment(potential(field), jnp.zeros_like(field), pace, one)

        def stage(levels, weights):
            older, old = levels
            mu, nu, mu_rate, start_rate = weights
            base = mu * old + nu * older + (1 - mu - nu) * field + start_rate * change
            return (old, increment(potential(old), base, pace, mu_rate)), None

        # two stages at once, or the older level would be copied to its place
        return lax.scan(stage, (field, field + first * change), table, unroll=2)[0][1]

    def _weights(self, dtype):
        """μ̃ of the first stage; μ, ν, μ̃, γ̃ of the others."""
        s = self.stages
        b = [1 / 3, 1 / 3, *((j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1))]
        w = 4 / (s * s + s - 2)
        rows = []
        for j in range(2, s + 1):
            mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
            rows.append((mu, nu, mu * w, -(1 - b[j - 1]) * mu * w))
        return b[1] * w, tuple(jnp.asarray(column, dtype) for column in zip(*rows, strict=True))


@frozen
class Theta:
    """Implicit: ``theta`` of the rate at the step's end, the rest at its start; any step is stable.

    1 is backward Euler: first order in time, keeps the maximum principle. 0.5 is Crank-Nicolson:
    second order, but rings after jumps. Newton's iteration in θ, where the Jacobian is symmetric;
    conjugate gradients with a multigrid cycle for its systems, and for those of the tangent and the
    adjoint, which the implicit function theorem gives.

    Args:
        theta: from 0.5 to 1
        tolerance: of residuals, relative; 32 units of round-off if that is more
    """

    theta: Annotated[float, Ge(0.5), Le(1)] = 0.5
    tolerance: Annotated[float, Gt(0)] = 1e-12

    @property
    def reach(self) -> float:
        """The longest stable step, in forward Euler's."""
        return math.inf

    def advance(self, problem, field):
        potential, inverse, pace, increment, operator = problem
        weight = jnp.asarray(self.theta, pace.dtype)
        start = potential(field)
        known = increment(start, field, pace, 1 - weight)

        def residual(theta):
            one = jnp.ones_like(pace)
            return increment(theta, (inverse(theta) - known) / pace, one, -weight)

        _, slope = jax.jvp(inverse, (start,), (jnp.ones_like(start),))
        solve = self.solve(_scaled(operator(), weight, slope / pace))
        return inverse(lax.custom_root(residual, start, solve.root, solve.tangent))

    def solve(self, jacobian):
        """The solves of one step, whose Jacobian is about this operator."""
        jacobian = jax.tree.map(lax.stop_gradient, jacobian)
        tolerance = max(self.tolerance, 32 * float(jnp.finfo(jacobian.own.dtype).eps))
        size = jacobian.own + multigrid.coupling(jacobian)
        return Solve(size, multigrid.cycle(jacobian), tolerance)


def _scaled(operator, weight, own):
    """``own + weight operator``."""
    own = own + weight * operator.own
    others = jax.tree.map(lambda leaf: weight * leaf, tuple(operator[1:]))
    return multigrid.Operator(own, *others)


class Solve(NamedTuple):
    """Solves with a symmetric positive Jacobian, as `lax.custom_root` asks for them."""

    size: jax.Array  # of the Jacobian's diagonal
    precondition: Callable
    tolerance: float

    def root(self, residual, start):
        """Newton's iteration, until the residual is small beside the terms that cancel in it.

        In each cell for itself: beside cells of a great capacity no others would count in a norm.
        """

        def go_on(loop):
            n, theta, defect = loop
            allowed = self.tolerance * jnp.max(jnp.abs(theta))
            return (jnp.max(jnp.abs(defect / self.size)) > allowed) & (n < 20)

        def improve(loop):
            n, theta, defect = loop
            _, jacobian = jax.linearize(residual, theta)
            theta = theta - self._cg(jacobian, defect, tol=INEXACT)
            return n + 1, theta, residual(theta)

        n, theta, _ = lax.while_loop(go_on, improve, (0, start, residual(start)))
        return jnp.where(n < 20, theta, jnp.nan)  # a step that failed must not pass for one

    def tangent(self, jacobian, right):
        """The Jacobian's inverse, which is its own transpose."""

        def solve(matvec, right):
            return self._cg(matvec, right, tol=self.tolerance)

        return lax.custom_linear_solve(jacobian, right, solve, symmetric=True)

    def _cg(self, matvec, right, **until):
        return jax.scipy.sparse.linalg.cg(matvec, right, M=self.precondition, **until)[0]


Scheme = Explicit | RKL2 | Theta
