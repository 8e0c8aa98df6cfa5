"""Where packed states and notes lie, and how they are found again."""

import errno
from itertools import pairwise
from pathlib import Path

import numpy as np

from diffsim.adjoint.store.codec import Packed


class Memory:
    """The host's memory."""

    durable = False

    def __init__(self):
        self.blocks: dict[int, list[Packed]] = {}

    def write(self, block, packed):
        self.blocks[block] = packed

    def read(self, block):
        return self.blocks[block]

    def remove(self, block):
        del self.blocks[block]

    def note(self, where, packed):
        pass

    def recall(self):
        return {}, []

    def close(self, keep):
        self.blocks.clear()


class Files:
    """Files in a folder; a state that the last note needs stays there until the next note."""

    durable = True

    def __init__(self, path: Path, fingerprint: str):
        from diffsim.adjoint.store.folder import Folder  # POSIX alone has what it takes

        self._folder, self._fingerprint = Folder(path), fingerprint
        self.blocks: set[int] = set()
        self._noted: set[int] = set()  # what the note needs, whether or not dropped since
        try:
            self._open(path)
        except BaseException:
            self._folder.close()
            raise

    def _open(self, path):
        if not self._folder.names():
            self.note({}, [])  # marks the folder as ours
        header, _ = self._folder.read("note")
        if header["fingerprint"] != self._fingerprint:
            raise FileExistsError(
                f"{path} holds an interrupted gradient of another problem, or of this one in "
                "another version: run that to its end, remove the folder, or choose another one"
            )
        self._noted = set(header["blocks"])
        self.blocks = set(self._noted)
        for name in set(self._folder.names()) - {"note", *map(_name, self.blocks)}:
            self._folder.remove(name)

    def write(self, block, packed):
        self._put(_name(block), {"block": block}, packed)
        self.blocks.add(block)

    def read(self, block):
        return self._get(_name(block), block)[1]

    def remove(self, block):
        self.blocks.discard(block)
        if block not in self._noted:
            self._folder.remove(_name(block))

    def note(self, where, packed):
        self._put("note", {"where": where, "blocks": sorted(self.blocks)}, packed)
        for block in self._noted - self.blocks:
            self._folder.remove(_name(block))
        self._noted = set(self.blocks)

    def recall(self):
        header, packed = self._get("note")
        return header["where"], packed

    def close(self, keep):
        try:
            if not keep:
                self.blocks.clear()
                self.note({}, [])  # from here on there is nothing to go on with
                for name in sorted(self._folder.names(), key="note".__eq__):
                    self._folder.remove(name)
        finally:
            self._folder.close()

    def _put(self, name, header, packed):
        leaves = [(leaf.dtype, leaf.shape, [len(part) for part in leaf.parts]) for leaf in packed]
        header |= {"fingerprint": self._fingerprint, "leaves": leaves}
        self._folder.write(name, header, [part for leaf in packed for part in leaf.parts])

    def _get(self, name, block=None):
        header, data = self._folder.read(name)
        if (header["fingerprint"], header.get("block")) != (self._fingerprint, block):
            raise OSError(errno.EIO, "not what was put here", str(self._folder.path / name))
        packed, start = [], 0
        for dtype, shape, sizes in header["leaves"]:
            ends = np.cumsum([start, *sizes]).tolist()
            parts = [data[a:b] for a, b in pairwise(ends)]
            packed.append(Packed(dtype, tuple(shape), parts))
            start = ends[-1]
        return header, packed


def _name(block: int) -> str:
    return f"state-{block}"


class Tiers:
    """The highest ``fast`` blocks in memory, the others in files; all in files when noted."""

    durable = True

    def __init__(self, fast: int, files: Files):
        self._fast, self._memory, self._files = fast, {}, files

    @property
    def blocks(self):
        return self._files.blocks | self._memory.keys()

    def write(self, block, packed):
        self._memory[block] = packed
        if len(self._memory) > self._fast:
            lowest = min(self._memory)
            self._spill(lowest)
            del self._memory[lowest]  # only now: a reader finds it in one of the two

    def read(self, block):
        packed = self._memory.get(block)
        return self._files.read(block) if packed is None else packed

    def remove(self, block):
        self._memory.pop(block, None)
        self._files.remove(block)

    def note(self, where, packed):
        for block in self._memory:
            self._spill(block)
        self._files.note(where, packed)

    def recall(self):
        return self._files.recall()

    def close(self, keep):
        self._files.close(keep)

    def _spill(self, block):
        if block not in self._files.blocks:
            self._files.write(block, self._memory[block])
