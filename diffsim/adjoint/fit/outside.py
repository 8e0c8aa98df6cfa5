"""What a gradient would take whose states leave the device: for the host's memory, or for files."""

import shutil
import tempfile
import time
from pathlib import Path

import jax
import jax.core
import psutil

from diffsim.adjoint.checkpointed import Revolve
from diffsim.adjoint.fit.forecast import BLOCKS, Basis, Forecast
from diffsim.adjoint.fit.trial import Loop
from diffsim.adjoint.pieces import plain
from diffsim.adjoint.schedule.plan import Plan
from diffsim.adjoint.store.states import BEHIND, Disk, Host

TRANSFERS = 3  # states that are kept and loaded on trial


def outside(loop: Loop, basis: Basis, folder: Path | None) -> list[Forecast]:
    """`Host` where the device's memory is not the host's own, `Disk` where a folder is given.

    Such gradients are driven from Python: there are none while JAX traces.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for part in loop[1:4] for leaf in part)
    if traced or loop.length <= BLOCKS[0]:
        return []
    found = []
    apart, state = jax.devices()[0].platform != "cpu", max(basis.state, 1)
    if apart and (room := psutil.virtual_memory().available // state - BEHIND - 1) > 0:
        found.append(_by_store(Host(), Host(), room, loop, basis))
    if folder is not None:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
        with tempfile.TemporaryDirectory(dir=existing) as there:
            if (room := shutil.disk_usage(there).free // (2 * state)) > 0:
                found.append(
                    _by_store(Disk(folder), Disk(Path(there) / "trial"), room, loop, basis)
                )
    return found


def _by_store(store: Host | Disk, like: Host | Disk, room: int, loop: Loop, basis: Basis):
    """The forecast for a store with room for so many states; ``like`` it one is tried."""
    adjoint = Revolve(min(room, -(-loop.length // BLOCKS[0]) - 1), BLOCKS[0], store)
    plan = adjoint.plan(loop.length)
    evaluations = plan.step_evaluations(reversal=0)
    computing = basis.evaluation * evaluations + basis.transpose * loop.length
    moving = _transfers(plan) * _transfer_seconds(like, loop)
    on_device = (
        basis.rest + (2 + plan.block) * basis.state
    )  # live ones, and those of the last block
    waiting = BEHIND + 1 + (plan.slots if isinstance(store, Host) else 1)
    if jax.devices()[0].platform == "cpu":
        on_device, waiting = on_device + waiting * basis.state, 0
    return Forecast(
        adjoint,
        plan.slots + plan.block,
        on_device,
        evaluations / loop.length,
        max(computing, moving),  # side by side
        host=waiting * basis.state,
        disk=2 * plan.slots * basis.state if isinstance(store, Disk) else 0,
    )


def _transfers(plan: Plan) -> int:
    """How many states are kept and loaded, whichever is more."""
    columns = plan.columns
    kept = len(plan.keep) + sum(columns.fill) + columns.reverse.count(0)
    return max(kept, len(columns.start) + sum(columns.reverse))


def _transfer_seconds(store: Host | Disk, loop: Loop) -> float:
    """s to keep a state and have it back."""
    leaves = [plain(leaf) for leaf in loop.carry]
    start = time.perf_counter()
    with store.open("trial") as states:
        for block in range(TRANSFERS):
            states.save(block, leaves)
        for block in range(TRANSFERS):
            states.load(block)
    return (time.perf_counter() - start) / TRANSFERS
