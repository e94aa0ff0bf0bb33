"""Where a search gets its networks from: a named model, a callable, or one module with its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from lottery.data.parts import Parts
from lottery.identity import module_identity, short_hash
from lottery.initializers import INITIALIZERS, Initialize
from lottery.models import MODELS
from lottery.randomness import seeded_everywhere
from lottery.torch_state import digest, state_of
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.registry import import_by_path
from pruning.torch_modules import clean_copy

Make = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ModelSource:
    """A maker of networks.

    Attributes:
        name: for tables and paths.
        make: returns a module from a seed; every generator is seeded before each call.
        initialize: redraws its weights, or leaves them.
        varies: whether another seed gives other weights (a module instance always gives its own).
    """

    name: str
    make: Make
    initialize: Initialize
    varies: bool

    def build(self, seed: int) -> nn.Module:
        """Return the network of one seed, without wrappers or pruning hooks; all random state is left alone."""
        return self._build(seed)[0]

    def initial_mask(self, seed: int) -> Mask | None:
        """Return what `torch.nn.utils.prune` had already removed from the network of one seed."""
        return self._build(seed)[1]

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the parameters and buffers of one seed's network, by name."""
        return state_of(self.build(seed))

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's network: structure, code, values, what is trainable and what is pruned."""
        module, mask = self._build(seed)
        return short_hash([module_identity(module), digest(dict(mask)) if mask else ""], length=64)

    def _build(self, seed: int) -> tuple[nn.Module, Mask | None]:
        with seeded_everywhere(seed):
            made = self.make(seed)
            if not isinstance(made, nn.Module):
                raise BadValue(f"model {self.name!r} returned {type(made).__name__}, not a torch.nn.Module")
            module, mask = clean_copy(made)
            lazy = [name for name, p in module.named_parameters() if isinstance(p, nn.UninitializedParameter)]
            if lazy:
                raise BadValue(f"model {self.name!r}: {lazy[0]!r} has no shape yet; run one batch through it first")
            self.initialize(module)
        return module, mask


def model_source(model: Any, parts: Parts, init: str) -> ModelSource:
    """Return a source for a module, a callable, a registered name or `package.module:callable`.

    Args:
        model: what the caller handed over. A callable that has a parameter `seed`, or exactly one parameter without
            a default, is given the seed; any other is called without arguments.
        parts: the data, which sizes a named model.
        init: a registered initializer, or `model`.

    Raises:
        UnknownName: a name that is not registered, or a path that cannot be imported.
        BadValue: something that is not a model.
    """
    initialize = INITIALIZERS[init].value
    if isinstance(model, str) and ":" in model:
        thing, name = import_by_path(model, "model"), model
    else:
        thing, name = model, getattr(model, "__name__", type(model).__name__)
    if isinstance(thing, nn.Module):
        module, name = thing, type(thing).__name__
        return ModelSource(name, lambda seed: module, initialize, varies=init != "model")
    if isinstance(thing, str):
        build, shape, outputs = MODELS[thing].value, parts.input_shape, parts.outputs
        return ModelSource(thing, lambda seed: build(shape, outputs), initialize, varies=True)
    if not callable(thing):
        raise BadValue(f"model: expected a torch.nn.Module, a callable or a name, not {type(model).__name__}")
    return ModelSource(name, _takes_seed(thing), initialize, varies=True)


def _takes_seed(function: Callable[..., Any]) -> Make:
    parameters = inspect.signature(function).parameters
    required = [
        p
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if "seed" in parameters:
        return lambda seed: function(seed=seed)
    if len(required) == 1 and required[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        return function
    if required:
        raise BadValue(
            f"model callable needs the arguments {', '.join(p.name for p in required)}; "
            "give one that takes a seed or nothing"
        )
    return lambda seed: function()
