"""Devito: C written, compiled and loaded at run time from symbolic equations.

The equation is ``m ∂²u/∂t² + η ∂u/∂t - ∇²u = f`` with the squared slowness m and the damping η of
its examples' layer. The history is allocated once and kept between runs.
"""

import numpy as np
from devito import (  # pyright: ignore[reportMissingImports]
    CheckpointOperator,
    ConditionalDimension,
    DevitoCheckpoint,
    Eq,
    Function,
    Grid,
    Inc,
    Operator,
    SparseTimeFunction,
    TimeFunction,
    configuration,
    solve,
)
from pyrevolve import SingleLevelRevolver  # pyright: ignore[reportMissingImports]

VARIANTS = {"store all": 1, "every 4th step": 4, "pyrevolve": None}  # interval of the imaging

configuration["language"] = "openmp"
configuration["log-level"] = "ERROR"


class Model:
    """The medium with its layer, and the source and the receivers in it."""

    def __init__(self, case):
        self.case = case
        shape = tuple(n + 2 * case.width for n in case.shape)
        extent = tuple(case.spacing * (n - 1) for n in shape)
        self.grid = Grid(shape=shape, extent=extent, dtype=np.dtype(case.dtype).type)
        self.inner = tuple(slice(case.width, -case.width) for _ in case.shape)
        self.m = Function(name="m", grid=self.grid)
        self.m.data[:] = 1 / np.pad(case.speed(), case.width, mode="edge") ** 2
        self.damping = Function(name="damping", grid=self.grid)
        self.damping.data[:] = damping(case, shape)
        self.source = self.points("source", case.source()[None])
        self.source.data[:, 0] = case.wavelet()
        self.data = self.points("data", case.places())
        self.residual = self.points("residual", case.places())

    def points(self, name, nodes):
        """Series at nodes."""
        places = (nodes + self.case.width) * self.case.spacing
        return SparseTimeFunction(
            name=name, grid=self.grid, npoint=len(nodes), nt=self.case.steps, coordinates=places
        )

    def field(self, name, **options):
        """A field in time."""
        order = self.case.order
        return TimeFunction(name=name, grid=self.grid, time_order=2, space_order=order, **options)

    def forward(self, u, *more):
        """The operator of a forward run."""
        step = solve(self.m * u.dt2 - u.laplace + self.damping * u.dt, u.forward)
        strength = self.source * self.grid.stepping_dim.spacing**2 / self.m
        sound = self.source.inject(field=u.forward, expr=strength / self.case.spacing**u.grid.dim)
        seen = self.data.interpolate(expr=u)
        subs = self.grid.spacing_map
        return Operator([Eq(u.forward, step), sound, seen, *more], subs=subs, name="Forward")

    def backward(self, v, u, gradient, every):
        """The operator of the adjoint run, which images with ``u`` at every so many steps."""
        step = solve(self.m * v.dt2 - v.laplace + self.damping * v.dt.T, v.backward)
        strength = self.residual * self.grid.stepping_dim.spacing**2 / self.m
        sound = self.residual.inject(field=v.backward, expr=strength)
        image = Inc(gradient, -every * u * v.dt2)
        equations = [Eq(v.backward, step), sound, image]
        return Operator(equations, subs=self.grid.spacing_map, name="Backward")

    def by_speed(self, gradient):
        """The gradient by the speed within the grid, of that by the squared slowness."""
        speed = self.case.speed()
        return -2 / speed**3 * gradient.data[self.inner]


def damping(case, shape):
    """s/m²: what grows into the layers of Devito's examples, which count in km/s."""
    total = np.zeros(shape)
    for axis, n in enumerate(shape):
        depth = np.clip(case.width + 1 - np.minimum(np.arange(n), np.arange(n)[::-1]), 0, None)
        depth = depth / case.width
        rise = depth - np.sin(2 * np.pi * depth) / (2 * np.pi)
        rise *= 1.5 * np.log(1000) / case.width / case.spacing / 1000
        total += rise.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return total


def build(case, variant):
    model = Model(case)
    quick = model.field("p")
    plain = model.forward(quick)

    def forward():
        quick.data[:] = 0
        plain.apply(dt=case.dt)
        return np.array(model.data.data)

    every = VARIANTS[variant]
    gradient = revolved(model) if every is None else stored(model, every)
    return forward, gradient


def stored(model, every):
    """The gradient from a history of every so many steps."""
    case = model.case
    if every == 1:
        u = history = model.field("u", save=case.steps)
        run = model.forward(u)
    else:
        u = model.field("u")
        times = ConditionalDimension("sampled", parent=model.grid.time_dim, factor=every)
        count = -(-case.steps // every)
        history = model.field("history", save=count, time_dim=times)
        run = model.forward(u, Eq(history, u))
    v, result = model.field("v"), Function(name="gradient", grid=model.grid)
    back = model.backward(v, history, result, every)

    def gradient():
        u.data[:2] = v.data[:] = result.data[:] = 0
        if every > 1:
            u.data[:] = 0
        run.apply(dt=case.dt)
        model.residual.data[:] = model.data.data
        back.apply(dt=case.dt)
        return model.by_speed(result)

    return gradient


def revolved(model):
    """The gradient by pyrevolve, with as many checkpoints as it thinks right."""
    case = model.case
    u, v, result = model.field("u"), model.field("v"), Function(name="gradient", grid=model.grid)
    run, back = model.forward(u), model.backward(v, u, result, 1)

    def gradient():
        u.data[:] = v.data[:] = result.data[:] = 0
        ahead = CheckpointOperator(run, dt=case.dt)
        behind = CheckpointOperator(back, dt=case.dt)
        checkpoint, steps = DevitoCheckpoint([u]), case.steps - 2
        revolver = SingleLevelRevolver(checkpoint, ahead, behind, None, steps)
        revolver.apply_forward()
        model.residual.data[:] = model.data.data
        revolver.apply_reverse()
        return model.by_speed(result)

    return gradient
