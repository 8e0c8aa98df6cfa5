"""The figures of a run show the right thing the right way up, with units, and cut nothing off."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.text import Text

from diffsim.adjoint.schedule.plan import binomial, periodic
from diffsim.plot import figures, section, time_unit
from diffsim.plot.schedule import replay
from diffsim.plot.style import quantity_label

STEPS = 40


def run(shape=(20, 80), spacing=100.0, axes=("z", "x"), receivers=30):
    """Results of a made-up run, as they are stored; the gradient has a spike at the source."""
    random = np.random.default_rng(0)
    places = {axis: np.arange(n) * spacing for axis, n in zip(axes, shape, strict=True)}
    speed = 2000 + 1000 * np.linspace(0, 1, shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    speed = np.broadcast_to(speed, shape)
    gradient = 1e-9 * random.normal(size=shape)
    gradient[(1,) * len(shape)] = 1e-5
    data = 1e-3 * random.normal(size=(3, STEPS, receivers))
    data[0, 3, :] = 10.0  # one value in 120: the direct wave
    named = {"long_name": "P-wave speed", "units": "m/s"}
    slope = {"long_name": "gradient of the misfit in P-wave speed", "units": "Pa2 s2 m-1"}
    line = {axis: np.full(receivers, spacing) for axis in axes}
    line["x"] = np.linspace(places["x"][0], places["x"][-1], receivers)
    grid, trace = tuple(axes), ("time", "receiver")
    return xr.Dataset(
        {
            "speed": (grid, speed, named),
            "observed_speed": (grid, speed + 100, named),
            "observed_sources": (("source", "axis"), np.zeros((1, len(axes)))),
            "drag": ("drag_0", np.ones(3)),  # a parameter that is not on the grid
            "gradient_speed": (grid, gradient, slope),
            **{
                name: (trace, values, {"long_name": f"{name} pressure", "units": "Pa"})
                for name, values in zip(("observed", "predicted", "residual"), data, strict=True)
            },
        },
        coords={
            **places,
            "time": np.arange(STEPS) * 2e-3,
            **{f"receiver_{axis}": ("receiver", line[axis]) for axis in axes},
            **{f"source_{axis}": ("source", [spacing]) for axis in axes},
        },
        attrs={"title": "a run", "adjoint": "Revolve(checkpoints=3, block=4)", "misfit": 1.0},
    )


def bars(figure):
    """The axes of the colour bars."""
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def bar_text(figure):
    (bar,) = bars(figure)
    return bar.get_xlabel() + bar.get_ylabel()


def image(axes):
    (found,) = axes.images
    return found


def colour_at(axes, x, y):
    """The value that the image shows at a place in data coordinates."""
    axes.figure.draw_without_rendering()
    shown = image(axes)
    left, right, bottom, top = shown.get_extent()
    rows, columns = shown.get_array().shape
    return shown.get_array()[
        int((y - top) / (bottom - top) * rows), int((x - left) / (right - left) * columns)
    ]


def test_all_figures_of_a_gradient():
    assert list(figures(run(), binomial(STEPS, 4, 3))) == [
        "model",
        "gather",
        "sensitivity_speed",
        "schedule",
    ]


def test_a_forward_run_has_fewer_figures():
    results = run()[["speed", "predicted"]]
    drawn = figures(results, None)
    assert list(drawn) == ["model", "gather"]
    assert len(drawn["gather"].axes) == 2  # one gather, one colour bar


@pytest.mark.parametrize("name", ["model", "sensitivity_speed"])
def test_depth_points_down(name):
    """Row 0 is the surface: it is shown at depth 0, at the top."""
    results = run()
    axes = figures(results, None)[name].axes[0]
    bottom, top = axes.get_ylim()
    assert bottom > top
    variable = {"model": "speed", "sensitivity_speed": "gradient_speed"}[name]
    for row, column in ((0, 5), (19, 79)):
        expected = results[variable].values[row, column]
        assert colour_at(axes, 0.1 * column, 0.1 * row) == expected


def test_a_map_has_north_up():
    """Only depth points down: on a map, y grows upwards, and so does the row number."""
    axes = figures(run(axes=("y", "x")), None)["model"].axes[0]
    bottom, top = axes.get_ylim()
    assert bottom < top
    assert axes.get_ylabel() == "y (km)"
    assert colour_at(axes, 0.5, 1.9) == 3000


def test_sections_have_true_proportions_and_instruments_on_top():
    drawn = figures(run(), None)
    for name in ("model", "sensitivity_speed"):
        axes = drawn[name].axes[0]
        assert axes.get_aspect() == 1
        marks = {line.get_label(): line for line in axes.lines}
        np.testing.assert_allclose(marks["30 receivers"].get_xdata()[[0, -1]], (0, 7.9))
        np.testing.assert_allclose(marks["source"].get_xydata(), [[0.1, 0.1]])
        assert marks["source"].get_zorder() > image(axes).get_zorder()


def test_many_receivers_are_thinned_and_it_is_said():
    axes = figures(run(receivers=300), None)["model"].axes[0]
    (line,) = [line for line in axes.lines if "receivers" in line.get_label()]
    assert line.get_label() == "300 receivers (1 in 5 shown)"
    assert len(line.get_xdata()) == 60


def test_axes_have_names_and_units():
    """Kilometres where an axis is longer than 5 km, metres elsewhere; units as stored."""
    far, near = (figures(run(spacing=spacing), None) for spacing in (100.0, 10.0))
    lower = far["model"].axes[1]  # the upper panel shares its x axis
    assert (lower.get_xlabel(), lower.get_ylabel()) == ("x (km)", "depth (km)")
    assert near["model"].axes[1].get_xlabel() == "x (m)"
    assert bar_text(far["model"]) == "P-wave speed (m/s)"
    expected = "gradient of the misfit in P-wave speed ($10^{-9}$ Pa$^{2}$ s$^{2}$ m$^{-1}$)"
    assert bar_text(far["sensitivity_speed"]).startswith(expected)
    gather = far["gather"].axes[0]
    assert (gather.get_xlabel(), gather.get_ylabel()) == ("receiver x (km)", "time (s)")
    assert bar_text(far["gather"]).startswith("pressure (Pa)")


def test_a_plain_number_has_no_units():
    for exponent, label in ((0, "quality"), (-5, "quality ($10^{-5}$)")):
        value = xr.DataArray(np.ones(3), name="quality", attrs={"units": "1"})
        assert quantity_label(value, exponent) == label


def test_the_models_share_a_scale():
    upper, lower = figures(run(), None)["model"].axes[:2]
    assert image(upper).get_clim() == image(lower).get_clim() == (2000, 3100)


def test_sensitivities_are_symmetric_about_zero_and_robust():
    """Normal noise with σ = 1e-9 stays below 2.33 σ in 98 of 100 values, whatever the spike.

    With 1600 values the percentile itself scatters by about 3 %.
    """
    figure = figures(run(), None)["sensitivity_speed"]
    low, high = image(figure.axes[0]).get_clim()
    assert low == -high
    assert high == pytest.approx(2.33e-9, rel=0.1)
    assert "clipped at the 98th percentile" in bar_text(figure)


def test_gathers_share_a_symmetric_scale_with_time_down():
    """The direct wave, 1e4 times the rest, leaves the scale alone: σ = 1e-3, clipped near 2.4 σ."""
    panels = figures(run(), None)["gather"].axes[:3]
    assert [axes.get_title(loc="left") for axes in panels] == ["observed", "predicted", "residual"]
    limits = {image(axes).get_clim() for axes in panels}
    ((low, high),) = limits
    assert low == -high
    assert 1e-3 < high < 4e-3
    for axes in panels:
        bottom, top = axes.get_ylim()
        assert (bottom, top) == (pytest.approx(2e-3 * (STEPS - 1)), 0)


def test_receivers_in_a_well_are_ordered_by_depth():
    results = run().assign_coords(
        receiver_x=("receiver", np.full(30, 400.0)),
        receiver_z=("receiver", np.linspace(100, 1800, 30)),
    )
    assert figures(results, None)["gather"].axes[0].get_xlabel() == "receiver depth (m)"


def test_scattered_receivers_are_numbered():
    places = np.random.default_rng(1).uniform(0, 7900, 30)
    for x in (places, np.full(30, 100.0)):
        results = run().assign_coords(receiver_x=("receiver", x))
        assert figures(results, None)["gather"].axes[0].get_xlabel() == "receiver number"


def test_few_receivers_make_curves():
    results = run(receivers=2)
    panels = figures(results, None)["gather"].axes
    assert len(panels) == 2
    for number, axes in enumerate(panels):
        assert [line.get_label() for line in axes.lines] == ["observed", "predicted", "residual"]
        np.testing.assert_array_equal(axes.lines[1].get_ydata(), results["predicted"][:, number])


def test_a_line_is_drawn_of_a_1d_grid():
    results = run(shape=(50,), axes=("x",))
    drawn = figures(results, None)
    (axes,) = drawn["model"].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (m)", "P-wave speed (m/s)")
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["model", "true model", "30 receivers", "source"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), results["observed_speed"])
    (axes,) = drawn["sensitivity_speed"].axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), results["gradient_speed"])


def test_of_a_cube_the_plane_through_the_source_is_drawn():
    results = run(shape=(6, 7, 8), axes=("z", "y", "x")).assign_coords(source_y=("source", [390.0]))
    figure = figures(results, None)["sensitivity_speed"]
    shown = image(figure.axes[0]).get_array()
    np.testing.assert_array_equal(shown, results["gradient_speed"][:, 4])
    assert figure.get_suptitle() == "a run, section at y = 400 m"


def test_constant_fields_are_drawn():
    """A homogeneous start model has no contours; a vanishing gradient no percentile."""
    results = run()
    results["speed"] = xr.full_like(results["speed"], 2000.0)
    results["gradient_speed"] = xr.full_like(results["gradient_speed"], 0.0)
    drawn = figures(results, None)
    for figure in drawn.values():
        figure.draw_without_rendering()
    axes = drawn["sensitivity_speed"].axes[0]
    assert not any("every" in line.get_label() for line in axes.lines)
    assert np.diff(image(axes).get_clim()) > 0


@pytest.mark.parametrize("shape", [(20, 80), (40, 60), (60, 60), (80, 20)])
def test_nothing_is_cut_off_and_all_can_be_read(shape):
    """All that is drawn lies inside its figure, texts have at least 9 points, legends hide none."""
    for name, figure in figures(run(shape=shape), binomial(STEPS, 4, 3)).items():
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.min) >= -0.01, name
        assert drawn.x1 <= width + 0.01, name
        assert drawn.y1 <= height + 0.01, name
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 9
        for axes in figure.axes:
            title = axes._left_title
            if axes.get_legend() and title.get_text():
                assert not axes.get_legend().get_window_extent().overlaps(title.get_window_extent())


def shore():
    """A bed that rises out of the sea towards x, at rest but for a wave."""
    results = run(axes=("y", "x")).drop_vars(["observed_speed", "gradient_speed"])
    results = results.rename(speed="bed")
    slope = np.broadcast_to(np.linspace(-100, 50, 80), (20, 80))
    results["bed"] = ("y", "x"), slope, {"long_name": "bed elevation", "units": "m"}
    level = {"long_name": "initial water level", "units": "m"}
    results["stage"] = ("y", "x"), np.zeros((20, 80)), level
    results["gradient_stage"] = ("y", "x"), np.zeros((20, 80)), level
    crest = np.where(slope < 0, 1.0, np.nan)
    results["highest"] = ("y", "x"), crest, {"long_name": "highest water level", "units": "m"}
    return results


def test_dry_land_is_not_drawn_as_water():
    """The bed crosses sea level between columns 52 and 53; there the coast line runs."""
    drawn = figures(shore(), None)
    bed, stage = drawn["model"].axes[:2]
    assert [axes.get_title(loc="left") for axes in (bed, stage)] == [
        "bed elevation",
        "initial water level",
    ]
    dry = np.ma.getmaskarray(image(stage).get_array())
    assert dry[:, 53:].all()
    assert not dry[:, :53].any()
    for name in ("model", "highest", "sensitivity_stage"):
        axes = drawn[name].axes[0]
        assert "coast line" in [line.get_label() for line in axes.lines]
        (path,) = axes.collections[0].get_paths()
        np.testing.assert_allclose(path.vertices[:, 0], 5.25)
    assert image(bed).norm.vcenter == 0


def channel(level):
    """A beach along a line that rises out of the sea."""
    results = run(shape=(80,), axes=("x",)).rename(speed="bed", observed_speed="observed_friction")
    results["bed"] = "x", np.linspace(-100, 50, 80), {"long_name": "bed elevation", "units": "m"}
    results["stage"] = "x", level * np.ones(80), {"long_name": "initial water level", "units": "m"}
    results["friction"] = results["observed_friction"] / 2
    return results


def test_water_along_a_line_is_drawn_over_its_bed():
    """Two areas, the water between bed and level, and the bed; dry land bears none. What made the
    data is explained too, though only another panel shows it."""
    figure = figures(channel(0.0), None)["model"]
    over, _ = figure.axes
    water, ground = (each.get_paths() for each in over.collections)
    assert water[0].vertices[:, 0].max() == pytest.approx(5.2)  # km
    assert ground[0].vertices[:, 0].max() == pytest.approx(7.9)
    assert water[0].vertices[:, 1].max() == 0
    assert over.get_ylabel() == "initial water level (m)"
    texts = [text.get_text() for text in over.get_legend().get_texts()]
    assert {"model", "true model", "bed"} <= set(texts)


def test_ripples_on_deep_water_are_drawn_alone():
    """A metre over a kilometre would be a straight line."""
    results = channel(np.sin(np.arange(80.0)))
    results["bed"] = results["bed"] - 1000
    bed, stage, _ = figures(results, None)["model"].axes
    assert (bed.get_ylabel(), stage.get_ylabel()) == (
        "bed elevation (m)",
        "initial water level (m)",
    )
    assert not stage.collections


def test_a_field_that_is_the_same_everywhere_takes_no_panel_beside_others():
    results = shore()
    results["uplift"] = xr.zeros_like(results["stage"])
    assert section.models(results) == ["bed", "stage"]


def test_curves_far_from_zero_go_without_residuals():
    """The residual of temperatures, some kelvins, would squash curves at 300 K."""
    results = run(receivers=2)
    for name in ("predicted", "observed"):
        results[name] = results[name] * 0 + 300 + np.linspace(0, 5, STEPS)[:, None]
    axes = figures(results, None)["gather"].axes[0]
    assert [line.get_label() for line in axes.lines] == ["observed", "predicted"]


@pytest.mark.parametrize(
    ("extent", "unit"),
    [(5.0, "s"), (7200.0, "h"), (1e6, "d"), (1e9, "years"), (1e12, "thousand years")],
)
def test_time_is_in_a_unit_that_suits_the_run(extent, unit):
    assert time_unit(extent)[1] == unit
    results = run(receivers=2).assign_coords(time=np.linspace(0, extent, STEPS))
    assert figures(results, None)["gather"].axes[-1].get_xlabel() == f"time ({unit})"


def test_stations_are_named():
    results = run(receivers=2).assign_coords(station=("receiver", ["Victoria", "Nanaimo"]))
    titles = [axes.get_title(loc="left") for axes in figures(results, None)["gather"].axes]
    assert titles == ["Victoria", "Nanaimo"]


PLANS = [binomial(100, 7, 3), binomial(64, 8, 2), binomial(5, 8, 3), binomial(97, 4, 24)]
PLANS += [periodic(100, 9), binomial(3, 1, 1)]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.length}/{plan.block}/{plan.slots}")
class TestSchedule:
    def lines(self, plan, label):
        axes = figures(xr.Dataset(), plan)["schedule"].axes[0]
        (found,) = [lines for lines in axes.collections if lines.get_label() == label]
        return [line.tolist() for line in found.get_segments()]

    def test_it_shows_as_many_evaluations_as_the_plan_counts(self, plan):
        """The plan counts whole blocks; the last one, evaluated once, may be shorter."""
        expected = plan.evaluations * plan.block - (plan.block - plan.tail)
        done = 0
        for (start, before), (end, after) in self.lines(plan, "steps evaluated"):
            assert end - start == after - before > 0
            assert before == done
            done = after
        assert done == expected

    def test_every_step_is_reversed_once_from_the_last_to_the_first(self, plan):
        place = plan.length
        for (start, before), (end, after) in self.lines(plan, "steps reversed"):
            assert start == place > end
            assert before == after
            place = end
        assert place == 0

    def test_steps_start_where_a_state_is_at_hand(self, plan):
        """A line of steps goes on from the last one or starts on a kept state's life."""
        played = replay(plan)
        lives = [(step, born, died) for (step, born), (_, died) in played.lives]
        last = (0, 0)
        for start, end in played.advances:
            kept = any(start[0] == step and a <= start[1] <= b for step, a, b in lives)
            assert kept or start == last
            last = end

    def test_no_more_states_live_than_there_are_slots(self, plan):
        lives = replay(plan).lives
        for (_, now), _ in lives:
            assert sum(born <= now < died for (_, born), (_, died) in lives) <= plan.slots


def test_the_schedule_names_strategy_and_cost():
    title = figures(run(), binomial(STEPS, 4, 3))["schedule"].axes[0].get_title(loc="left")
    assert title.startswith("Revolve: 3 slots, blocks of 4 steps, ")
    assert title.endswith("evaluations per step")


def test_models_are_what_is_neither_true_nor_a_gradient_nor_data():
    assert section.models(run()) == ["speed"]
