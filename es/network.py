"""A network as a pure function of named arrays: what evolution evaluates, whichever framework it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arrays = Mapping[str, Any]
Apply = Callable[[Arrays, Any], Any]


def _same(outputs: Any) -> Any:
    return outputs


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        apply: `apply(params, inputs)` returns the outputs for a batch of inputs (any pytree). `params` holds every
            parameter and buffer by its dotted name. Pure: works under `jit`, `vmap` and `grad`.
        evolved: names of the parameters that training changes, in the model's order; all others stay fixed.
        restored: from outputs in plain containers, as `apply` returns them, to those of the model's own classes: what a
            loss or metric that somebody wrote for the model reads.
    """

    apply: Apply
    evolved: tuple[str, ...]
    restored: Callable[[Any], Any] = _same
