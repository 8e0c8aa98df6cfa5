"""The figures of a run, drawn from its stored results alone."""

import matplotlib
import xarray as xr
from matplotlib.figure import Figure

from diffsim.adjoint.schedule.plan import Plan
from diffsim.plot import gather, schedule, section, water
from diffsim.plot.style import STYLE, time_unit

__all__ = ["figures", "time_unit"]


def figures(results: xr.Dataset, plan: Plan | None) -> dict[str, Figure]:
    """What a run shows of itself: those of the figures that its results allow.

    Args:
        results: the run's dataset. Its grid variables have the grid's axes as dimensions; a model
            ``m`` may come with ``observed_m``, which made the observed data, and ``gradient_m``.
            The data ``observed``, ``predicted``, ``residual`` are ``[time, receiver]``. Of a 3-D
            grid the plane through the first source is drawn
        plan: when which state was kept; None if the strategy has no plan

    Returns:
        ``model``, ``highest``, ``gather``, ``sensitivity_m`` for each ``gradient_m``, ``schedule``
    """
    plane = water.drained(section.plane(results))
    names = section.models(plane)
    drawn = {}
    with matplotlib.rc_context(STYLE):
        if names:
            drawn["model"] = section.model(plane, names)
        if "highest" in plane:
            drawn["highest"] = section.highest(plane)
        if "predicted" in results:
            drawn["gather"] = gather.gather(results)
        for name in names:
            if f"gradient_{name}" in plane:
                drawn[f"sensitivity_{name}"] = section.sensitivity(plane, name)
        if plan is not None:
            drawn["schedule"] = schedule.schedule(plan, results.attrs.get("adjoint", ""))
    return drawn
