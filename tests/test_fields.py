"""Makers give what their formula or their file says, or say why not."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from diffsim import fields
from diffsim.fields import File, array
from diffsim.grid import Grid

GRID = Grid(shape=(6, 9), spacing=(10.0, 20.0), origin=(5.0, -40.0))
Z, X = 5 + 10.0 * np.arange(6)[:, None], -40 + 20.0 * np.arange(9)
CUBE = Grid(shape=(3, 4, 5), spacing=(1.0, 2.0, 3.0))


def made(maker, grid=GRID, units=""):
    return array(maker, SimpleNamespace(grid=grid, dt=1e-3), 10, units)


def model(name="vp", units="m/s", **attrs):
    """A section that covers the grid and more, on samples of its own, with all that CF wants."""
    z, x = np.arange(0.0, 70.0, 5.0), np.arange(-60.0, 160.0, 7.0)
    places = {"z": ("z", z, {"units": "m"}), "x": ("x", x, {"units": "m"})}
    values = 2000 + 3 * z[:, None] + 2 * x + 0.01 * z[:, None] * x
    return xr.DataArray(values, places, ("z", "x"), name, {"units": units, **attrs})


def saved(data, path, **how):
    data.to_netcdf(path, engine="scipy", **how)
    return path


# --- formulas


def test_a_layer_begins_at_its_interface():
    """Also where 3 × 0.3 is not quite 0.9."""
    column = Grid(shape=(5,), spacing=(0.3,))
    layers = fields.Layers(values=(1.0, 2.0, 3.0), interfaces=(0.3, 0.9))
    np.testing.assert_array_equal(made(layers, column), [1, 2, 2, 3, 3])
    np.testing.assert_array_equal(made(layers, GRID), np.full((6, 9), 3.0))
    assert made(fields.Layers(values=(4.0,), interfaces=()), CUBE).shape == CUBE.shape


def test_terrain_parts_the_fields_at_the_ground():
    """Sea level is depth 0: of columns at -25 and 0 m the first is ground from 25 m down."""
    grid = Grid(shape=(4, 2), spacing=(10.0, 1.0), origin=(-5.0, 0.0))
    hills = fields.Terrain(elevation=[-25.0, 0.0], above=1.0, below=fields.Constant(value=2.0))
    np.testing.assert_array_equal(made(hills, grid), [[1, 1], [1, 2], [1, 2], [2, 2]])
    with pytest.raises(ValueError, match=r"elevation has shape \(2,\), but the grid has \(9,\)"):
        made(hills)


def test_a_linear_gradient_is_linear_in_metres():
    ramp = made(fields.LinearGradient(value=1500.0, slope=(0.6, -0.1)))
    np.testing.assert_allclose(ramp, 1500 + 0.6 * Z - 0.1 * X, rtol=1e-15)


def test_a_gaussian_falls_by_its_width_on_top_of_another_maker():
    below = fields.Layers(values=(1.0, 2.0), interfaces=(30.0,))
    bump = fields.Gaussian(centre=(25.0, 20.0), width=(10.0, 40.0), amplitude=-4.0)
    on_layers = fields.Gaussian(**{**vars(bump), "background": below})
    values = made(bump)
    assert values[2, 3] == -4
    np.testing.assert_allclose(values[[1, 3, 2, 2], [3, 3, 1, 5]], -4 * np.exp(-0.5), rtol=1e-15)
    np.testing.assert_array_equal(made(on_layers), values + made(below))


def test_a_checkerboard_alternates_from_box_to_box():
    """Boxes of 2 × 3 nodes; the one at the origin of the grid is positive. 3 × 0.3 is below 0.9."""
    board = made(fields.Checkerboard(size=(20.0, 60.0), amplitude=0.5, background=3.0))
    boxes = board.reshape(3, 2, 3, 3)
    np.testing.assert_array_equal(boxes, boxes[:, :1, :, :1] * np.ones((1, 2, 1, 3)))
    signs = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    np.testing.assert_array_equal(boxes[:, 0, :, 0], 3 + 0.5 * signs)
    line = made(fields.Checkerboard(size=(0.9,), amplitude=1), Grid(shape=(6,), spacing=(0.3,)))
    np.testing.assert_array_equal(line, [1, 1, 1, -1, -1, -1])


FORMULAS = {
    "fewer interfaces": (lambda: fields.Layers(values=(1.0, 2.0), interfaces=()), "one interface"),
    "unordered layers": (lambda: fields.Layers(values=(1, 2, 3), interfaces=(2, 1)), "ascend"),
    "a slope too few": (lambda: made(fields.LinearGradient(value=1, slope=(1,))), "slope"),
    "a centre too many": (
        lambda: made(fields.Gaussian(centre=(1, 2, 3), width=(1, 1), amplitude=1)),
        "centre",
    ),
    "a background of another shape": (
        lambda: made(fields.Checkerboard(size=(20, 20), amplitude=1, background=[1.0, 2.0])),
        "the background has shape (2,), but the grid has (6, 9)",
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_that_does_not_suit_is_refused(name):
    wrong, said = FORMULAS[name]
    with pytest.raises(ValueError, match=re.escape(said)):
        wrong()


# --- resampling


def test_linear_is_exact_for_bilinear_and_cubic_for_bicubic_functions(tmp_path):
    """Up to round-off: 1e-13 of the largest value."""
    z, x = np.linspace(0, 70, 13), np.linspace(-50, 130, 17)

    def bilinear(z, x):
        return 1 + 2 * z - 3 * x + 0.1 * z * x

    def bicubic(z, x):
        return bilinear(z, x) + 1e-3 * z**3 - 2e-4 * x**3 + 1e-7 * z**3 * x**3

    for function, method in ((bilinear, "linear"), (bilinear, "cubic"), (bicubic, "cubic")):
        np.savez(tmp_path / "a.npz", vp=function(z[:, None], x))
        step = (70 / 12, 180 / 16)
        file = File(tmp_path / "a.npz", "vp", method=method, spacing=step, origin=(0, -50))
        exact = function(Z, X)
        np.testing.assert_allclose(made(file), exact, rtol=0, atol=1e-13 * np.abs(exact).max())


def test_nearest_takes_the_value_of_the_nearest_sample(tmp_path):
    found = made(File(saved(model(), tmp_path / "a.nc"), "vp", method="nearest"), units="m/s")
    expected = model().sel(z=Z[:, 0], x=X, method="nearest").to_numpy()
    np.testing.assert_array_equal(found, expected)


def test_samples_on_the_nodes_stay_what_they_are(tmp_path):
    values = np.random.default_rng(0).normal(size=GRID.shape)
    np.savez(tmp_path / "a.npz", q=values)
    for method in (None, "nearest", "linear", "cubic"):
        file = File(tmp_path / "a.npz", "q", method=method, spacing=(10, 20), origin=(5, -40))
        np.testing.assert_allclose(made(file), values, rtol=0, atol=1e-14)


def test_turned_and_transposed_axes_are_put_right(tmp_path):
    """North first, as maps are stored; axes by the names of the grid's."""
    turned = model()[::-1, ::-1].transpose("x", "z")
    a = File(saved(model(), tmp_path / "a.nc"), "vp", method="linear")
    b = File(saved(turned, tmp_path / "b.nc"), "vp", method="linear")
    np.testing.assert_array_equal(made(a, units="m/s"), made(b, units="m/s"))


# --- units


UNITS = {  # in the file, of the field, what 2 becomes
    "the same": ("m/s", "m/s", 2),
    "thousands": ("km/s", "m/s", 2000),
    "as CF writes powers": ("km s-1", "m/s", 2000),
    "an offset": ("degC", "K", 275.15),
    "a compound": ("g/cm3", "kg/m³", 2000),
    "to SI if nobody says more": ("hPa", "", 200),
    "to SI if the field says it in words": ("hPa", "Pa m^(axes-2)", 200),
    "angles stay": ("degrees", "", 2),
    "none": ("", "m/s", 2),
}


@pytest.mark.parametrize("name", UNITS)
def test_units_become_those_of_the_field(tmp_path, name):
    """To round-off of the factor."""
    pytest.importorskip("pint", reason="needs the extra formats")
    said, wanted, value = UNITS[name]
    np.savez(tmp_path / "a.npz", q=np.full(GRID.shape, 2))
    carried = xr.DataArray(np.full(3, 2, "f4"), dims="t", name="q", attrs={"units": said})
    in_case = File(tmp_path / "a.npz", "q", units=said)
    in_file = File(saved(carried, tmp_path / "a.nc"), "q")
    np.testing.assert_allclose(made(in_case, units=wanted), value, rtol=1e-15)
    np.testing.assert_allclose(made(in_file, units=wanted), value, rtol=1e-7)


def test_coordinates_in_kilometres_are_lengths(tmp_path):
    pytest.importorskip("pint", reason="needs the extra formats")
    data = model()
    far = {axis: (axis, data[axis].to_numpy() / 1000, {"units": "km"}) for axis in data.dims}
    a = File(saved(data, tmp_path / "a.nc"), "vp", method="linear")
    b = File(saved(data.assign_coords(far), tmp_path / "b.nc"), "vp", method="linear")
    np.testing.assert_allclose(made(a), made(b), rtol=1e-14)


@pytest.mark.parametrize("said", ["unknown", "m/", "1e3 m/s", "m since 2001-02-03"])
def test_a_file_that_says_its_units_badly_is_corrected_by_the_case(tmp_path, said):
    pytest.importorskip("pint", reason="needs the extra formats")
    path = saved(model(units=said), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=f"the units '{said}' are unknown: say them in units"):
        made(File(path, "vp"), units="m/s")
    assert made(File(path, "vp", units="km/s")).min() > 1e6


# --- positions on a map


def test_degrees_become_metres():
    """A degree of latitude is 111.195 km of a sphere of 6371 km; one of longitude at 60°, half."""
    maker = fields.LatLon(
        degrees=((61.0, -124.0), (60.0, 236.0), (59.0, 235.0)), origin=(60.0, 235.0), parallel=60.0
    )
    expected = np.array([[1.0, 0.5], [0.0, 0.5], [-1.0, 0.0]]) * np.radians(6.371e6)
    np.testing.assert_allclose(made(maker), expected, atol=1e-6)
    with pytest.raises(ValueError, match="less than or equal to 90"):
        fields.LatLon(degrees=((-124.0, 61.0), (236.0, 60.0)), origin=(60.0, 235.0), parallel=60.0)


# --- matplotlib's samples


def test_a_sample_of_matplotlib_covers_its_own_grid():
    """The sea floor at 48.4 N, 124.6 W, in the Strait of Juan de Fuca, is deeper than 150 m; the
    mountains of the north-east corner are higher than 1000 m."""
    grid = Grid(shape=(91, 120), spacing=(2431.0, 2431.0), axes=("y", "x"))
    named = {"file": "topobathy.npz", "name": "topo", "spacing": grid.spacing}
    bed = made(fields.MatplotlibSample(**named), grid)
    assert bed.shape == grid.shape
    where = fields.LatLon(
        degrees=((48.4, -124.6), (49.8, -122.5)), origin=(48.0164, 234.0167), parallel=49.0
    )
    (strait, hill) = np.round(made(where) / 2431).astype(int)
    assert bed[tuple(strait)] < -150
    assert bed[hill[0] - 5 : hill[0] + 5, hill[1] - 5 : hill[1] + 5].max() > 1000
    coarse = Grid(shape=(46, 60), spacing=(4862.0, 4862.0), axes=("y", "x"))
    every_second = made(fields.MatplotlibSample(**named, method="nearest"), coarse)
    np.testing.assert_array_equal(every_second, bed[::2, ::2])


def test_a_row_of_a_sample():
    named = {"file": "topobathy.npz", "name": "topo"}
    whole = made(fields.MatplotlibSample(**named))
    row = made(fields.MatplotlibSample(**named, row=3, columns=(5, 9)))
    np.testing.assert_array_equal(row, whole[3, 5:9])
    with pytest.raises(ValueError, match=r"row 91 .* give a row below 91, columns up to 120"):
        made(fields.MatplotlibSample(**named, row=91))
    with pytest.raises(ValueError, match="columns are those of a row"):
        fields.MatplotlibSample(**named, columns=(5, 9))


def test_a_sample_that_matplotlib_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"no sample 'topo.npz': give one of .*topobathy.npz"):
        fields.MatplotlibSample(file="topo.npz", name="topo")
    with pytest.raises(ValueError, match="has no array 'bed': it holds topo, longitude, latitude"):
        fields.MatplotlibSample(file="topobathy.npz", name="bed")
