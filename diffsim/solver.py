"""The contract between a physics and everything that runs or differentiates it."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, dataclass_transform, get_args, get_type_hints

import jax
import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

# A named tuple of arrays or of such tuples. Four make a run, all in SI units: the parameters may be
# differentiated; coefficients are what one step needs; the state evolves; the forcing drives it.
Record = Any
Observe = Callable[[Record], Any]  # what is seen of a state


@dataclass_transform(frozen_default=True)
def frozen(cls: type) -> Any:
    """A fixed choice: a frozen, hashable dataclass whose fields are checked against their types.

    The same rules hold in Python and in a case file: unknown names, wrong types and values out of
    range raise ``pydantic.ValidationError``, all of them at once.
    """
    return dataclass(cls, frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """An observation that hands the state on: ``see(state, scale=None) -> (state, data)``.

    Who goes on with the state that it hands on, as `diffsim.simulate` does, has in reverse the
    cotangents of the data added to those of the state where they are. Of a function ``state ->
    data`` JAX would make a state of zeros with them, and add that. With the scale of an
    `AdjointSolver` what is added is scaled, as those of the state are.
    """

    see: Callable[..., tuple[Record, Any]]

    def __call__(self, state: Record) -> Any:
        """What is seen of a state."""
        return self.see(state)[1]


class Quantity(NamedTuple):
    """What an array is, in words and units; the annotation of a field of a record."""

    name: str
    units: str


def quantities(record: type) -> dict[str, Quantity]:
    """The quantities that a record's fields are annotated with, by name as in `entries`."""
    hints = get_type_hints(record, include_extras=True)
    found = {
        field: [note for note in getattr(hint, "__metadata__", ()) if isinstance(note, Quantity)]
        for field, hint in hints.items()
    }
    own = {field: notes[0] for field, notes in found.items() if notes}
    for name, inner in records(record).items():
        own |= {f"{name}.{field}": note for field, note in quantities(inner).items()}
    return own


def records(record: type) -> dict[str, type]:
    """The types of the records within a record, by field."""
    hints = get_type_hints(record).items()
    members = ((field, member) for field, hint in hints for member in get_args(hint) or (hint,))
    return {field: member for field, member in members if hasattr(member, "_fields")}


def entries(record: Record) -> dict[str, Any]:
    """What a record, or a dictionary by its fields, holds: a record within it as ``fault.slip``."""
    found = {}
    for name, value in (record if isinstance(record, dict) else record._asdict()).items():
        if hasattr(value, "_asdict"):
            found |= {f"{name}.{field}": inner for field, inner in entries(value).items()}
        else:
            found[name] = value
    return found


class Solver(ABC):
    """One discretised PDE: hashable, holds no array, pure functions only.

    ``state[n]`` belongs to time ``n dt``; ``step`` n takes it to ``state[n + 1]`` with slice n of
    the forcing. A subclass is a ``@frozen`` dataclass with at least the fields ``grid`` and ``dt``,
    and names the records that it takes in ``Params`` and ``Forcing``, each field annotated with its
    `Quantity`.
    """

    Params: ClassVar[type]
    Forcing: ClassVar[type | None] = None
    seen: ClassVar[Quantity]  # what `sampler` returns
    felt: ClassVar[Quantity | None] = None  # what `motion` returns; None if nothing moves

    grid: Any  # diffsim.grid.Grid
    dt: float  # s

    @abstractmethod
    def coefficients(self, params: Record) -> Record:
        """What every step needs, computed once per run; differentiable by plain JAX."""

    @abstractmethod
    def init(self, params: Record) -> Record:
        """The state before step 0; differentiable."""

    @abstractmethod
    def step(self, coefficients: Record, state: Record, forcing_n: Record) -> Record:
        """One step of ``dt``."""

    @abstractmethod
    def stable_dt(self, params: Record) -> float:
        """s, the largest stable time step (``inf`` if any is)."""

    @abstractmethod
    def sampler(self, positions: Any) -> Observe:
        """What instruments at ``positions`` ``[count, axis]`` (m) see of a state: ``[count]``.

        A `Sampler` costs reverse mode less than a function does.
        """

    @property
    def unroll(self) -> int:
        """Steps in a loop's body: an even number swaps the buffers of two levels in place; 1 suits
        a step that costs far more than to copy its state, and halves what is to be compiled. Where
        all states of up to four times as many steps are kept at once there is no loop."""
        return 2

    def motion(self, params: Record, positions: Any, along: int) -> Observe:
        """What instruments at ``positions`` that move with the medium feel along an axis: its
        component ``[count]``, positive where the axis grows."""
        raise NotImplementedError(f"{type(self).__name__} has no motion: take sampler(positions)")

    def check(self, params: Record, forcing: Record = None) -> "list[Remark]":
        """What is wrong or doubtful about running this; solvers add their own physics.

        ``params`` and ``forcing`` are concrete arrays: call it outside ``jit``.
        """
        remarks = []
        for section, record in (("params", params), ("forcing", forcing)):
            for name, value in entries(record).items() if record is not None else ():
                if value is None:  # a field that may be left out
                    continue
                bad = np.argwhere(~np.isfinite(np.asarray(value)))
                if len(bad):
                    place = tuple(int(i) for i in bad[0])
                    text = f"{len(bad)} values are not finite, the first at {place}: mend the input"
                    remarks.append(Remark(f"{section}.{name}", text))
        if not remarks and self.dt > (limit := self.stable_dt(params)):
            text = (
                f"dt={self.dt:g} s is above the stable {limit:.3g} s: lower dt or coarsen the grid"
            )
            remarks.append(Remark("solver.dt", text))
        return remarks

    @classmethod
    @abstractmethod
    def example(cls) -> "Example":
        """A tiny, quick problem that puts the solver into every test matrix."""


class Remark(NamedTuple):
    """A sentence about one input; a fatal one forbids the run."""

    where: str  # path in a case, such as "params.speed"
    text: str
    fatal: bool = True


class Example(NamedTuple):
    """A solver with values to run it: ``solver, params, forcing``."""

    solver: Solver
    params: Record
    forcing: Record


class AdjointSolver(Solver):
    """A solver that knows a faster transpose of its step than the one JAX derives.

    Its adjoint may run in a variable of its own, cotangents times a scale, in which it costs less.
    """

    @abstractmethod
    def pullback(
        self, coefficients: Record, state: Record, forcing_n: Record, state_bar: Record
    ) -> tuple[Record, Record, Record]:
        """``jax.vjp(step)`` applied to ``state_bar``: cotangents of the three arguments of a step.

        Integer leaves of the records get what ``jax.vjp`` would give: zeros of type ``float0``.
        """

    def accumulate(
        self,
        coefficients: Record,
        state: Record,
        forcing_n: Record,
        state_bar: Record,
        total: Record,
    ) -> tuple[Record, Record, Record]:
        """`pullback`, the cotangents of the coefficients added to ``total``, those of later steps.

        For a solver that adds its own while it makes them, and so spares a pass over both.
        """
        more, *bars = self.pullback(coefficients, state, forcing_n, state_bar)
        return added(total, more), *bars

    def scale(self, coefficients: Record) -> Any:
        """What `scaled` and `unscaled` scale by, computed once per run: any pytree of arrays."""
        return None

    def scaled(self, scale: Any, state_bar: Record) -> Record:
        """A state's cotangents as `retrace` and `blind` take and give them."""
        return state_bar

    def unscaled(self, scale: Any, state_bar: Record, total: Record) -> tuple[Record, Record]:
        """The cotangents of a state, and of the coefficients as `retrace` sums them up, unscaled.

        Coefficients whose cotangents are scaled must be arrays of the solver's own making: what an
        observation would add to those is not.
        """
        return state_bar, total


def added(total: Record, more: Record) -> Record:
    """The sum of two cotangents, leaf by leaf; integer leaves have none."""
    return jax.tree.map(lambda a, b: b if b.dtype == jax.dtypes.float0 else a + b, total, more)


class ImagingSolver(AdjointSolver):
    """A solver whose step is linear in state and forcing: what transposes it asks for no state.

    But for the cotangents of some coefficients, the medium's: each is an image, a sum over time of
    products of the state's cotangent and an exposure, something that the state made known.
    """

    @abstractmethod
    def exposures(self, coefficients: Record, state: Record, count: int) -> Any:
        """Room for what `expose` finds in so many steps: any pytree of arrays ``[count, …]``."""

    @abstractmethod
    def expose(
        self,
        coefficients: Record,
        state: Record,
        forcing_n: Record,
        exposures: Any,
        place: jax.Array,
    ) -> tuple[Record, Any]:
        """`step`, and the exposures with what images of it ask for at ``place``."""

    @abstractmethod
    def blind(
        self, coefficients: Record, forcing_n: Record, state_bar: Record, scale: Any
    ) -> tuple[Record, Record, Record]:
        """`pullback` where the state is not known: None for the coefficients that are imaged.

        The cotangents of the state are as `scaled` makes them.
        """

    @abstractmethod
    def image(
        self,
        coefficients: Record,
        forcing_n: Record,
        state_bar: Record,
        scale: Any,
        exposures: Any,
        place: jax.Array,
        count: int,
        total: Record,
    ) -> tuple[Record, Record, Record]:
        """`blind`, and for the coefficients that are imaged their cotangents in ``total`` with
        ``count`` times what the step adds by its exposure at ``place``, as `scaled` makes them.
        """

    @abstractmethod
    def spectrum(self, forcing: Record) -> np.ndarray:
        """How much of each frequency drives the state: as of ``rfft`` over the steps, concrete."""


class ReversibleSolver(Solver):
    """A solver that can walk back: `unstep` undoes `step`, given the little that was lost."""

    @abstractmethod
    def keep(self, state: Record) -> Any:
        """What a step from this state destroys, any pytree; ``()`` if nothing."""

    @abstractmethod
    def unstep(self, coefficients: Record, state: Record, forcing_n: Record, kept: Any) -> Record:
        """The state before the step that led to ``state``; ``kept`` is `keep` of the one sought."""


class RetracingSolver(AdjointSolver):
    """A solver that undoes a step and transposes it in one sweep over its fields.

    Where that loses something, as in a layer that absorbs, it walks back some steps all the same,
    until `restore` puts right what rounding has spoilt.
    """

    @property
    @abstractmethod
    def steps_back(self) -> int:
        """How many steps may be walked back from one state that was restored to the next."""

    @abstractmethod
    def keep(self, state: Record) -> Any:
        """The part of a state that a walk back to it spoils, any pytree; ``()`` if none."""

    @abstractmethod
    def restore(self, state: Record, kept: Any) -> Record:
        """A state that was walked back to, with what `keep` took from it in place."""

    @abstractmethod
    def retrace(
        self,
        coefficients: Record,
        new: Record,
        forcing_n: Record,
        new_bar: Record,
        total: Record,
        scale: Any,
    ) -> tuple[Record, Record, Record, Record]:
        """The state before the step that led to ``new``, and `pullback` of that step there.

        The cotangents of the coefficients come added to ``total``, those of the steps after it.
        Both, and the state's, are as `scaled` makes them.
        """
