"""How the benchmarks time, and on what: compile once, run all in turn, take the least."""

import platform
import time
from datetime import date

import jax
import numpy as np


def compiled(program, *args):
    """The compiled program and the seconds that compiling took."""
    start = time.perf_counter()
    program = jax.jit(program).lower(*args).compile()
    return program, time.perf_counter() - start


def least(calls, rounds=5):
    """The least seconds of each call, the calls in turn; each runs once before that counts."""
    times = np.full((rounds + 1, len(calls)), np.inf)
    for row in times:
        for j, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            row[j] = time.perf_counter() - start
    return times[1:].min(axis=0)


def machine():
    """The date, the machine and the versions, for the head of a table."""
    versions = f"Python {platform.python_version()}, jax {jax.__version__}"
    return f"{date.today()}, {platform.machine()}, {jax.devices()[0].device_kind}, {versions}"
