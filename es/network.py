"""A network as a pure function of named arrays: what evolution evaluates, whichever framework it came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

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
        example: its outputs for the batch that it was made with, where they were computed.
    """

    apply: Apply
    evolved: tuple[str, ...]
    restored: Callable[[Any], Any] = _same
    example: Any = None


def taking_halves(apply: Apply, names: Collection[str]) -> Apply:
    """Return a function that takes complex arrays also as real ones, real and imaginary parts along a last axis.

    Evolution searches real numbers; what it does not evolve stays complex.

    Args:
        apply: of complex arrays.
        names: the names of the complex arrays.

    >>> taking_halves(lambda params, x: x * params["w"], ["w"])({"w": jnp.array([1.0, 2.0])}, 1.0).item()
    (1+2j)
    """
    if not names:
        return apply

    def whole(array: Any) -> Any:
        return array if jnp.iscomplexobj(array) else jax.lax.complex(array[..., 0], array[..., 1])

    return lambda params, inputs: apply({**params, **{name: whole(params[name]) for name in names}}, inputs)
