"""diffsim differentiates physics simulations: gradients over dense grids that fit in memory."""

from diffsim.adjoint.checkpointed import Periodic, Revolve
from diffsim.adjoint.fit.choose import Fit
from diffsim.adjoint.flat import Invertible
from diffsim.adjoint.multilevel import Multilevel
from diffsim.adjoint.online import Online, while_loop
from diffsim.adjoint.reversible import Reversible
from diffsim.adjoint.sampled import Sampled
from diffsim.adjoint.scan import StoreAll, scan
from diffsim.adjoint.store.states import Disk, Host, Tiered
from diffsim.compiler import give_back
from diffsim.curvature import gauss_newton_vp, hvp
from diffsim.external import external_step
from diffsim.grid import Grid
from diffsim.simulate import simulate

__all__ = [
    "Disk",
    "Fit",
    "Grid",
    "Host",
    "Invertible",
    "Multilevel",
    "Online",
    "Periodic",
    "Reversible",
    "Revolve",
    "Sampled",
    "StoreAll",
    "Tiered",
    "external_step",
    "gauss_newton_vp",
    "hvp",
    "scan",
    "simulate",
    "while_loop",
]

give_back()
