"""diffsim differentiates physics simulations: gradients over dense grids that fit in memory."""

from diffsim.adjoint.checkpointed import Periodic, Revolve
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.scan import Invertible, StoreAll, scan
from diffsim.grid import Grid
from diffsim.simulate import simulate

__all__ = [
    "Grid",
    "Invertible",
    "Periodic",
    "Reversible",
    "Revolve",
    "StoreAll",
    "scan",
    "simulate",
]
