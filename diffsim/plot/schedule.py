"""A checkpointing plan as a time diagram: what is evaluated, kept, loaded and reversed, when."""

from typing import NamedTuple

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffsim.adjoint.schedule.plan import Plan
from diffsim.plot import style

Line = tuple[tuple[int, int], tuple[int, int]]  # two points (time step, evaluations done so far)


class Replay(NamedTuple):
    """A plan carried out: lines, each list in the order of the events."""

    advances: list[Line]  # steps evaluated
    reversals: list[Line]  # steps reversed, which needs no further evaluation
    lives: list[Line]  # a kept state, until it is last loaded


def replay(plan: Plan) -> Replay:
    """The forward sweep, the reversal of the last block, then the plan's rows."""
    last = (plan.blocks - 1) * plan.block
    sweep = ((0, 0), (plan.length, plan.length))
    played = Replay([sweep], [((plan.length, plan.length), (last, plan.length))], [])
    slots: dict[int, Line] = {}

    def done():
        return played.advances[-1][1][1]

    def keep(step, slot, when):
        if slot in slots:
            played.lives.append(slots[slot])
        slots[slot] = ((step, when), (step, when))

    def load(slot):
        born, _ = slots[slot]
        slots[slot] = (born, (born[0], done()))
        return born[0]

    def advance(step, blocks):
        steps = blocks * plan.block
        played.advances.append(((step, done()), (step + steps, done() + steps)))
        return step + steps

    for block, slot in plan.keep.items():
        keep(block * plan.block, slot, block * plan.block)
    for row in plan.rows:
        step = load(row.slot)
        if row.advance:
            step = advance(step, row.advance)
        if not row.reverse:
            keep(step, row.base, done())
        for i in range(row.fill):
            keep(step, row.base + i, done())
            step = advance(step, 1)
        for i in range(row.reverse):
            start = load(row.base + row.fill - i) if i else step
            end = advance(start, 1)
            played.reversals.append(((end, done()), (start, done())))
    played.lives.extend(slots.values())
    return played


def schedule(plan: Plan, adjoint: str) -> Figure:
    """The time diagram.

    Args:
        plan: when to keep what
        adjoint: the strategy that made it, as ``repr`` writes it
    """
    played = replay(plan)
    done = played.advances[-1][1][1]
    figure = Figure((style.WIDTH, 5.6), layout="constrained")
    axes = figure.subplots()
    lines = (
        ("steps evaluated", played.advances, "tab:blue", 1.5, 2),
        ("steps reversed", played.reversals, "tab:red", 2.5, 3),
        ("kept until last loaded", played.lives, "0.6", 1.0, 1),
    )
    for label, segments, colour, width, order in lines:
        axes.add_collection(
            LineCollection(segments, colors=colour, linewidths=width, label=label, zorder=order)
        )
    kept = np.array([born for born, _ in played.lives]).reshape(-1, 2)
    axes.plot(*kept.T, "o", color="black", markersize=2.2, label="state kept", zorder=4)
    counts = f"{plan.slots} slots, blocks of {plan.block} steps"
    title = f"{counts}, {done / plan.length:.2f} evaluations per step"
    axes.set(
        xlim=(-0.01 * plan.length, 1.01 * plan.length),
        ylim=(-0.01 * done, 1.02 * done),
        xlabel="time step",
        ylabel="step evaluations done so far",
        title=": ".join(filter(None, [adjoint.partition("(")[0], title])),
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.legend(loc="upper right")
    return figure
