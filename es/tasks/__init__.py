"""Tasks: what a population is judged on. One file for each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    import jax

    from es.network import Arrays


@dataclass(frozen=True)
class Measured:
    """A network's loss and metric on the parts that choices are made on and that are only reported on.

    Attributes:
        validation_loss: lower is better.
        validation: the metric on validation data.
        test_loss: as `validation_loss`, or None without a test part.
        test: as `validation`, or None.
    """

    validation_loss: float
    validation: float
    test_loss: float | None
    test: float | None


class Task(Protocol):
    """What networks are judged on. A loss is lower-is-better, whatever the direction of the metric."""

    @property
    def flops(self) -> float:
        """Floating-point operations of one dense member in one generation: decides what runs stacked."""
        ...

    @property
    def data(self) -> Any:
        """What `losses` looks at, a pytree of device arrays: handed to the compiled loop, not compiled into it."""
        ...

    def losses(
        self, data: Any, where: NDArray[Any] | jax.Array, population: jax.Array, fixed: Arrays, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Return every member's loss in one generation; traced into the compiled generation loop.

        Members do not know of each other: a population may be cut in pieces, one for each device.

        Args:
            data: this task's `data`.
            where: [D] int32, the survivors' positions in the task's space (`es.coordinates`). A host array (rather
                than a tracer) lets a task exploit the structure of the mask.
            population: [P, D] float32, one row for each member.
            fixed: every parameter and buffer that is not evolved, by name, shared by all members.
            key: of everything random in this generation: the minibatch, the episodes. All members see the same.

        Returns:
            [P] float32 losses, and what every member saw: a pytree of arrays [P, …].
        """
        ...

    def after_generation(self, fixed: Arrays, seen: Any) -> Arrays:
        """Return `fixed` after a generation in which the members saw `seen`: with updated running statistics."""
        ...

    def measure(self, params: Arrays) -> Measured:
        """Return loss and metric of one network (all its parameters and buffers), the same numbers every time."""
        ...
