"""What receivers saw over time: shot gathers, or curves where receivers are few."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from diffsim.plot import style

CLIP = 98  # percentile of |amplitude|; the direct wave would hide all else
FEW = 6  # receivers; up to so many get a panel of curves each, more make an image
COLOURS = {"observed": "black", "predicted": "tab:red", "residual": "tab:gray"}


def gather(results: xr.Dataset) -> Figure:
    """Observed, predicted and residual data, whatever of them there is."""
    data = {name: results[name] for name in COLOURS if name in results}
    draw = _curves if results.sizes["receiver"] <= FEW else _images
    figure = draw(results, data)
    figure.suptitle(results.attrs.get("title", ""))
    return figure


def _images(results: xr.Dataset, data: dict[str, xr.DataArray]) -> Figure:
    """Side by side on one scale, time down."""
    position, label = _positions(results)
    half = (position[-1] - position[0]) / (len(position) - 1) / 2
    time, unit = _time(results)
    extent = (position[0] - half, position[-1] + half, time[-1], time[0])
    limit = style.robust_limit(list(data.values()), CLIP)
    figure = Figure((style.WIDTH, 5.2), layout="constrained")
    panels = figure.subplots(1, len(data), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, value) in zip(panels, data.items(), strict=True):
        image = axes.imshow(
            value.values, extent=extent, aspect="auto", cmap="gray", vmin=-limit, vmax=limit
        )
        axes.set(title=title, xlabel=label)
    panels[0].set_ylabel(f"time ({unit})")
    style.colorbar(figure, image, list(panels), _seen(data), clip=CLIP)
    return figure


def _positions(results: xr.Dataset) -> tuple[np.ndarray, str]:
    """Where the receivers lie along the axis that varies most; their numbers if not evenly."""
    axis, place = max(_places(results).items(), key=lambda item: float(np.ptp(item[1].values)))
    steps = np.diff(place.values)
    if not (steps[0] and np.allclose(steps, steps[0], rtol=1e-2, atol=0)):
        return np.arange(place.size), "receiver number"
    scale, unit = style.length_unit(float(np.ptp(place.values)))
    return scale * place.values, f"receiver {style.axis_name(axis)} ({unit})"


def _seen(data: dict[str, xr.DataArray]) -> xr.DataArray:
    """The predicted data, named as what all the data are: "pressure", not "predicted pressure"."""
    predicted = data["predicted"]
    name = style.quantity_name(predicted).removeprefix("predicted ")
    return predicted.assign_attrs(long_name=name)


def _time(results: xr.Dataset) -> tuple[np.ndarray, str]:
    """Of the data, in a unit that suits the run."""
    time = results["time"].values
    scale, unit = style.time_unit(float(time[-1]))
    return scale * time, unit


def _called(results: xr.Dataset, number: int) -> str:
    """A receiver's name, or where it is."""
    if "station" in results:
        return str(results["station"].values[number])
    places = _places(results).items()
    where = [f"{axis} = {place.values[number]:g} m" for axis, place in places]
    return f"receiver {number}: {', '.join(where)}"


def _places(results: xr.Dataset) -> dict[str, xr.DataArray]:
    """The receivers' coordinates along each axis."""
    names = [str(name) for name in results.coords if str(name).startswith("receiver_")]
    return {name.removeprefix("receiver_"): results[name] for name in names}


def _curves(results: xr.Dataset, data: dict[str, xr.DataArray]) -> Figure:
    """One panel for each receiver."""
    count = results.sizes["receiver"]
    seen = data["predicted"].values
    if "residual" in data and np.abs(seen).min() > np.ptp(seen):  # it would flatten the others
        data = {name: value for name, value in data.items() if name != "residual"}
    figure = Figure((style.WIDTH, 1.5 + 1.5 * count), layout="constrained")
    time, unit = _time(results)
    panels = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, axes in enumerate(panels):
        for name, value in data.items():
            trace = value.isel(receiver=number).values
            axes.plot(time, trace, color=COLOURS[name], label=name)
        axes.set_title(_called(results, number))
        axes.margins(x=0)
    style.legend(figure, [panels[0]])
    panels[-1].set_xlabel(f"time ({unit})")
    figure.supylabel(style.quantity_label(_seen(data)), fontsize="medium")
    return figure
