"""Random generators that a `DataLoader` holds on to, wherever it keeps them: found, seeded, and given back."""

from __future__ import annotations

import functools
import itertools
import random
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from lottery.state.randomness import seed_torch

_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "torchvision", "torchaudio", "numpy", "jax", "scipy"})
# A data set may be a long list; what is random about it is found in its first items or not in a list.
_ITEMS = 64
_DEPTH = 10


@dataclass(frozen=True)
class Streams:
    """Every source of random numbers that reading a loader may use: the global ones and its own.

    Attributes:
        generators: the loader's own, in a fixed order.
        counters: its samplers, whose numbers (an epoch that they count) decide on their order like a generator's state.
    """

    generators: tuple[Any, ...]
    counters: tuple[Any, ...]

    def state(self) -> tuple[Any, ...]:
        """Return the state of all of them."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        everywhere = (torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())  # noqa: NPY002
        return (
            *everywhere,
            [generator_state(own) for own in self.generators],
            [_numbers(own) for own in self.counters],
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Give all of them a state that they had."""
        by_torch, cuda, by_numpy, by_python, generators, counters = state
        torch.set_rng_state(by_torch)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(by_numpy)  # noqa: NPY002
        random.setstate(by_python)
        for own, kept in zip(self.generators, generators, strict=True):
            _restore(own, kept)
        for own, numbers in zip(self.counters, counters, strict=True):
            vars(own).update(numbers)

    def seed(self, seed: int, epoch: int = 0) -> None:
        """Seed all of them: every generator differently, each the same for the same seed.

        A sampler that counts epochs for itself, or is told of them (`set_epoch`), gets to this one from where it is.
        """
        seed_torch(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        for place, own in enumerate(self.generators):
            _seed(own, seed, place)
        for own in self.counters:
            if isinstance(vars(own).get("epoch"), int):
                vars(own)["epoch"] += epoch


def streams_of(loader: DataLoader[Any]) -> Streams:
    """Return the random streams of a loader, its samplers, its collation and its data set.

    Attributes are followed through objects, containers, closures and the global names that a user's function reads.
    """
    samplers = [loader.sampler, loader.batch_sampler]
    samplers += [getattr(each, "sampler", None) for each in samplers]
    counters = {id(each): each for each in samplers if hasattr(each, "__dict__")}
    held = [loader.generator, *samplers, loader.collate_fn, loader.dataset, loader.worker_init_fn]
    return Streams(tuple(_generators(held)), tuple(counters.values()))


def _generators(things: Iterable[Any]) -> Iterator[Any]:
    """Yield the generators that these things hold, each once, nearest first."""
    seen: dict[int, Any] = {}
    level = list(things)
    for _ in range(_DEPTH):
        following: list[Any] = []
        for thing in level:
            if id(thing) in seen or _holds_nothing(thing):
                continue
            seen[id(thing)] = thing  # kept, so that its address is not another's meanwhile
            if not isinstance(thing, _KINDS):
                following += _held_by(thing)
            elif not isinstance(thing, random.SystemRandom):  # which has no state
                yield thing
        level = following


def _holds_nothing(thing: Any) -> bool:
    plain = (type(None), str, bytes, int, float, complex, np.ndarray, torch.Tensor, type, types.ModuleType)
    return isinstance(thing, plain)


def _held_by(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return list(itertools.islice(thing.values(), _ITEMS))
    if isinstance(thing, list | tuple | set | frozenset):
        return list(itertools.islice(thing, _ITEMS))
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        return [thing.__self__, thing.__func__]
    if isinstance(thing, types.FunctionType):
        return _held_by_function(thing)
    own = list(getattr(thing, "__dict__", {}).values())
    mine = [base for base in type(thing).__mro__ if not _is_library(base.__module__)]
    slots = [name for base in mine for name in _slots(base)]
    own += [getattr(thing, name) for name in slots if hasattr(thing, name)]
    members = [member for base in mine for member in vars(base).values()]
    return own + [getattr(member, "__func__", getattr(member, "fget", member)) for member in members]


def _held_by_function(function: types.FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    held = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    held += vars(function).values()  # what a decorator left, the wrapped function among it
    if _is_library(function.__module__):
        return held
    return held + [function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__]


def _names(code: types.CodeType) -> list[str]:
    inside = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [*code.co_names, *(name for nested in inside for name in _names(nested))]


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else list(slots)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # Python's word for a name that is not assigned yet
        return False


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


def is_generator(thing: Any) -> bool:
    """Say whether a thing is a random number generator of PyTorch, NumPy or Python.

    >>> is_generator(np.random.default_rng()), is_generator(7)
    (True, False)
    """
    return isinstance(thing, _KINDS)


def generator_state(generator: Any) -> Any:
    """Return the state of a random number generator: plain values, arrays and tensors.

    >>> generator_state(random.Random(1)) == generator_state(random.Random(1)) != generator_state(random.Random(2))
    True
    """
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return _bits(generator).state


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        _bits(generator).state = state


def _seed(generator: Any, seed: int, place: int) -> None:
    """Seed one generator; the first of a loader with the seed itself, each other one with a number of its own."""
    own = seed if place == 0 else int(np.random.SeedSequence([abs(seed), place]).generate_state(1, np.uint64)[0])
    if isinstance(generator, torch.Generator):
        generator.manual_seed(own)
    elif isinstance(generator, random.Random):
        generator.seed(own)
    elif isinstance(generator, np.random.RandomState):
        kind = type(generator._bit_generator)  # pyright: ignore[reportAttributeAccessIssue]
        generator.set_state(np.random.RandomState(kind(abs(own))).get_state(legacy=False))
    else:
        bits = _bits(generator)
        bits.state = type(bits)(abs(own)).state


def _bits(generator: Any) -> Any:
    return generator.bit_generator if isinstance(generator, np.random.Generator) else generator


def _numbers(thing: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if isinstance(value, int | float)}
