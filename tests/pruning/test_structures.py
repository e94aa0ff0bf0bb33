"""Whatever holds tensors keeps its type: containers, mappings, named tuples, data classes, caches, cycles."""

from __future__ import annotations

import threading
from collections import OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from pruning.calls.structures import copied, flattened, map_tensors, same_structure, tensors_in
from pruning.errors import BadValue

Pair = namedtuple("Pair", "p q")


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: Any = None


@dataclass(slots=True)
class Slots:
    a: Any
    b: Any = None


class Words(dict):
    pass


class Row(tuple):
    pass


class Rows(list):
    pass


class Layer:
    """As a cache keeps them: a plain object with tensors."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys, self.device = keys, keys.device


T = torch.arange(3.0)
HOLDERS = [
    T,
    (T, None),
    [T, [T]],
    {"a": T, 1: {"b": (T,)}},
    OrderedDict(a=T, n=None),
    UserDict(a=T),
    defaultdict(list, a=T),
    deque([T]),
    Pair(T, 3),
    Row([T]),
    Rows([T, "x"]),
    Words(a=T),
    Frozen(T, {"z": T}),
    Slots(T),
    SimpleNamespace(layers=[Layer(T), Layer(T + 1)], size=torch.Size([1])),
    pack_sequence([T, T[:2]]),
    torch.distributions.Normal(T, T + 1),
    torch.max(T[None], 1),
]


@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_types_and_places_stay(value):
    changed, copy = map_tensors(lambda t: t + 1, value), copied(value)
    assert tensors_in(value), "there is something to change"
    for other in (changed, copy):
        assert type(other) is type(value) and same_structure(other, value)
        assert not {id(t) for t in tensors_in(other)} & {id(t) for t in tensors_in(value)}
    pairs = list(zip(tensors_in(changed), tensors_in(value), tensors_in(copy), strict=True))
    assert all(torch.equal(more, there + 1) and torch.equal(same, there) for more, there, same in pairs)
    assert map_tensors(lambda t: t, value) is value, "what does not change is handed on as it is"


def test_a_tensor_that_is_held_twice_is_one_tensor_afterwards():
    held = {"a": T, "b": [T]}
    changed = map_tensors(torch.neg, held)
    assert changed["a"] is changed["b"][0]


def test_what_holds_itself_ends():
    loop: Any = SimpleNamespace(t=T)
    loop.me = loop
    assert len(tensors_in(loop)) == 1 and torch.equal(map_tensors(torch.neg, loop).t, -T)
    assert copied(loop).me.t is not T and set(flattened(loop)) == {"SimpleNamespace.t", "SimpleNamespace.me"}


def test_modules_are_shared_and_not_looked_into():
    layer = nn.Linear(2, 2)
    held = SimpleNamespace(layer=layer, t=T)
    assert len(tensors_in(held)) == 1 and copied(held).layer is layer


def test_structures_differ_by_type_place_and_plain_value():
    assert same_structure({"a": T, "n": 1}, {"a": T + 5, "n": 1})
    for other in (OrderedDict(a=T, n=1), {"a": T, "n": 2}, {"a": T}, {"a": None, "n": 1}, {"a": T, "n": T}):
        assert not same_structure({"a": T, "n": 1}, other)
    assert not same_structure({1: T}, {"1": T})
    assert same_structure(((), {}), ((), {})) and not same_structure((), [])


@pytest.mark.parametrize("value", [threading.Lock(), MappingProxyType({"a": T})])
def test_what_cannot_be_copied_is_said(value):
    with pytest.raises(BadValue, match="cannot be copied"):
        copied((value,))
