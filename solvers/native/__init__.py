"""Compiled sweeps behind plain JAX functions, used where they were built and run on a CPU.

XLA's CPU back end makes several kernels of what is one sweep over memory: ``wave.h``, ``water.h``
and ``heat.h`` are such sweeps, which XLA calls by ``wave_calls.h`` and so on. They are built when
the package is installed, if there is a C++ compiler; without it, on other devices, and for
derivatives the plain function does the same.
"""

import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

from diffsim.batch import in_turn
from diffsim.linear import jvp

SWEEPS = (
    *("leap", "expose", "transpose", "adjoin", "image", "retrace"),  # of waves
    *("unfilled", "take", "put"),  # memory, and points in it
    *("advance", "pull_advance"),  # of shallow water
    *("conduct", "correlate"),  # of heat
)
TYPES = "float32", "float64"  # a library for each


@cache
def built() -> bool:
    """Whether compiled sweeps are at hand; ``DIFFSIM_NATIVE=0`` in the environment says no."""
    if os.environ.get("DIFFSIM_NATIVE") == "0":
        return False
    return all(_registered(name) for name in TYPES)


def _registered(name) -> bool:
    """Whether the library of a type of numbers was found and XLA knows its sweeps."""
    spec = find_spec(f"solvers.native._{name}")
    if spec is None or spec.origin is None:
        return False
    library = ctypes.CDLL(spec.origin)
    if not _of_these_sources(library):
        warnings.warn(
            f"{spec.origin} was compiled from other sources than are here, so plain JAX runs "
            "instead: install the package again",
            stacklevel=2,
        )
        return False
    if not library.diffsim_runs_here():
        return False
    for sweep in SWEEPS:
        handler = jax.ffi.pycapsule(getattr(library, f"diffsim_{sweep}"))
        jax.ffi.register_ffi_target(f"diffsim_{sweep}_{name}", handler, platform="cpu")
    return True


def _of_these_sources(library) -> bool:
    """Whether a library was built from the sources beside this file, as `build` stamps it."""
    stamp = getattr(library, "diffsim_sources", None)
    if stamp is None:
        return False
    stamp.restype = ctypes.c_char_p
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("*.cc"), *folder.glob("*.h")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    return stamp() == digest.hexdigest().encode()


def twin(plain: Callable, compiled: Callable) -> Callable:
    """``plain``, which on a CPU has the values of ``compiled``, a `call` of a sweep.

    Both take the same pytrees of arrays and return the same ones; sweeps know one type at a time,
    float32 or float64, and what mixes them is left to ``plain``. Derivatives of any order are those
    of ``plain``; a batch goes through the sweep, and through a loop of steps that have one, one
    member after the other: each takes all cores.
    """
    if not built():
        return plain
    plain = jax.jit(plain, inline=True)  # traced once, though it is asked for its shapes as well

    def flat(f, tree, *leaves):
        return jax.tree.leaves(f(*jax.tree.unflatten(tree, leaves)))

    def both(*args):
        leaves, tree = jax.tree.flatten(args)
        if not _of_one_type(leaves):
            return plain(*args)
        out = jax.eval_shape(plain, *args)
        how = {"plain": partial(flat, plain, tree), "compiled": partial(flat, compiled, tree)}
        leaves = _twin.bind(*leaves, **how)
        return jax.tree.unflatten(jax.tree.structure(out), leaves)

    return both


def _of_one_type(leaves):
    types = {jnp.result_type(leaf) for leaf in leaves}
    inexact = {t for t in types if jnp.issubdtype(t, jnp.inexact)}
    return len(inexact) == 1 and inexact.pop().name in TYPES


def call(sweep: str, results, aliases: dict[int, int], args, **told):
    """A compiled sweep's results, shaped like ``results``, some of them in arguments' memory."""
    shapes = [jax.ShapeDtypeStruct(jnp.shape(r), r.dtype) for r in results]
    target = f"diffsim_{sweep}_{results[0].dtype}"
    return jax.ffi.ffi_call(target, shapes, input_output_aliases=aliases)(*args, **told)


_twin = Primitive("twin")
_twin.multiple_results = True


def _plainly(*args, plain, **_):
    return plain(*args)


def _jvp(primals, tangents, *, plain, **how):
    results = _twin.bind(*primals, plain=plain, **how)
    return results, jvp(plain, primals, tangents)[1]


_twin.def_impl(_plainly)
_twin.def_abstract_eval(
    lambda *args, **how: jax.make_jaxpr(partial(_plainly, **how))(*args).out_avals
)
ad.primitive_jvps[_twin] = _jvp
in_turn(_twin)
mlir.register_lowering(_twin, mlir.lower_fun(_plainly, multiple_results=True))
mlir.register_lowering(
    _twin,
    mlir.lower_fun(lambda *args, compiled, **_: compiled(*args), multiple_results=True),
    platform="cpu",
)
