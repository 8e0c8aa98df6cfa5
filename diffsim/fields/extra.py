"""Packages that not everybody needs."""

from importlib import import_module
from typing import Any

EXTRA = "pip install 'diffsim-adjoint[formats]'"


def library(name: str, purpose: str) -> Any:
    """A module of such a package; ``ValueError`` says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(f"{purpose} needs the package {name}: {EXTRA}") from error
