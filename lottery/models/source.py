"""Where a search gets its networks from: a named model, a callable, or one module with its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lottery.data.parts import Parts
from lottery.initializers import INITIALIZERS
from lottery.models import MODELS
from lottery.torch_state import digest, state_of
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.registry import import_by_path
from pruning.torch_modules import clean_copy


@dataclass(frozen=True)
class ModelSource:
    """A maker of networks.

    Attributes:
        name: for tables and paths.
        make: returns a fresh module; torch's generator is seeded before each call.
        initial_mask: what was already pruned when the caller handed the module over.
        varies: whether another seed gives other weights (a module instance always gives its own).
    """

    name: str
    make: Callable[[int], nn.Module]
    initial_mask: Mask | None
    varies: bool

    def build(self, seed: int) -> nn.Module:
        """Return the network of one seed, on the CPU; the caller's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(seed)

    def initial_state(self, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the parameters and buffers of one seed's network, by name."""
        return state_of(self.build(seed))

    def fingerprint(self, seed: int) -> str:
        """Return a hash of one seed's initial weights."""
        return digest(self.initial_state(seed))


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
    if isinstance(model, nn.Module):
        module, mask = clean_copy(model)
        return ModelSource(
            type(module).__name__, _initialized(lambda: clean_copy(module)[0], init), mask, init != "model"
        )
    if isinstance(model, str) and ":" not in model:
        build = MODELS[model].value
        shape, outputs = parts.input_shape, parts.outputs
        return ModelSource(model, _initialized(lambda: build(shape, outputs), init), None, True)
    name = model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__)
    function = import_by_path(model, "model") if isinstance(model, str) else model
    if isinstance(function, nn.Module):
        return model_source(function, parts, init)
    if not callable(function):
        raise BadValue(f"model: expected a torch.nn.Module, a callable or a name, not {type(model).__name__}")
    return ModelSource(name, _from_callable(function, name, init), None, True)


def _from_callable(function: Callable[..., Any], name: str, init: str) -> Callable[[int], nn.Module]:
    takes_seed = _takes_seed(function)

    def make(seed: int) -> nn.Module:
        module = takes_seed(seed)
        if not isinstance(module, nn.Module):
            raise BadValue(f"model {name!r} returned {type(module).__name__}, not a torch.nn.Module")
        return _initialized(lambda: clean_copy(module)[0], init)(seed)

    return make


def _takes_seed(function: Callable[..., Any]) -> Callable[[int], Any]:
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


def _initialized(make: Callable[[], nn.Module], init: str) -> Callable[[int], nn.Module]:
    initialize = INITIALIZERS[init].value

    def made(seed: int) -> nn.Module:
        del seed
        module = make()
        initialize(module)
        return module

    return made
