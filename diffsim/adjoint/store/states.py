"""Where kept states are: on the device, in the host's memory, on disk.

A store's ``open`` gives the states that are kept at the moment, by the number of the block that
each precedes. One thread writes behind the computation and one reads ahead of it.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Gt
from pydantic import InstanceOf

from diffsim.adjoint.store.codec import Codec, Exact, pack, unpack, worst
from diffsim.adjoint.store.place import Files, Memory, Tiers
from diffsim.solver import frozen

log = logging.getLogger(__name__)
Arrays = list[np.ndarray]
BEHIND = 4  # writes and removals that may wait; a waiting state is one more in memory
PAUSE = 5.0  # s between two notes at least
SHARE = 20  # after a note that took t s to write there is none for SHARE t


@frozen
class Device:
    """One array on the device with a place for each state, inside one compiled program."""


@frozen
class Host:
    """The host's memory.

    Args:
        codec: how a state is written
    """

    codec: InstanceOf[Codec] = Exact()

    def open(self, fingerprint: str) -> "States":
        return States(Memory(), self.codec)


@frozen
class Disk:
    """Files in a folder, which is made if need be, is used by one gradient at a time, and is empty
    again after it.

    A gradient that was killed goes on where it was when the same program runs again. For that, up
    to twice as many states may be on disk as the plan has slots. Files survive the program, not
    necessarily a power cut; whatever is damaged is found by its checksum and refused.

    Args:
        folder: on a disk that writes a state about as fast as a block of steps is computed
        codec: how a state is written
    """

    folder: Path
    codec: InstanceOf[Codec] = Exact()

    def open(self, fingerprint: str) -> "States":
        return States(Files(self.folder, f"{fingerprint} {self.codec!r}"), self.codec)


@frozen
class Tiered:
    """The states that are needed next in the host's memory, the others on disk.

    A reversal needs the last state first, so those of the highest blocks stay in memory.

    Args:
        fast: states in memory
        disk: where the others are; its codec is for both
    """

    fast: Annotated[int, Gt(0)]  # states
    disk: Disk

    def open(self, fingerprint: str) -> "States":
        codec = self.disk.codec
        files = Files(self.disk.folder, f"{fingerprint} {codec!r}")
        return States(Tiers(self.fast, files), codec)


Store = Device | Host | Disk | Tiered


class Note(NamedTuple):
    """How far a gradient is: whatever it takes to go on from there."""

    where: dict[str, Any]  # JSON; empty at the start
    arrays: Arrays


class States:
    """The states kept at the moment; a context that removes them in the end.

    After an exception what is needed to go on later stays. An error of a thread is raised by the
    next call.
    """

    def __init__(self, place: Memory | Files | Tiers, codec: Codec):
        self._place, self._codec = place, codec
        self._writer, self._reader = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._tasks: deque[Future] = deque()
        self._writes: dict[int, Future] = {}
        self._reads: dict[int, Future] = {}
        self.blocks: set[int] = set(place.blocks)
        self.durable = place.durable  # whether notes outlive the process
        self._worst = np.zeros((2, 0))  # error and entry of each leaf, the largest so far
        self._next_note = time.monotonic() + PAUSE

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        failed = kind is not None
        try:
            if not failed:
                self._settle(0)
        except BaseException:
            failed = True
            raise
        finally:
            self._writer.shutdown(cancel_futures=failed)
            self._reader.shutdown(cancel_futures=True)
            self._place.close(keep=failed)
        if not self._codec.exact:
            log.info("states kept as %r: round-off %.1e at most", self._codec, self.round_off)

    def save(self, block: int, leaves: Sequence[Any]):
        """Keep the state before ``block``; the leaves must not be donated or changed later."""
        self._settle(BEHIND - 1)
        self.blocks.add(block)
        self._writes[block] = self._behind(self._write, block, leaves)

    def load(self, block: int) -> Arrays:
        """The state before ``block``."""
        self._prefetch(block)
        return self._reads.pop(block).result()

    def prefetch_highest(self):
        """Read ahead the state that a reversal needs next."""
        if self.blocks:
            self._prefetch(max(self.blocks))

    def _prefetch(self, block):
        if block not in self._reads:
            written = self._writes.pop(block, None)
            self._reads[block] = self._reader.submit(self._read, block, written)

    def drop(self, block: int):
        """The state before ``block`` is not needed any more, if it was kept at all."""
        if block in self.blocks:
            self.blocks.remove(block)
            self._writes.pop(block, None)
            self._behind(self._place.remove, block)

    @property
    def note_is_due(self) -> bool:
        """Whether it is time to write down how far the gradient is."""
        return self.durable and time.monotonic() > self._next_note

    def note(self, where: dict[str, Any], leaves: Sequence[Any]):
        """Write down how far the gradient is; the leaves may be donated or changed afterwards."""
        self._settle(BEHIND - 1)
        self._next_note = np.inf  # until this one is written
        self._behind(self._note, where, [np.array(leaf) for leaf in leaves])

    def recall(self) -> Note:
        """The note that an interrupted gradient has left."""
        where, packed = self._place.recall()
        return Note(where, [unpack(leaf, Exact()) for leaf in packed])

    def _behind(self, task, *args) -> Future:
        self._tasks.append(future := self._writer.submit(task, *args))
        return future

    def _settle(self, waiting: int):
        while len(self._tasks) > waiting or (self._tasks and self._tasks[0].done()):
            self._tasks.popleft().result()

    def _write(self, block, leaves):
        arrays = [np.asarray(leaf) for leaf in leaves]
        packed = [pack(array, self._codec) for array in arrays]
        if not self._codec.exact:
            self._measure(block, arrays, packed)
        self._place.write(block, packed)

    def _measure(self, block, arrays, packed):
        pairs = zip(arrays, packed, strict=True)
        found = np.array([worst(*pair, self._codec) for pair in pairs]).reshape(-1, 2).T
        if np.any(np.isinf(found[0])):
            raise OverflowError(
                f"the state before block {block} goes beyond what {self._codec!r} can hold: "
                "scale the fields or choose Exact()"
            )
        self._worst = np.maximum(found, self._worst) if self._worst.size else found

    @property
    def round_off(self) -> float:
        """The largest error so far, relative to the largest entry of the same leaf in any state."""
        error, largest = self._worst
        return float(np.max(error / np.where(largest, largest, 1), initial=0.0))

    def _read(self, block, written):
        if written is not None:
            written.result()
        return [unpack(leaf, self._codec) for leaf in self._place.read(block)]

    def _note(self, where, arrays):
        start = time.monotonic()
        self._place.note(where, [pack(array, Exact()) for array in arrays])
        end = time.monotonic()
        self._next_note = end + max(PAUSE, SHARE * (end - start))
