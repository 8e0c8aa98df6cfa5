"""A folder of files that are ours alone: each written whole or not at all, and checked when read.

A file is a magic line, a header, its data, and a checksum of all that. It is written under another
name and renamed, so that whoever is killed leaves no half of one. Links are never followed, and a
folder that holds anything else is refused. Needs POSIX.
"""

import errno
import fcntl
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"diffsim states 1\n"
NAME = re.compile(r"(state-\d+|note)(\.part)?")
LENGTH, CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


class Folder:
    """Exclusive use of a folder, until `close`."""

    def __init__(self, path: Path):
        self.path = path
        with self._explained("give a folder that you may write to, and no link to one"):
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with self._explained("another gradient uses this folder: give each its own"):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Let others use it."""
        os.close(self._fd)

    def names(self) -> list[str]:
        """What is there."""
        return os.listdir(self._fd)

    def _check(self):
        names = self.names()
        for name in names:
            mode = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode
            if not NAME.fullmatch(name) or not stat.S_ISREG(mode) or "note" not in names:
                raise FileExistsError(
                    errno.EEXIST,
                    "this was not put there by a gradient: give an empty folder of its own, "
                    "or remove this",
                    str(self.path / name),
                )
        for name in names:
            if name.endswith(".part"):
                self.remove(name)

    def write(self, name: str, header: dict[str, Any], buffers: Sequence[Any]):
        """A file with a header (any JSON) and data; replaces one of this name."""
        head = json.dumps(header).encode()
        pieces = [MAGIC, LENGTH.pack(len(head)), head, *buffers]
        checksum, part = 0, f"{name}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with self._explained("make room or choose another folder", name):
            try:
                with open(os.open(part, flags, 0o600, dir_fd=self._fd), "wb") as file:
                    for piece in pieces:
                        file.write(piece)
                        checksum = zlib.crc32(piece, checksum)
                    file.write(CHECKSUM.pack(checksum))
                os.rename(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                with suppress(OSError):
                    self.remove(part)
                raise

    def read(self, name: str) -> tuple[dict[str, Any], np.ndarray]:
        """A file's header and data."""
        with self._explained("remove the folder and start anew", name):
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd), "rb") as file:
                whole = np.empty(os.fstat(file.fileno()).st_size, np.uint8)
                count = file.readinto(whole.data)
            body, end = whole[: -CHECKSUM.size], whole[-CHECKSUM.size :].tobytes()
            sound = count == len(whole) and body[: len(MAGIC)].tobytes() == MAGIC
            if not sound or end != CHECKSUM.pack(zlib.crc32(body.data)):
                raise OSError(errno.EIO, "truncated or damaged")
        start = len(MAGIC) + LENGTH.size
        (length,) = LENGTH.unpack(body[len(MAGIC) : start].tobytes())
        return json.loads(body[start : start + length].tobytes()), body[start + length :]

    def remove(self, name: str):
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    @contextmanager
    def _explained(self, advice: str, name: str = ""):
        try:
            yield
        except OSError as error:
            path = str(self.path / name)
            raise OSError(error.errno, f"{error.strerror}; {advice}", path) from error
