"""What is seen of a run."""

import numpy as np

from diffsim.fields import Values, array
from diffsim.solver import Observe, Solver, frozen


@frozen
class Receivers:
    """Instruments at fixed places; each sees what the solver's ``sampler`` gives there.

    Args:
        positions: m, ``[receiver, axis]``: nested lists, or a maker such as ``Line``
    """

    positions: Values  # m

    def places(self, solver: Solver) -> np.ndarray:
        """m, ``[receiver, axis]``; ``ValueError`` if they do not suit the solver's grid."""
        places = array(self.positions, solver, steps=1, units="m")  # instruments do not move
        if places.ndim != 2 or places.shape[1] != solver.grid.ndim:
            raise ValueError(
                f"positions have shape {places.shape}: give rows of {solver.grid.ndim} numbers, "
                f"one for each axis {solver.grid.axes}"
            )
        return places

    def on(self, solver: Solver) -> Observe:
        """The function ``state -> [receiver]``."""
        return solver.sampler(self.places(solver))
