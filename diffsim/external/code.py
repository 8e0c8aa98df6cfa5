"""Code outside JAX: functions of NumPy arrays, on flat lists, that give what they should."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffsim.adjoint.steps import Leaves, Split


@dataclass(frozen=True)
class Layout:
    """Structure, shapes and types of a pytree, and its name in messages."""

    name: str
    tree: Any
    types: list[jax.ShapeDtypeStruct]

    @classmethod
    def of(cls, name, example):
        """That of an example."""
        leaves, tree = jax.tree.flatten(example)
        types = [jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
        return cls(name, tree, types)

    @property
    def split(self) -> Split:
        """The leaves that have a derivative, and the others."""
        return Split.by_type(self.types)

    def derivative(self, name):
        """That of a tangent or cotangent: None in place of each leaf that has none."""
        kept = self.split.of(self.types)
        tree = jax.tree.structure(self.tree.unflatten(self.split.spread(kept)))
        return Layout(name, tree, kept)

    def paths(self) -> list[str]:
        """How messages call the leaves."""
        keyed = jax.tree_util.tree_leaves_with_path(self.tree.unflatten(self.types))
        return [self.name + jax.tree_util.keystr(path) for path, _ in keyed]

    def flat(self, value, batch=()) -> Leaves:
        """The arrays of a value that fits; an error names the first that does not."""
        leaves, tree = jax.tree.flatten(value)
        if tree != self.tree:
            raise TypeError(f"{self.name} is a {tree}: give a {self.tree}")
        for leaf, like, path in zip(leaves, self.types, self.paths(), strict=True):
            shape = (*batch, *like.shape)
            if leaf.shape != shape or leaf.dtype != like.dtype:
                got, due = (
                    f"{d}{list(s)}" for d, s in ((leaf.dtype, leaf.shape), (like.dtype, shape))
                )
                raise TypeError(f"{path} is {got}: give {due}, as the example has it")
        return leaves


@dataclass(frozen=True, eq=False)
class Code:
    """A function and its derivatives: ``(*args) -> y``, ``vjp(args, y_bar)``, ``jvp(args, dots)``.

    What moves is the leaves of inexact type; ``leaves`` are those of the arguments and, for the
    derivatives, those of the cotangents of the results or of the tangents of the arguments.
    """

    name: str
    of: Callable[..., Any]
    of_vjp: Callable[[tuple, Any], tuple]
    of_jvp: Callable[[tuple, tuple], Any] | None
    args: Layout
    results: Layout

    @classmethod
    def at(cls, example, forward, vjp, jvp):
        """The three functions, their shapes and types as they are at an example."""
        name = getattr(forward, "__name__", type(forward).__name__)
        args = Layout.of(f"{name}: args", example)
        result = forward(*args.tree.unflatten(as_jax_gives(jax.tree.leaves(example))))
        code = cls(name, forward, vjp, jvp, args, Layout.of(f"{name}: the result", result))
        code.results.flat(jax.tree.map(np.asarray, result))  # refuses float64 if JAX has float32
        return code

    def forward(self, *leaves) -> Leaves:
        """The function itself."""
        return self._flat(self.results, leaves, self.of(*self._args(leaves)))

    def vjp(self, *leaves) -> Leaves:
        """The transpose of its derivative."""
        bars = self.results.derivative("").tree.unflatten(leaves[len(self.args.types) :])
        layout = self.args.derivative(f"{self.name}: what vjp gave")
        return self._flat(layout, leaves, self.of_vjp(self._args(leaves), bars))

    def jvp(self, *leaves) -> Leaves:
        """Its derivative."""
        assert self.of_jvp is not None, "asked for only where there is one"
        dots = self.args.derivative("").tree.unflatten(leaves[len(self.args.types) :])
        layout = self.results.derivative(f"{self.name}: what jvp gave")
        return self._flat(layout, leaves, self.of_jvp(self._args(leaves), dots))

    def _args(self, leaves):
        return self.args.tree.unflatten(leaves[: len(self.args.types)])

    def _flat(self, layout, leaves, value):
        """The arrays of what came out; batched if the arguments have more axes than they should."""
        more = np.ndim(leaves[0]) - len(self.args.types[0].shape)
        return layout.flat(jax.tree.map(np.asarray, value), np.shape(leaves[0])[:more])


def as_jax_gives(leaves) -> Leaves:
    """The arrays in JAX's types, and read-only."""
    arrays = [np.array(leaf, jnp.result_type(leaf)) for leaf in leaves]
    for array in arrays:
        array.setflags(write=False)
    return arrays
