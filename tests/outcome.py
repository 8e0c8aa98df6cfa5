"""What a program gives, compared: structure, types, weak types and values, or the exception."""

import jax
import jax.numpy as jnp
import numpy as np

RTOL = {4: 1e-5, 8: 1e-13, 16: 1e-13, 2: 1e-2, 1: 1e-1}  # of bytes of a float (complex: twice)


def assert_same(ours, theirs, rtol=None):
    """Equal trees of equal types; values to round-off of the largest entry of each leaf."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert _type(one) == _type(other)
        one, other = _plain(one), _plain(other)
        scale = max(1.0, np.abs(other).max(initial=0)) if other.dtype.kind in "fc" else 0
        size = other.dtype.itemsize if other.dtype.kind == "f" else 8
        atol = (rtol or RTOL[size]) * scale
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def _type(leaf):
    leaf = leaf if isinstance(leaf, np.ndarray) else jnp.asarray(leaf)
    return leaf.shape, str(leaf.dtype), getattr(leaf, "weak_type", False)


def _plain(leaf):
    dtype = leaf.dtype if isinstance(leaf, np.ndarray) else jnp.asarray(leaf).dtype
    if dtype == jax.dtypes.float0:
        return np.zeros(leaf.shape, bool)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(leaf))
    if jnp.issubdtype(dtype, jnp.floating) and np.dtype(dtype).kind != "f":
        return np.asarray(leaf).astype(np.float16)  # a type that NumPy does not know
    return np.asarray(leaf)
