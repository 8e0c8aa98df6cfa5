"""Calls from a compiled program to the host, which a program kept on disk can make as well.

A program with a `jax.debug.callback` holds a Python object, so JAX's compilation cache does not
keep it. A program that calls a handler of XLA's foreign function interface (FFI) holds its name;
the handler may be Python, behind the C structures of ``xla/ffi/api/c_api.h``, version 0.1, which
newer versions only add to.
"""

import ctypes as c
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from diffsim.solver import frozen

VERSION = 0, 1
METADATA = 1  # the extension of a call that asks for the handler's version
INTERNAL = 13  # the code of an error
# by XLA_FFI_DataType
SCALARS = {1: c.c_bool, 4: c.c_int32, 5: c.c_int64, 11: c.c_float, 12: c.c_double}
DTYPES = "bool", "int32", "int64", "float32", "float64"


@frozen
class Named:
    """A function of the host that programs call by its name.

    Args:
        name: like no other one's; of two functions with one name programs call the latter
        function: of numbers; what it returns is ignored
    """

    name: str
    function: Callable[..., Any]

    def __call__(self, *args):
        """Just call it."""
        return self.function(*args)


def named(function: Callable[..., Any]) -> Named:
    """A function of a module as one that programs call by its name: a decorator."""
    return Named(f"{function.__module__}.{function.__qualname__}", function)


def call(function: Callable[..., Any], *args):
    """Call the host when a program gets here: like `jax.debug.callback`, with scalars as numbers.

    A program all of whose calls are of `named` functions can be kept on disk, if it runs on one
    CPU device.
    """
    if isinstance(function, Named):
        scalars = [jnp.asarray(a) for a in args]
        scalars = [a if a.dtype.name in DTYPES else a.astype(float) for a in scalars]
        _call_p.bind(*scalars, f=function)
    else:
        jax.debug.callback(partial(_with_numbers, function), *args)


def _with_numbers(function, *args):
    function(*(arg.item() for arg in args))


# --- as JAX sees it


def _plainly(*args, f):
    jax.debug.callback(partial(_with_numbers, f.function), *args)
    return []


def _lowered(ctx, *args, f):
    """By its name, where one device runs the program: of several, one would have to be chosen."""
    if getattr(ctx.module_context.axis_context, "num_devices", None) != 1:
        return mlir.lower_fun(partial(_plainly, f=f), multiple_results=True)(ctx, *args)
    return jax.ffi.ffi_lowering(_registered(f), has_side_effect=True)(ctx, *args)


def _unrolled(args, dims, *, f):
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    for i in range(size):
        pairs = zip(args, dims, strict=True)
        _call_p.bind(*(a if d is None else jnp.take(a, i, d) for a, d in pairs), f=f)
    return [], []


# what may hold a debug callback may hold one of these
_effects = jax.make_jaxpr(lambda: jax.debug.callback(lambda: None))().effects
_call_p = Primitive("call_host")
_call_p.multiple_results = True
_call_p.def_impl(_plainly)
_call_p.def_effectful_abstract_eval(lambda *args, f: ([], _effects))
ad.primitive_jvps[_call_p] = lambda args, dots, *, f: (_call_p.bind(*args, f=f), [])
batching.primitive_batchers[_call_p] = _unrolled
mlir.register_lowering(_call_p, mlir.lower_fun(_plainly, multiple_results=True))
mlir.register_lowering(_call_p, _lowered, platform="cpu")


# --- as XLA sees it


def _plain(**fields) -> Any:
    """One of the interface's structures, all of which begin with their size."""
    fields = {"size": c.c_size_t} | fields
    return type("", (c.Structure,), {"_fields_": list(fields.items())})


# most may be extended
_struct = partial(_plain, extension=c.c_void_p)
_Version = _struct(major=c.c_int, minor=c.c_int)
_Metadata = _plain(version=_Version)  # and more
# of type `METADATA`; others differ from their fourth field on
_Extension = _plain(type=c.c_int, next=c.c_void_p, metadata=c.POINTER(_Metadata))
_Buffer = _struct(dtype=c.c_int, data=c.c_void_p)  # and its shape
_Args = _struct(count=c.c_int64, types=c.c_void_p, args=c.POINTER(c.POINTER(_Buffer)))
_Error = _struct(message=c.c_char_p, code=c.c_int)
_Api = _struct(
    version=_Version, internal=c.c_void_p, error=c.CFUNCTYPE(c.c_void_p, c.POINTER(_Error))
)
_Frame = _struct(api=c.POINTER(_Api), context=c.c_void_p, stage=c.c_int, args=_Args)  # and more
_Handler = c.CFUNCTYPE(c.c_void_p, c.POINTER(_Frame))
_handlers = []  # XLA knows their addresses alone
_functions: dict[str, Named] = {}


def _registered(f: Named) -> str:
    """The name that XLA knows a function by; it stands for the last one that came with it."""
    name = f"callback {f.name}"
    if name not in _functions:
        handler = _Handler(partial(_handle, name))
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
        _handlers.append(handler)
    _functions[name] = f
    return name


def _handle(name, frame):
    """What XLA calls; gives an error or None."""
    frame = frame.contents
    asked = frame.extension and _Extension.from_address(frame.extension)
    if asked and asked.type == METADATA:
        version = asked.metadata.contents.version
        version.major, version.minor = VERSION
        return None
    try:
        _functions[name](*(_number(frame.args.args[i].contents) for i in range(frame.args.count)))
    except BaseException as error:  # an interruption, too, must end the program
        text = f"{type(error).__name__}: {error}".encode()
        return frame.api.contents.error(c.byref(_Error(c.sizeof(_Error), None, text, INTERNAL)))
    return None


def _number(buffer):
    return SCALARS[buffer.dtype].from_address(buffer.data).value
