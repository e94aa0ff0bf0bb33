"""Initializers: how the weights of a network are drawn under a mask. One small function each, found by itself.

    mask, activation, place ─▶ Weight ─┐
                                       ├─▶ scheme ─▶ values (─▶ and mask, where the scheme chooses it)
                        NumPy generator┘

A scheme sees one matrix [out, in, *taps] at a time, whatever the framework: each gate of a recurrent layer, each group
of a convolution, each projection of an attention by itself.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.registry import Registry, known_settings, registered_or_own, settings_of_function, summary_of
from pruning.starts.choosing.densities import thinned
from pruning.starts.left_alone import LeftAlone
from pruning.starts.scaling.graph import with_live_degrees
from pruning.starts.tensor import Tensor
from pruning.starts.weight import Array, Weight


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a scheme returns that chooses the mask itself.

    Attributes:
        values: [out, in, *taps].
        keep: which entries are trained; as many as the weight's own `keep` has. Some of their values may be 0.
    """

    values: Array
    keep: NDArray[np.bool_]


def leave_lookups(weight: Weight) -> None:
    """Raise `LeftAlone` for an embedding: it sums over nothing, so that no fan says how large its weights should be."""
    if weight.kind == "embedding":
        raise LeftAlone("an embedding is looked up, not summed over: no fan says how large it should be")


Draw = Callable[..., Array | Chosen]
"""`draw(weight, rng, **settings)` returns values of the weight's shape; those that the mask removes do not count."""
D = TypeVar("D", bound=Draw)


@dataclass(frozen=True)
class Initializer:
    """A scheme.

    Attributes:
        name: the name that users type.
        draw: draws one weight; its keyword arguments with defaults are the scheme's settings.
        chooses_mask: whether it returns `Chosen`: of the given mask, only the number of entries counts.
        to: for `Draw`; keyword arguments that were set.
    """

    name: str
    draw: Draw
    chooses_mask: bool = False
    to: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return its settings with their defaults."""
        return settings_of_function(self.draw)


INITIALIZERS: Registry[Initializer] = Registry("init", "pruning.initializers", listed="initializers")


def initializer(name: str, *, source: str, chooses_mask: bool = False) -> Callable[[D], D]:
    """Register a scheme; its docstring's first line is its summary.

    Args:
        name: the name that users type.
        source: the paper (or page) that defines it.
        chooses_mask: whether it chooses the mask too.
    """

    def register(draw: D) -> D:
        INITIALIZERS.add(name, Initializer(name, draw, chooses_mask), summary_of(draw), source)
        return draw

    return register


def get_initializer(name: str | Draw, settings: Mapping[str, Any] | None = None) -> Initializer:
    """Return the scheme called `name` with its settings, or the user's own: a function, or `package.module:function`.

    Raises:
        UnknownName: neither registered nor importable, or a setting that the scheme does not have.

    >>> get_initializer("unit-scaled", {"gain": 1.0}).to
    {'gain': 1.0}
    """
    found = registered_or_own(INITIALIZERS, name, lambda each: each.draw, Initializer)
    return replace(found, to=known_settings(found.name, found.draw, settings))


@dataclass(frozen=True)
class Drawn:
    """Weights that a scheme drew.

    Attributes:
        values: by tensor name, of the tensor's own shape; 0 where the mask removes.
        keep: by tensor name: which entries are trained.
        left: by tensor name, why the scheme left it as the model made it.
    """

    values: Mapping[str, Array]
    keep: Mapping[str, NDArray[np.bool_]]
    left: Mapping[str, str]

    @property
    def at_zero(self) -> dict[str, int]:
        """By tensor name, how many entries are trained and start at 0: a scheme that chooses a mask may need some."""
        return {name: int((keep & (self.values[name] == 0)).sum()) for name, keep in self.keep.items()}


def draw(tensors: Sequence[Tensor], scheme: Initializer, seed: int) -> Drawn:
    """Draw tensors; each has a generator of its own, by its name, so that none depends on which others there are.

    Args:
        tensors: what is drawn.
        scheme: how.
        seed: of everything random here.

    Raises:
        BadValue: a scheme that returned another shape, or something that is not a finite number.

    >>> from pruning.starts.tensor import Layout
    >>> keep = np.array([[True, False, False], [True, True, True]])
    >>> tensor = Tensor("fc", keep, Layout((2, 3), (), (0,), (1,)), activation="relu")
    >>> drawn = draw([tensor], get_initializer("unit-scaled"), seed=0)
    >>> (drawn.values["fc"] != 0).tolist()
    [[True, False, False], [True, True, True]]
    """
    values: dict[str, Array] = {}
    keep: dict[str, NDArray[np.bool_]] = {}
    left: dict[str, str] = {}
    with _told_once():
        for tensor in with_live_degrees(tensors):
            try:
                chosen = [_drawn(weight, scheme, seed, part) for part, weight in enumerate(tensor.weights())]
            except LeftAlone as why:
                left[tensor.name] = str(why)
                continue
            values[tensor.name] = cast(Array, tensor.joined([each.values for each in chosen]))
            keep[tensor.name] = cast(NDArray[np.bool_], tensor.joined([each.keep for each in chosen]))
    return Drawn(values, keep, left)


@contextmanager
def _told_once() -> Iterator[None]:
    """Give one warning of each kind, with how many there were: a scheme warns for each matrix that it draws."""
    with warnings.catch_warnings(record=True) as said:
        yield
    for kind in dict.fromkeys(each.category for each in said):
        texts = [str(each.message) for each in said if each.category is kind]
        more = f" ({len(texts)} such matrices)" if len(texts) > 1 else ""
        warnings.warn(texts[0] + more, kind, stacklevel=4)


def chosen_start(
    tensors: Sequence[Tensor],
    density: float,
    scheme: Initializer,
    *,
    seed: int,
    mask_seed: int | None = None,
    scope: str = "erk",
) -> Drawn:
    """Return masks and weights to train a sparse network from scratch: a starting ticket.

    Args:
        tensors: the prunable ones, whatever their present masks.
        density: of all of them together; the number kept is exact.
        scheme: one that chooses masks, or any other, under random masks.
        seed: of the weights, and of the masks where the scheme chooses them.
        mask_seed: of random masks; by default `seed`.
        scope: how many weights each tensor keeps: `uniform`, `er` or `erk`.

    Raises:
        UnknownName: no such scope.
        BadValue: a density that cannot be met, or a tensor that the scheme does not draw.

    >>> from pruning.starts.tensor import Layout
    >>> tensors = [Tensor(name, np.ones((8, 8), bool), Layout((8, 8), (), (0,), (1,))) for name in ("fc1", "fc2")]
    >>> start = chosen_start(tensors, 0.25, get_initializer("exact-orthogonal"), seed=0)
    >>> sum(int(keep.sum()) for keep in start.keep.values()), bool(abs(start.values["fc1"]).max() <= 1)
    (32, True)
    """
    drawn = draw(thinned(tensors, density, scope, seed=seed if mask_seed is None else mask_seed), scheme, seed)
    for name, why in drawn.left.items():
        raise BadValue(f"init {scheme.name!r} does not draw {name!r} ({why}): leave it dense, as --set 'skip=[{name}]'")
    return drawn


def generator(seed: int, name: str, part: int = 0) -> np.random.Generator:
    """Return the generator of one weight."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), part])


def _drawn(weight: Weight, scheme: Initializer, seed: int, part: int) -> Chosen:
    made = scheme.draw(weight, generator(seed, weight.name, part), **scheme.to)
    values, keep = (made.values, made.keep) if isinstance(made, Chosen) else (np.asarray(made), weight.keep)
    if values.shape != weight.shape or keep.shape != weight.shape:
        raise BadValue(f"init {scheme.name!r} drew shape {values.shape} for {weight}, not {weight.shape}")
    if int(keep.sum()) != int(weight.keep.sum()):
        raise BadValue(
            f"init {scheme.name!r} keeps {int(keep.sum())} entries of {weight}, not {int(weight.keep.sum())}"
        )
    values = np.where(keep, values, 0)
    if not np.isfinite(values).all():
        raise BadValue(f"init {scheme.name!r} drew numbers for {weight} that are not finite")
    return Chosen(values, keep)
