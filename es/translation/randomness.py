"""Random numbers that torch code draws: they would be constants in a translation, so that it is refused.

What is drawn from torch in evaluation mode is seen where it is drawn (`es.translation.translation`).
"""

from __future__ import annotations

import pickle
import random
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from es.translation.arrays import to_torch
from es.translation.refusals import called_in, draws_numbers
from pruning.calls.calling import call_once
from pruning.copies.copying import copy_module
from pruning.copies.rebinding import graph_of

_KINDS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)


def without_draws(called: Any, run: Callable[[], Any], label: str) -> Any:
    """Return the result of `run`; the global generators are left as they were.

    Args:
        called: the module or function that `run` calls; generators that it holds anywhere are looked at.
        run: calls it.
        label: how messages call it.

    Raises:
        BadValue: it drew random numbers.

    >>> chance = random.Random(0)
    >>> without_draws(len, lambda: 3, "the model")
    3
    >>> without_draws(chance, random.random, "the model")
    Traceback (most recent call last):
    pruning.errors.BadValue: the model draws random numbers even in evaluation mode, and evolution needs a pure function
    """
    own = _generators(called)
    by_numpy, by_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    before = _states(own)
    try:
        result = run()
        if _states(own) != before:
            raise draws_numbers(label)
    finally:
        np.random.set_state(by_numpy)  # noqa: NPY002
        random.setstate(by_python)
    return result


def _states(own: list[Any]) -> list[bytes]:
    everywhere = [np.random.get_state(), random.getstate()]  # noqa: NPY002
    return [pickle.dumps(each) for each in [*everywhere, *own]]


def _generators(called: Any) -> list[Any]:
    """Return the generators that a module or function holds, or reads by a global name."""
    found = [thing for thing, _ in graph_of(called).values()]
    functions = [thing for thing in found if isinstance(thing, types.FunctionType)]
    functions += [getattr(type(thing), "forward", None) for thing in found if isinstance(thing, nn.Module)]
    for function in functions:
        if isinstance(function, types.FunctionType):
            found += [function.__globals__.get(name) for name in function.__code__.co_names]
    return list({id(thing): thing for thing in found if isinstance(thing, _KINDS)}.values())


def _is_stochastic(layer: nn.Module) -> bool:
    """Say whether a layer of PyTorch's own draws random numbers in training mode."""
    if isinstance(layer, _DropoutNd):
        return bool(layer.p > 0)
    return isinstance(layer, nn.RReLU) or (
        isinstance(layer, nn.RNNBase | nn.MultiheadAttention) and float(layer.dropout) > 0
    )


def noisy_layers(module: nn.Module, example_inputs: Any) -> list[str]:
    """Return the layers, of any class, that draw random numbers in training mode, and are in it."""
    awake = {name: layer for name, layer in module.named_modules() if layer.training}
    noisy = {name: called_in(name, layer) for name, layer in awake.items() if _is_stochastic(layer)}
    if not awake:
        return []
    probe = copy_module(module).cpu()
    before: dict[int, torch.Tensor] = {}
    for name, layer in probe.named_modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
        if isinstance(layer, torch.jit.ScriptModule):  # takes no hooks; what holds it is looked at
            continue
        label = called_in(name, layer)
        layer.register_forward_pre_hook(lambda layer, _: before.update({id(layer): torch.get_rng_state()}))
        layer.register_forward_hook(
            lambda layer, _, __, name=name, label=label: (
                None if torch.equal(before[id(layer)], torch.get_rng_state()) else noisy.setdefault(name, label)
            )
        )
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Training mode may fail on an example that evaluation takes; only the latter matters here.
        with suppress(Exception):
            call_once(probe, to_torch(example_inputs))
    # A container is noisy because of what it holds.
    return [label for name, label in noisy.items() if not any(_within(other, name) for other in noisy)]


def _within(name: str, container: str) -> bool:
    return name != container and (not container or name.startswith(f"{container}."))
