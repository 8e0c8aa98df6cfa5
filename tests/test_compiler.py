"""What is left when a program is compiled."""

import ctypes

import jax
import pytest

from diffsim import compiler

PIECES, PIECE = 50_000, 2000  # 100 MB, each piece too small to be a mapping of its own
pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.pythonapi, "malloc_trim"), reason="this C library gives nothing back"
)


def resident():
    """Bytes of memory that the process holds."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


def test_memory_that_is_free_goes_back_when_a_program_was_compiled(monkeypatch):
    """Pieces below one that is held stay with the C library when they are freed. Of their 100 MB
    nine tenths and more must be gone once a program was compiled: the rest shares pages with what
    others hold. They are written to, or they would not be resident; the program is a new one, or it
    would not be compiled, and not the first one, for which the compiler itself is loaded.
    """
    jax.jit(lambda x: x * 2 - 5)(1.0)
    monkeypatch.setattr(compiler, "LONG", 0)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    pieces = [libc.malloc(PIECE) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, PIECE)
    for piece in pieces[:-1]:
        libc.free(piece)
    before = resident()
    jax.jit(lambda x: x * 3 + 7)(1.0)
    libc.free(pieces[-1])
    assert before - resident() > 0.9 * PIECES * PIECE
