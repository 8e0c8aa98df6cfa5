"""Equinox's checkpointed loop over our own step, with our own transpose of it."""

import equinox.internal as eqxi

from diffsim.body import step_of
from peers.with_diffsim import runs, shot

VARIANTS = {"22 checkpoints": 22}


def build(case, variant):
    solver, sampler, forcing, params = shot(case)
    step, checkpoints = step_of(solver), VARIANTS[variant]

    def data(speed):
        coefficients = solver.coefficients(params(speed))

        def one(state, forcing_n):
            return step(coefficients, state, forcing_n), sampler(state)

        start = solver.init(params(speed))
        return eqxi.scan(
            one, start, forcing, case.steps, kind="checkpointed", checkpoints=checkpoints
        )[1]

    return runs(data, case)
