"""diffsim differentiates physics simulations: gradients over dense grids that fit in memory."""

from diffsim.adjoint.checkpointed import Periodic, Revolve
from diffsim.adjoint.scan import StoreAll, scan
from diffsim.grid import Grid
from diffsim.simulate import simulate

__all__ = ["Grid", "Periodic", "Revolve", "StoreAll", "scan", "simulate"]
