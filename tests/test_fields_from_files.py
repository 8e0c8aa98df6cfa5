"""A file gives what it holds, or the sentence that says why not."""

import re
import sys

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError
from test_case import CASE
from test_fields import CUBE, GRID, X, Z, made, model, saved

from diffsim import fields
from diffsim.case import CaseError, load
from diffsim.fields import File, NetCDF, Raw, SegY
from diffsim.grid import Grid

# --- formats


def write_raw(path, values):
    values.astype(">f8").ravel(order="F").tofile(path)
    return Raw(shape=values.shape, dtype=">f8", order="F")


def write_npz(path, values):
    np.savez(path, vp=values)


def write_netcdf(path, values):
    saved(xr.DataArray(values, dims=("a", "b"), name="vp"), path)


def write_netcdf4(path, values):
    pytest.importorskip("h5py", reason="needs the extra formats")
    xr.DataArray(values, dims=("a", "b"), name="vp").to_netcdf(path, engine="h5netcdf")


def write_segy(path, values):
    pytest.importorskip("segyio", reason="needs the extra formats").tools.from_array(
        str(path), values.T.astype(np.float32).copy()
    )


def write_tiff(path, values, system=None):
    rasterio = pytest.importorskip("rasterio", reason="needs the extra formats")
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1}
    there = rasterio.Affine(20, 0, -50, 0, -10, 60)  # x of the west edge, y of the north edge
    with rasterio.open(
        path, "w", "GTiff", dtype="float64", transform=there, crs=system, **shape
    ) as file:
        file.write(values[::-1], 1)


def write_ascii(path, values):
    pytest.importorskip("rasterio", reason="needs the extra formats")
    head = "ncols 9\nnrows 6\nxllcorner 0\nyllcorner 0\ncellsize 20\nNODATA_value -9999\n"
    rows = "\n".join(" ".join(f"{v:.17g}" for v in row) for row in values[::-1])
    path.write_text(head + rows + "\n")


FORMATS = {
    "a.bin": write_raw,
    "a.npz": write_npz,
    "a.nc": write_netcdf,
    "b.nc": write_netcdf4,
    "a.sgy": write_segy,
    "a.tif": write_tiff,
    "a.asc": write_ascii,
}
NAMED = (".npz", ".nc")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_gives_back_what_was_written(tmp_path, name):
    """In float32 for SEG-Y and ASCII grids, which rasterio reads so."""
    path, values = tmp_path / name, np.random.default_rng(1).normal(size=GRID.shape)
    layout = FORMATS[name](path, values)
    grid = Grid(shape=(6, 9), spacing=(20, 20), origin=(10, 10)) if name == "a.asc" else GRID
    file = File(path, "vp" if path.suffix in NAMED else "", layout)
    rounding = 1e-6 if path.suffix in (".sgy", ".asc") else 0
    np.testing.assert_allclose(made(file, grid), values, rtol=rounding)


@pytest.mark.parametrize("sorting", [1, 2])  # by cross-lines, by in-lines
def test_a_seismic_volume_has_its_in_lines_along_y(tmp_path, sorting):
    segyio = pytest.importorskip("segyio", reason="needs the extra formats")
    values = np.random.default_rng(2).normal(size=CUBE.shape).astype(np.float32)
    spec = segyio.spec()
    spec.sorting, spec.format, spec.samples = sorting, 5, np.arange(3.0)
    spec.ilines, spec.xlines = np.arange(10, 14), np.arange(20, 25)
    lines = [(i, x) for i in range(4) for x in range(5)]
    with segyio.create(tmp_path / "a.sgy", spec) as file:
        for n, (i, x) in enumerate(lines if sorting == 2 else sorted(lines, key=lambda at: at[1])):
            file.header[n] = {189: 10 + i, 193: 20 + x, 37: 1}
            file.trace[n] = np.ascontiguousarray(values[:, i, x])
    np.testing.assert_array_equal(made(File(tmp_path / "a.sgy", format=SegY(True)), CUBE), values)


def test_a_map_is_placed_by_its_reference_system(tmp_path):
    """One foot of a US survey is 1200/3937 m; a degree is no length."""
    values = np.arange(54.0).reshape(6, 9)
    write_tiff(tmp_path / "feet.tif", values, "EPSG:2263")
    write_tiff(tmp_path / "degrees.tif", values, "EPSG:4326")
    foot = 1200 / 3937
    grid = Grid((6, 9), (10 * foot, 20 * foot), (5 * foot, -40 * foot))
    np.testing.assert_array_equal(made(File(tmp_path / "feet.tif"), grid), values)
    with pytest.raises(ValueError, match="does not say where its samples lie in metres"):
        made(File(tmp_path / "degrees.tif", method="linear"))
    moved = File(tmp_path / "degrees.tif", method="linear", spacing=(10, 20), origin=(5, -40))
    np.testing.assert_allclose(made(moved), values, rtol=1e-14)


def test_a_cell_of_a_map_without_data_is_missing(tmp_path):
    write_ascii(tmp_path / "a.asc", np.where(Z + X == 45, -9999, Z + X))
    grid = Grid(shape=(3, 3), spacing=(20, 20), origin=(10, 10))
    with pytest.raises(
        ValueError, match=r"a.asc: 3 values .* first at \(0, 4\), that is \(10, 90\) m"
    ):
        made(File(tmp_path / "a.asc", method="linear"), grid)


# --- refusals


def test_a_package_that_is_missing_is_named_with_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.sgy").touch()
    (tmp_path / "a.tif").touch()
    for name, path in (("segyio", "a.sgy"), ("rasterio", "a.tif")):
        monkeypatch.setitem(sys.modules, name, None)
        said = rf"needs the package {name}: pip install 'diffsim-adjoint\[formats\]'"
        with pytest.raises(ValidationError, match=said):
            File(tmp_path / path)


# what File is told besides path, name and method, and what it answers
REFUSALS = {
    "a grid that reaches beyond the file": (
        {"origin": (10.0, -60.0)},
        "'vp': along z the samples reach from 10 to 75 m, the grid from 5 to 55 m, and nothing is",
    ),
    "spacing twice": ({"spacing": (1.0, 1.0)}, "the file says where its samples lie"),
    "an origin for another dimension": ({"origin": (1.0,)}, "origin (1.0,) has 1 entries"),
    "values out of range": (
        {"allowed": (1500.0, 2390.0)},
        "the allowed range from 1500 to 2390 m/s: the first, at (4, 8), is 2429",
    ),
    "no range": ({"allowed": (2.0, 1.0)}, "is no range"),
    "no method": ({"method": None, "spacing": (), "origin": (0.0, 0.0)}, "resample it by a method"),
    "contradicting units": ({"units": "km/s"}, "the file says m/s, the case km/s"),
    "an unknown name": ({"name": "vs"}, "has no array 'vs': it holds vp"),
    "no name": ({"name": ""}, "give name, one of vp"),
    "bytes of another shape": ({"format": Raw(shape=(1,))}, "of shape (1,) takes 4: correct"),
    "another format": ({"format": fields.Npz()}, "is not an npz file"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_file_that_does_not_suit_is_refused(tmp_path, name):
    if name == "contradicting units":
        pytest.importorskip("pint", reason="needs the extra formats")
    told, said = REFUSALS[name]
    path = saved(model(), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=re.escape(said)):
        made(File(**{"path": path, "name": "vp", "method": "linear", **told}), units="m/s")


def test_another_quantity_is_refused(tmp_path):
    pytest.importorskip("pint", reason="needs the extra formats")
    path = saved(model(units="kg/m3"), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="kg/m3 is no unit of a field in m/s"):
        made(File(path, "vp", method="linear"), units="m/s")


def test_an_origin_moves_a_file_that_has_its_own(tmp_path):
    """As a map far from zero; to the round-off of its coordinates, 1e-10 of 3e6 m."""
    far = model().assign_coords(z=model().z + 5e5, x=model().x + 3e6)
    moved = File(saved(far, tmp_path / "far.nc"), "vp", method="linear", origin=(0, -60))
    there = File(saved(model(), tmp_path / "a.nc"), "vp", method="linear")
    np.testing.assert_allclose(made(moved, units="m/s"), made(there, units="m/s"), rtol=1e-10)


def test_places_in_degrees_are_not_taken_for_metres(tmp_path):
    pytest.importorskip("pint", reason="needs the extra formats")
    degrees = model().assign_coords(x=("x", np.arange(32.0), {"units": "degrees_east"}))
    path = saved(degrees, tmp_path / "a.nc")
    with pytest.raises(ValueError, match="does not say where its samples lie in metres"):
        made(File(path, "vp", method="linear"))
    assert made(File(path, "vp", method="linear", spacing=(5, 7), origin=(0, -60))).shape == (6, 9)


def test_a_hole_is_named_by_its_place_before_it_spreads(tmp_path):
    holed = model()
    holed[3, 4] = np.nan
    path = saved(holed, tmp_path / "a.nc")
    for method in ("nearest", "linear", "cubic"):
        with pytest.raises(ValueError, match=r"1 values .* at \(3, 4\), that is \(15, -32\) m"):
            made(File(path, "vp", method=method))


def test_too_few_samples_for_a_method_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", q=np.ones((3, 20)))
    file = File(tmp_path / "a.npz", "q", method="cubic", spacing=(40, 20), origin=(0, -40))
    with pytest.raises(ValueError, match="cubic takes 4 samples along z, but there are 3"):
        made(file)


def test_a_file_of_unknown_format_is_refused(tmp_path):
    (tmp_path / "a.dat").write_text("1 2 3")
    with pytest.raises(ValidationError, match=r"no format is known by '.dat': give format"):
        File(tmp_path / "a.dat")
    with pytest.raises(ValidationError, match="no real number"):
        Raw(shape=(1,), dtype="S4")
    with pytest.raises(ValidationError, match="holds no named arrays: leave out name 'vp'"):
        File(tmp_path / "a.dat", "vp", Raw(shape=(5,), dtype="u1"))
    (tmp_path / "a.nc").write_text("no NetCDF")
    with pytest.raises(ValidationError, match="cannot be read as NetCDF"):
        File(tmp_path / "a.nc", "vp", NetCDF())


# --- in a case


def test_a_case_names_a_format_as_an_object(tmp_path):
    pytest.importorskip("pint", reason="needs the extra formats")
    np.full((40, 60), 2.0, "f4").tofile(tmp_path / "vp.bin")
    file = (
        "{type: File, path: vp.bin, method: linear, spacing: [5, 5], units: km/s, "
        "format: {type: Raw, shape: [40, 60], order: F}}"
    )
    text = CASE.replace("{type: File, path: models.npz, name: smooth}", file)
    text = text.replace("{type: File, path: models.npz, name: real}", "{type: Constant, value: 9}")
    (tmp_path / "a.yaml").write_text(text)
    np.testing.assert_allclose(load(tmp_path / "a.yaml").problem.params.speed, 2000)
    (tmp_path / "a.yaml").write_text(text.replace("[40, 60]", "[40, 61]"))
    with pytest.raises(CaseError, match=r"a.yaml:12:3 params.speed: .* has 9600 bytes, but"):
        load(tmp_path / "a.yaml")
