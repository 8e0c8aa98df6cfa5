"""The physics: one PDE a file."""

from solvers.wave import Wave

__all__ = ["Wave"]
