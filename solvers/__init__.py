"""The physics: one PDE a file."""

from solvers.attenuating_wave import AttenuatingWave
from solvers.heat import Heat
from solvers.linear_shallow_water import LinearShallowWater
from solvers.shallow_water import ShallowWater
from solvers.wave import Wave

__all__ = ["AttenuatingWave", "Heat", "LinearShallowWater", "ShallowWater", "Wave"]
