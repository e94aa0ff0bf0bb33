"""Weights that every initializer is asked to draw, and the settings that some cannot do without."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.initializers import Chosen, LeftAlone, get_initializer
from pruning.starts.weight import Array, Kind, Place, Weight

NEEDED: Mapping[str, Mapping[str, Any]] = {
    "virgo": {"graph": np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), "layers": 3},
    "mup": {"base_width": 1, "width": 1},
    "smupar": {"base_width": 1, "width": 1},
}
"""Settings without which a scheme draws nothing."""


def example(shape: tuple[int, ...], kind: Kind = "linear", keep: NDArray[np.bool_] | None = None) -> Weight:
    """Return a weight in the middle of a ReLU network; with a full mask, if none is given."""
    keep = np.ones(shape, bool) if keep is None else keep
    return Weight("layer", keep, kind, activation="relu", place=Place(1, feeds=("before",)))


def random_mask(shape: tuple[int, ...], density: float, seed: int = 0) -> NDArray[np.bool_]:
    """Return a mask that keeps the diagonal (of the centre taps), but for unit 1, which has no live input."""
    keep = np.random.default_rng(seed).random(shape) < density
    centre = tuple(size // 2 for size in shape[2:])
    keep[(slice(None), slice(None), *centre)] |= np.eye(*shape[:2], dtype=bool)
    keep[1] = False
    return keep


DENSE = {
    "linear": example((12, 16)),
    "more outputs": example((16, 12)),
    "convolution": example((8, 4, 3, 3), "convolution"),
    "convolution of one tap": example((8, 4, 1), "convolution"),
    "depthwise": example((1, 1, 3, 3), "convolution"),
    "even kernel": example((8, 4, 2, 2), "transposed convolution"),
    "recurrent": example((8, 8), "recurrent"),
    "recurrent input": example((8, 5), "recurrent input"),
    "query": example((12, 12), "query"),
    "attention output": example((12, 12), "attention output"),
    "bilinear": example((6, 20), "bilinear"),
    "embedding": example((6, 30), "embedding"),
}
MASKED = {
    f"{name}, masked": example(weight.shape, weight.kind, random_mask(weight.shape, 0.4))
    for name, weight in DENSE.items()
    if weight.outputs > 1
} | {
    "nothing kept": example((4, 3), keep=np.zeros((4, 3), bool)),
    "whole states removed": example((6, 6), "recurrent", np.kron(np.diag([1, 0, 1]), np.ones((2, 2))) > 0),
    "centre taps kept": example(
        (8, 4, 3, 3), "convolution", random_mask((8, 4, 3, 3), 0.3) | (np.arange(9).reshape(3, 3) == 4)
    ),
}
EXAMPLES: Mapping[str, Weight] = DENSE | MASKED


def draw_one(name: str, weight: Weight, seed: int = 0, **settings: Any) -> Chosen:
    """Draw one weight by a registered scheme: values, 0 outside the mask, and the mask."""
    scheme = get_initializer(name, {**NEEDED.get(name, {}), **settings})
    with warnings.catch_warnings():
        # What a scheme warns of has its own tests.
        warnings.simplefilter("ignore")
        made = scheme.draw(weight, np.random.default_rng(seed), **scheme.to)
    values, keep = (made.values, made.keep) if isinstance(made, Chosen) else (made, weight.keep)
    return Chosen(np.where(keep, values, 0), keep)


def values_of(name: str, weight: Weight, seed: int = 0, **settings: Any) -> Array:
    """Draw one weight by a registered scheme: its values alone."""
    return draw_one(name, weight, seed, **settings).values


@cache
def refusal(name: str, example_name: str) -> str:
    """Return why a scheme does not draw an example, empty where it does."""
    try:
        draw_one(name, EXAMPLES[example_name])
    except (BadValue, LeftAlone) as why:
        return f"{type(why).__name__}: {why}"
    return ""


def served(name: str, weights: Mapping[str, Weight]) -> Mapping[str, Weight]:
    """Return those of some examples that a scheme draws."""
    return {each: weight for each, weight in weights.items() if not refusal(name, each)}
