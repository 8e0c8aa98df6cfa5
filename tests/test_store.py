"""Where states are kept: what comes back is what was put there, or an error says why not."""

import errno
import logging
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest

from diffsim.adjoint.store import place
from diffsim.adjoint.store import states as store
from diffsim.adjoint.store.codec import Bounded, Exact, Lossless, Rounded, pack, unpack, worst
from diffsim.adjoint.store.folder import Folder
from diffsim.adjoint.store.states import Disk, Host, Tiered


def codecs():
    extra = pytest.mark.skipif(not _has_numcodecs(), reason="needs the extra diffsim[compress]")
    always = Exact(), Rounded("float32"), Rounded("bfloat16")
    compressing = [lambda: Lossless(), lambda: Bounded(1e-4), lambda: Bounded(1e-9)]
    return [lambda codec=codec: codec for codec in always] + [
        pytest.param(make, marks=extra) for make in compressing
    ]


def _has_numcodecs():
    try:
        import numcodecs  # noqa: F401
    except ImportError:
        return False
    return True


def leaves(seed=0, shape=(5, 7)):
    """A state with every kind of leaf."""
    random = np.random.default_rng(seed)
    real = random.standard_normal(shape) * 10.0 ** random.integers(-3, 3, shape)
    return [
        real,
        real.astype(np.float32),
        real + 1j * real[::-1],
        real.astype(ml_dtypes.bfloat16),
        np.arange(6, dtype=np.uint32),
        np.array(True),
        np.array(2.5),
        np.zeros((0, 3)),
    ]


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_array_equal(a, b)


BOUND = {"float32": 2.0**-24, "bfloat16": 2.0**-8}  # half of the last bit kept


@pytest.mark.parametrize("make", codecs())
def test_what_is_packed_comes_back_within_the_stated_error(make):
    """Rounding to nearest errs by half of the last bit kept, times a value's own size; 1 % more for
    the division here. Integers and types that a codec does not know come back exactly."""
    codec = make()
    bound = getattr(codec, "relative", 0.0) or BOUND.get(getattr(codec, "dtype", ""), 0.0)
    for leaf in leaves():
        packed = pack(leaf, codec)
        back = unpack(packed, codec)
        assert back.dtype == leaf.dtype
        assert back.shape == leaf.shape
        if leaf.dtype.name in ("float32", "float64", "complex128") and not codec.exact:
            floats = [a.reshape(-1).view(leaf.real.dtype) for a in (back, leaf)]
            error = np.abs(floats[0] - floats[1]) / np.where(floats[1], np.abs(floats[1]), 1)
            assert np.all(error <= 1.01 * bound)
            error, largest = worst(leaf, packed, codec)
            assert error <= 1.01 * np.sqrt(2) * bound * largest
        else:
            assert_equal([back], [leaf])


def test_rounding_is_seen_by_the_measure():
    """Nothing in float32 keeps 1/3 of float64."""
    third = np.full(4, 1 / 3)
    error, largest = worst(third, pack(third, Rounded("float32")), Rounded("float32"))
    assert largest == 1 / 3
    assert 1e-8 < error / largest < 6e-8


def test_compression_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    with pytest.raises(ImportError, match=r"pip install 'diffsim-adjoint\[compress\]'"):
        Lossless()


def stores(folder):
    disk = Disk(folder=folder)
    return {"Host": Host(), "Disk": disk, "Tiered": Tiered(fast=2, disk=disk)}


@pytest.mark.parametrize("kind", ["Host", "Disk", "Tiered"])
def test_states_come_back_in_any_order_and_nothing_is_left(tmp_path, kind):
    """More states than may wait to be written, dropped and kept anew in between."""
    with stores(tmp_path / "states")[kind].open("problem") as states:
        for block in range(12):
            states.save(block, leaves(block))
        for block in (11, 3, 0, 7, 3):
            assert_equal(states.load(block), leaves(block))
        for block in range(11, 5, -1):
            states.drop(block)
        states.save(9, leaves(99))
        states.prefetch_highest()
        assert_equal(states.load(9), leaves(99))
        assert_equal(states.load(5), leaves(5))
        assert states.blocks == {0, 1, 2, 3, 4, 5, 9}
    assert kind == "Host" or os.listdir(tmp_path / "states") == []


def test_tiers_keep_the_highest_blocks_in_memory(tmp_path):
    """The reversal goes down: of blocks 0, 3, 5, 8 two are in memory, the others in files."""
    with Tiered(fast=2, disk=Disk(folder=tmp_path)).open("problem") as states:
        for block in (0, 3, 5, 8):
            states.save(block, leaves(block))
        for block in (8, 5, 3, 0):
            states.load(block)
        assert sorted(os.listdir(tmp_path)) == ["note", "state-0", "state-3"]


def test_the_round_off_of_a_lossy_store_is_told(caplog):
    """1/3 is 2.0e-3 off in bfloat16; 1e-60, of the same field at an earlier time, is lost without
    harm."""
    with (
        caplog.at_level(logging.INFO),
        Host(codec=Rounded("bfloat16")).open("problem") as states,
    ):
        states.save(0, [np.full(3, 1e-60)])
        states.save(1, [np.full(3, 1 / 3)])
        np.testing.assert_allclose(states.load(1), [np.full(3, 1 / 3)], rtol=2.0**-8)
    assert "round-off 2.0e-03 at most" in caplog.text


def test_a_state_beyond_the_range_of_its_type_is_an_error():
    with (
        pytest.raises(OverflowError, match=r"block 4 goes beyond what Rounded\(dtype='float32'\)"),
        Host(codec=Rounded("float32")).open("problem") as states,
    ):
        states.save(4, [np.array([1.0, 1e39])])


def interrupted(folder):
    """A folder as an interrupted gradient leaves it: after a note, a state was dropped and another
    one kept."""
    with suppress(KeyboardInterrupt), Disk(folder=folder).open("problem") as states:
        assert states.recall().where == {}
        for block in range(3):
            states.save(block, leaves(block))
        states.note({"block": 3}, leaves(77))
        states.drop(1)
        states.save(5, leaves(5))
        states.load(5)
        raise KeyboardInterrupt


def test_notes_and_states_outlive_an_interruption_and_are_removed_in_the_end(tmp_path):
    """What the note needs is there; what came after it is not."""
    interrupted(tmp_path)
    with Disk(folder=tmp_path).open("problem") as states:
        where, arrays = states.recall()
        assert where == {"block": 3}
        assert_equal(arrays, leaves(77))
        assert states.blocks == {0, 1, 2}
        assert_equal(states.load(1), leaves(1))
    assert os.listdir(tmp_path) == []


def test_a_dropped_state_leaves_the_disk_with_the_next_note(tmp_path):
    with Disk(folder=tmp_path).open("problem") as states:
        states.save(0, leaves())
        states.save(1, leaves())
        states.note({"block": 2}, [])
        states.drop(1)
        states._settle(0)
        assert "state-1" in os.listdir(tmp_path)
        states.note({"block": 3}, [])
        states._settle(0)
        assert "state-1" not in os.listdir(tmp_path)


def test_notes_are_few(tmp_path, monkeypatch):
    """None within a pause of the last one, or within twenty times what that one took to write; none
    where they would not outlive the process."""
    now = [0.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    write = place.Files.note

    def slow(self, *args):
        now[0] += 1.0
        write(self, *args)

    def due_at(states, time):
        now[0] = time
        return states.note_is_due

    with Disk(folder=tmp_path).open("problem") as states:
        assert [due_at(states, time) for time in (0.1, 4.9, 5.1)] == [False, False, True]
        monkeypatch.setattr(place.Files, "note", slow)
        states.note({"block": 1}, [])
        states._settle(0)  # at 6.1 s
        assert [due_at(states, time) for time in (26.0, 26.2)] == [False, True]
    with Host().open("problem") as states:
        assert not due_at(states, 1e9)


def damage(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


def flip(data):
    data[len(data) // 2] ^= 16
    return data


DAMAGES = {
    "truncated": lambda data: data[:-9],
    "empty": lambda data: b"",
    "flipped": flip,
    "flipped in the first line": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "longer": lambda data: data + b"x",
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["state-1", "note"])
def test_a_damaged_file_is_an_error_with_its_path(tmp_path, name, change):
    interrupted(tmp_path)
    damage(tmp_path / name, change)
    with (
        pytest.raises(OSError, match=rf"truncated or damaged; remove the folder.*{name}") as found,
        Disk(folder=tmp_path).open("problem") as states,
    ):
        states.load(1)
    assert found.value.errno == errno.EIO
    assert (tmp_path / "state-0").exists()  # nothing else was lost


def test_a_state_in_the_place_of_another_is_an_error(tmp_path):
    interrupted(tmp_path)
    os.replace(tmp_path / "state-2", tmp_path / "state-1")
    with (
        pytest.raises(OSError, match=r"not what was put here: '.*state-1'"),
        Disk(folder=tmp_path).open("problem") as states,
    ):
        states.load(1)


def test_a_missing_state_is_an_error_with_its_path(tmp_path):
    interrupted(tmp_path)
    os.unlink(tmp_path / "state-1")
    with (
        pytest.raises(FileNotFoundError, match=r"remove the folder and start anew: '.*state-1'"),
        Disk(folder=tmp_path).open("problem") as states,
    ):
        states.load(1)


def test_another_problem_in_the_folder_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(FileExistsError, match="interrupted gradient of another problem"):
        Disk(folder=tmp_path).open("other")
    with pytest.raises(FileExistsError, match="interrupted gradient of another problem"):
        Disk(folder=tmp_path, codec=Rounded("float32")).open("problem")
    assert (tmp_path / "state-0").exists()


def test_two_gradients_at_once_need_two_folders(tmp_path):
    with (
        Disk(folder=tmp_path).open("problem"),
        pytest.raises(BlockingIOError, match="another gradient uses this folder: give each its"),
    ):
        Disk(folder=tmp_path).open("problem")


def test_others_files_are_neither_used_nor_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"give an empty folder.*thesis\.tex"):
        Disk(folder=tmp_path).open("problem")
    os.rename(tmp_path / "thesis.tex", tmp_path / "state-1")
    with pytest.raises(FileExistsError, match=r"give an empty folder.*state-1"):
        Disk(folder=tmp_path).open("problem")
    assert (tmp_path / "state-1").read_text() == "years of work"


@pytest.mark.parametrize("name", ["state-1", "state-9", "state-3.part", "note"])
def test_links_are_not_followed(tmp_path, name):
    """Neither to write nor to read, nor is the link replaced."""
    folder, target = tmp_path / "states", tmp_path / "precious"
    interrupted(folder)
    target.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"data")
    before = target.read_bytes()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(OSError, match=rf"{name}"), Disk(folder=folder).open("problem") as states:
        states.load(1)
    assert target.read_bytes() == before
    assert (folder / name).is_symlink()


def test_a_link_put_where_a_file_is_about_to_be_written_is_not_followed(tmp_path):
    folder, target = Folder(tmp_path / "states"), tmp_path / "precious"
    target.write_text("data")
    (tmp_path / "states" / "note.part").symlink_to(target)
    with pytest.raises(FileExistsError, match="note"):
        folder.write("note", {}, [b"mine"])
    assert target.read_text() == "data"
    folder.close()


def test_a_link_in_the_place_of_a_state_is_not_followed(tmp_path):
    """Though what it points to is what was put there."""
    with suppress(KeyboardInterrupt), Disk(folder=tmp_path / "states").open("problem") as states:
        states.save(0, leaves())
        states._settle(0)
        os.rename(tmp_path / "states" / "state-0", tmp_path / "moved")
        (tmp_path / "states" / "state-0").symlink_to(tmp_path / "moved")
        with pytest.raises(OSError, match=r"state-0"):
            states.load(0)
        raise KeyboardInterrupt


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"no link to one.*link"):
        Disk(folder=tmp_path / "link").open("problem")


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"give a folder that you may write to.*file/states"):
        Disk(folder=tmp_path / "file" / "states").open("problem")


def run_alone(code, *args):
    """A program of its own, without JAX; its last line of errors."""
    program = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def test_a_folder_without_permission_is_an_error_with_its_path(tmp_path):
    """As somebody else, where the tests are run by one who may do anything."""
    code = """
    import os, sys
    from diffsim.adjoint.store.states import Disk
    folder = sys.argv[1]
    os.chdir(folder)  # whoever may not pass the folders above is there already
    os.makedirs("states", 0o555)
    os.chmod(".", 0o755)
    if os.geteuid() == 0:
        os.seteuid(65534)
    Disk(folder="states").open("problem")
    """
    status, error = run_alone(code, tmp_path)
    assert status == 1
    assert "PermissionError" in error
    assert "make room or choose another folder: 'states/note'" in error


def test_a_full_disk_is_an_error_with_the_path_and_leaves_no_half_files(tmp_path):
    """The limit of a file's size stands for a disk that fills up in the middle of a write."""
    code = """
    import resource, sys
    import numpy as np
    from diffsim.adjoint.store.states import Disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    with Disk(folder=sys.argv[1]).open("problem") as states:
        states.save(0, [np.zeros(1000)])
        for block in range(1, 9):
            states.save(block, [np.zeros(10_000)])
    """
    status, error = run_alone(code, tmp_path)
    assert status == 1
    assert "File too large; make room or choose another folder" in error
    assert f"{tmp_path}/state-1'" in error
    assert sorted(os.listdir(tmp_path)) == ["note", "state-0"]


@pytest.mark.parametrize("step", ["save", "drop", "note", "load", "leave"])
def test_an_error_behind_is_raised_in_front(tmp_path, monkeypatch, step):
    """Whatever is called next raises what went wrong in the thread, at the latest the end."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "state-0")

    monkeypatch.setattr(place.Memory, "write", fail)
    next_calls = {
        "save": lambda states: [states.save(block, leaves()) for block in range(1, 9)],
        "drop": lambda states: states.drop(0),
        "note": lambda states: states.note({}, []),
        "load": lambda states: states.load(0),
        "leave": lambda states: None,
    }
    with pytest.raises(OSError, match="No space left"), Host().open("problem") as states:
        next_calls[step]([states.save(0, leaves()), states][1])


def test_a_killed_program_leaves_a_folder_that_can_be_used_again(tmp_path):
    """SIGKILL in the middle of a write: the half file goes, states and note stay."""
    code = """
    import os, signal, sys
    import numpy as np
    from diffsim.adjoint.store.states import Disk
    states = Disk(folder=sys.argv[1]).open("problem")
    states.save(0, [np.arange(3)])
    states.note({"block": 1}, [])
    states._settle(0)
    states._place._folder.write("state-1", {}, (os.kill(os.getpid(), signal.SIGKILL) for _ in "1"))
    """
    status, _ = run_alone(code, tmp_path)
    assert status == -signal.SIGKILL
    (tmp_path / "state-1.part").write_bytes(b"half")
    with Disk(folder=tmp_path).open("problem") as states:
        assert sorted(os.listdir(tmp_path)) == ["note", "state-0"]
        assert states.recall().where == {"block": 1}
        assert_equal(states.load(0), [np.arange(3)])
