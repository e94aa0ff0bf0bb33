"""What people of JAX call a model: told apart without loading a library that is not theirs.

Who hands over a module of Flax or Equinox has loaded that library: a class is looked up among the loaded modules only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

PAIR = "a pair (params, apply)"
TREE = "a tree of parameters"
LINEN = "a Flax Linen module"
LINEN_WITH_VARIABLES = "a pair (variables, module) of Flax Linen"
NNX = "a Flax nnx module"
EQUINOX = "an Equinox module"
EQUINOX_WITH_STATE = "a pair (module, state) of Equinox"
EQUINOX_PARTITION = "a partitioned Equinox module"
TRANSFORMED = "a pair of functions (init, apply)"
TRAIN_STATE = "a train state of Flax"


def jax_kind(thing: Any) -> str | None:
    """Return what kind of JAX model this is, in words; None for anything else.

    >>> jax_kind(({"w": 1.0}, lambda params, x: x)), jax_kind({"w": 1.0}), jax_kind(({"w": 1.0}, 2))
    ('a pair (params, apply)', 'a tree of parameters', None)
    """
    if is_of(thing, "flax.linen", "Module"):
        return LINEN
    if is_of(thing, "flax.nnx", "Module"):
        return NNX
    if is_of(thing, "equinox", "Module"):
        return EQUINOX
    if callable(getattr(thing, "apply_fn", None)) and hasattr(thing, "params") and hasattr(thing, "replace"):
        return TRAIN_STATE
    if isinstance(thing, Mapping | list):
        return TREE
    if not isinstance(thing, tuple) or len(thing) != 2:
        return None
    first, second = thing
    if getattr(thing, "_fields", None) == ("init", "apply"):
        return TRANSFORMED
    if is_of(first, "equinox", "Module") and is_of(second, "equinox.nn", "State"):
        return EQUINOX_WITH_STATE
    if is_of(first, "equinox", "Module") and type(first) is type(second):
        return EQUINOX_PARTITION
    if is_of(second, "flax.linen", "Module"):
        return LINEN_WITH_VARIABLES
    return PAIR if callable(second) else None


def is_jax_model(thing: Any) -> bool:
    """Say whether this is a JAX model of any kind.

    >>> is_jax_model({"w": 1.0}), is_jax_model(({"w": 1.0}, lambda params, x: x)), is_jax_model("w")
    (True, True, False)
    """
    return jax_kind(thing) is not None


def needs_example(thing: Any) -> bool:
    """Say whether a model has no weights before it has seen a batch of inputs.

    >>> from collections import namedtuple
    >>> transformed = namedtuple("Transformed", ["init", "apply"])
    >>> needs_example(transformed(lambda key, x: {}, lambda params, key, x: x)), needs_example({"w": 1.0})
    (True, False)
    """
    return jax_kind(thing) in (LINEN, TRANSFORMED)


def is_of(thing: Any, module: str, name: str) -> bool:
    """Say whether a thing is an instance of a class of a library, where that library is loaded.

    >>> from fractions import Fraction
    >>> half = Fraction(1, 2)
    >>> is_of(half, "fractions", "Fraction"), is_of(0.5, "fractions", "Fraction"), is_of(half, "not.loaded", "Fraction")
    (True, False, False)
    """
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(thing, kind)
