"""Models and sensitivities: sections of a grid, depth down, in true proportions; lines in 1-D."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from diffsim.plot import style, water

CLIP = 98  # percentile of |gradient|; the spike at the source would hide all else
WIDE = 0.5  # height over width; below that, panels lie below each other
TALLEST = 6.0  # inches, panels below each other together
MARKERS = 64  # more would merge into a line


def models(results: xr.Dataset) -> list[str]:
    """The parameters on the grid; of several those that vary or that matter for the task."""
    found = [
        str(name)
        for name, value in results.data_vars.items()
        if value.ndim
        and results.coords.keys() >= set(value.dims)
        and not {"time", "receiver", "source"}.intersection(value.dims)
        and not str(name).startswith(("observed_", "gradient_", "highest"))
    ]
    used = [n for n in found if f"gradient_{n}" in results or f"observed_{n}" in results]
    return [n for n in found if n in used or np.ptp(results[n].values)] or found[:1]


def plane(results: xr.Dataset) -> xr.Dataset:
    """Of a 3-D grid the plane through the first source, or else the middle one."""
    for axis in {axis for name in models(results) for axis in results[name].dims[1:-1]}:
        middle = results[axis].values[[results.sizes[axis] // 2]]
        place = results[f"source_{axis}"].values if f"source_{axis}" in results else middle
        results = results.sel({axis: place[0]}, method="nearest")
        where = f"section at {axis} = {results[axis].item():g} m"
        title = ", ".join(filter(None, [results.attrs.get("title"), where]))
        results = results.assign_attrs(title=title)
    return results


def model(results: xr.Dataset, names: list[str]) -> Figure:
    """Each model beside, or below, the one that made the observed data, on one colour scale."""
    if "stage" in names and "observed_bed" not in results:
        covered = water.over_bed(results, results["stage"])
        names = [name for name in names if not (covered and name == "bed")]
    groups = [[results[n] for n in (name, f"observed_{name}") if n in results] for name in names]
    line = groups[0][0].ndim == 1
    figure, axes = _canvas(results, names[0], len(groups) if line else sum(map(len, groups)))
    panels = iter(axes)
    for group in groups:
        if line:
            _line(next(panels), group, ("model", "true model"), results)
            continue
        name = style.quantity_name(group[0]) if len(groups) > 1 else "model"
        titles = (name, f"true {name}")
        limits = {"vmin": min(map(np.nanmin, group)), "vmax": max(map(np.nanmax, group))}
        members = [next(panels) for _ in group]
        for panel, value, title in zip(members, group, titles, strict=False):
            colours = water.elevation(group[0]) or {"cmap": "viridis", **limits}
            image = _image(panel, value, **colours)
            panel.set_title(title)
        where = "bottom" if len(axes) == 1 and _steepness(value) < WIDE else "right"
        called = group[0].assign_attrs(long_name="") if len(groups) > 1 else group[0]
        style.colorbar(figure, image, members, called, where=where)
    for panel in axes:
        if water.has_coast(results):
            _coast(panel, results, names[0])
        _instruments(panel, results, names[0])
    style.legend(figure, axes, above=_steepness(results[names[0]]) < WIDE)
    return figure


def highest(results: xr.Dataset) -> Figure:
    """The highest that was seen at each node; blank where nothing happened."""
    value = results["highest"]
    figure, (axes,) = _canvas(results, "highest", 1)
    if value.ndim == 1:
        _line(axes, [value], ("highest",), results)
    else:
        low, high = np.nanpercentile(value.values, (0, CLIP))
        image = _image(axes, value, cmap="viridis", vmin=low, vmax=high)
        if water.has_coast(results):
            _coast(axes, results, "highest")
        axes.set_title(style.quantity_name(value))
        where = "bottom" if _steepness(value) < WIDE else "right"
        style.colorbar(figure, image, [axes], value, clip=CLIP, where=where)
    _instruments(axes, results, "highest")
    style.legend(figure, [axes], above=_steepness(value) < WIDE)
    return figure


def sensitivity(results: xr.Dataset, name: str) -> Figure:
    """The gradient of the misfit over thin contours of the model."""
    gradient = results[f"gradient_{name}"]
    figure, (axes,) = _canvas(results, name, 1)
    if gradient.ndim == 1:
        _line(axes, [gradient], ("gradient",), results)
    else:
        limit = style.robust_limit([gradient], CLIP)
        image = _image(axes, gradient, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title("sensitivity")
        if water.has_coast(results):
            _coast(axes, results, name)
        else:
            _contours(axes, results[name])
        where = "bottom" if _steepness(gradient) < WIDE else "right"
        style.colorbar(figure, image, [axes], gradient, clip=CLIP, where=where)
    _instruments(axes, results, name)
    style.legend(figure, [axes], above=_steepness(gradient) < WIDE)
    return figure


def _canvas(results: xr.Dataset, name: str, panels: int) -> tuple[Figure, list[Axes]]:
    """A figure that fits the sections' proportions; colour bars and labels take the margins."""
    steepness = _steepness(results[name])
    wide = steepness < WIDE
    rows, columns = (panels, 1) if wide else (1, panels)
    beside, beneath = (1.0, 1.5) if wide and panels == 1 else (1.8, 0.8 if wide else 1.3)
    height = steepness * (style.WIDTH - beside) / columns
    height = min(height, TALLEST / rows)
    width = max(beside + columns * height / steepness, 0.65 * style.WIDTH)
    figure = Figure((width, beneath + rows * (height + 0.35)), layout="compressed")
    figure.suptitle(results.attrs.get("title", ""))
    axes = figure.subplots(rows, columns, sharex=True, sharey=not wide, squeeze=False)
    return figure, list(axes.flat)


def _steepness(value: xr.DataArray) -> float:
    """Height over width of a panel."""
    lengths = [float(position[-1] - position[0]) for position, _ in _axes(value)]
    return lengths[0] / lengths[1] if len(lengths) > 1 else 0.35


def _axes(value: xr.DataArray) -> list[tuple[np.ndarray, str]]:
    """Positions along each axis, all in the same unit, and their labels."""
    coordinates = [value[axis] for axis in value.dims]
    scale, unit = style.length_unit(max(float(np.ptp(c.values)) for c in coordinates))
    return [(scale * c.values, f"{style.axis_name(str(c.name))} ({unit})") for c in coordinates]


def _image(axes: Axes, value: xr.DataArray, **colours):
    """A section; z points down, any other axis up."""
    (rows, row_label), (columns, column_label) = _axes(value)
    half = [(p[-1] - p[0]) / max(len(p) - 1, 1) / 2 for p in (rows, columns)]
    extent = (columns[0] - half[1], columns[-1] + half[1], rows[-1] + half[0], rows[0] - half[0])
    image = axes.imshow(value.values, extent=extent, **colours)
    if value.dims[0] != "z":
        axes.invert_yaxis()
    axes.set(xlabel=column_label, ylabel=row_label)
    axes.label_outer()
    return image


def _line(axes: Axes, values: list[xr.DataArray], labels: tuple[str, ...], results: xr.Dataset):
    """Values over the only axis of a 1-D grid; water over its bed."""
    for value, label in zip(values, labels, strict=False):
        ((position, axis_label),) = _axes(value)
        axes.plot(position, value.values, label=label)
    if water.over_bed(results, values[0]):
        water.bed(axes, results, position, values[0])
    axes.set(xlabel=axis_label, ylabel=style.quantity_label(values[0]))
    axes.label_outer()


def _contours(axes: Axes, model: xr.DataArray):
    low, high = float(model.min()), float(model.max())
    if high - low <= 1e-4 * max(abs(low), abs(high)):  # as good as constant
        return
    levels = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    (z, _), (x, _) = _axes(model)
    axes.contour(x, z, model.values, levels, colors="black", linewidths=0.5, alpha=0.5)
    interval = f"{levels[1] - levels[0]:g} {style.units(model)}"
    label = f"{style.quantity_name(model)} every {interval}"
    axes.plot([], [], color="black", linewidth=0.5, alpha=0.5, label=label)


def _coast(axes: Axes, results: xr.Dataset, name: str):
    (y, _), (x, _) = _axes(results[name])
    water.coast(axes, results, x, y)


def _instruments(axes: Axes, results: xr.Dataset, name: str):
    """Receivers and sources at their places; along the upper edge of a line."""
    extent = max(float(np.ptp(results[axis].values)) for axis in results[name].dims)
    scale, _ = style.length_unit(extent)
    for kind, marker, colour, size in (("receiver", "v", "black", 6), ("source", "*", "red", 15)):
        places = [f"{kind}_{axis}" for axis in results[name].dims]
        if not all(place in results for place in places):
            continue
        count = results.sizes[kind]
        every = -(-count // MARKERS)
        *z, x = (scale * results[place].values[::every] for place in places)
        label = kind if count == 1 else f"{count} {kind}s"
        axes.plot(
            x,
            z[0] if z else np.ones_like(x),
            marker,
            transform=axes.transData if z else axes.get_xaxis_transform(),
            color=colour,
            markersize=size,
            markeredgewidth=0,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            clip_on=False,
            zorder=3,
            label=label if every == 1 else f"{label} (1 in {every} shown)",
        )
