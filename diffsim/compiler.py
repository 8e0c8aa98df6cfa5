"""What XLA's compiler leaves is given back to the system.

To compile a gradient takes 100 to 200 MB. They are free again before the program runs, but the C
library keeps them in pieces that fields do not fit into, so both would count.
"""

import ctypes

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 0.3  # s to compile; what took less leaves little


def give_back():
    """Have the C library give back what is free whenever a program was compiled, if it can: glibc
    does, in some 40 ms."""
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is None:
        return

    def compiled(event, duration_secs, **_):
        if event == COMPILED and duration_secs >= LONG:
            trim(ctypes.c_size_t(0))

    jax.monitoring.register_event_duration_secs_listener(compiled)
