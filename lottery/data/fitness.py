"""A fitness function of the caller's own, instead of examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from lottery.state.identity import identify, short_hash
from pruning.errors import BadValue, DataError


@dataclass(frozen=True)
class Fitness:
    """A fitness function to evolve for: the data of `find_ticket` with the trainer `es`.

    Attributes:
        function: `function(params, key)`, or `function(params)`, returns one number, in JAX. `params` are what the
            model is: the tree of a pair, variables of a Linen module, an nnx or Equinox module in evaluation mode.
        higher_is_better: False for a loss, an error, a cost.
        name: for tables and paths; by default the function's own.

    >>> Fitness(lambda params, key: 0.0, higher_is_better=False, name="cost").name
    'cost'
    """

    function: Callable[..., Any]
    higher_is_better: bool = True
    name: str = ""
    default_model: None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise BadValue(f"expected a function fitness(params, key), not {type(self.function).__name__}")
        if not self.name:
            given = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "name", given if given.isidentifier() else "fitness")

    def of(self, params: Any, key: Any) -> Any:
        """Return the fitness of parameters, for a random key."""
        return self.function(params) if self._takes_no_key else self.function(params, key)

    @property
    def _takes_no_key(self) -> bool:
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):  # some that are written in C do not say
            return False
        return len(parameters) == 1 and all(p.kind is not p.VAR_POSITIONAL for p in parameters)

    @property
    def input_shape(self) -> NoReturn:
        """No shape: a fitness function shows a model no inputs."""
        raise self._no_inputs()

    @property
    def outputs(self) -> NoReturn:
        """Not known: a fitness function says nothing of a model's outputs."""
        raise self._no_inputs()

    def few(self, count: int) -> NoReturn:
        """No inputs."""
        raise self._no_inputs()

    def fingerprint(self) -> str:
        """Return what tells fitness functions apart: code, what it closes over, direction."""
        return short_hash([identify(self.function), str(self.higher_is_better)], length=16)

    def _no_inputs(self) -> DataError:
        return DataError(
            f"the fitness function {self.name!r} shows no batch from which a model could be made: give parameters, a "
            "pair (params, apply) or (module.init(key, batch), module)"
        )
