"""Patterns: which weights stay or go together. One small file each, found by itself.

A tensor is seen as a matrix, [out, rest]: a row for each output, and in a row, tap after tap, the inputs that a product
sums over (`pruning.uses.axes`). A pattern cuts the matrix into tiles of one size, and either a tile stays or goes
whole, or at most a given number of its weights stay.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from pruning.errors import BadValue, unknown
from pruning.registry import Registry
from pruning.uses.axes import Axes, Shape, as_stored


@dataclass(frozen=True)
class Tile:
    """A rectangle of the [out, rest] matrix.

    Attributes:
        height: rows.
        width: columns.
        most: how many of its weights may stay; None where it stays or goes whole.
    """

    height: int
    width: int
    most: int | None = None

    @property
    def area(self) -> int:
        """Weights in the tile."""
        return self.height * self.width


TileFunction = Callable[..., Tile]


@dataclass(frozen=True)
class Pattern:
    """Which weights stay or go together.

    Attributes:
        name: the name that users type.
        tile_of: `tile_of(out, rest, **params)` returns the tile of an [out, rest] matrix.
        params: its sizes, by name.
        axes: of a network's tensors, by name. A tensor that is not there is taken as it is stored: its first axis by
            all others in their order.
    """

    name: str
    tile_of: TileFunction
    params: Mapping[str, int] = field(default_factory=dict)
    axes: Mapping[str, Axes] = field(default_factory=dict)

    def on(self, axes: Mapping[str, Axes]) -> Pattern:
        """Return the pattern for tensors with these axes."""
        return replace(self, axes=axes)

    def axes_of(self, name: str, shape: Shape) -> Axes:
        """Return the roles of the axes of one tensor."""
        return self.axes.get(name) or as_stored(shape)

    def tile(self, name: str, shape: Shape) -> Tile:
        """Return the tile of one tensor; raises `BadValue` where the tensor does not divide into tiles.

        Columns of a tile are neighbours: its width divides the inputs of one tap, or whole taps stay together.

        >>> get_pattern("blocks", {"height": 2, "width": 9}).tile("conv.weight", (16, 3, 3, 3))
        Tile(height=2, width=9, most=None)
        """
        axes = self.axes_of(name, shape)
        out, rest = axes.matrix_shape
        tile = self.tile_of(out, rest, **self.params)
        wide = tile.most is None and tile.width % max(1, axes.input_count) == 0  # whole taps
        for side, size, part in (
            ("height", out, tile.height),
            ("width", rest if wide else axes.input_count, tile.width),
        ):
            if size % part:
                inputs = "" if wide or axes.input_count == rest else f", {axes.input_count} inputs at each tap"
                raise BadValue(
                    f"pattern {self.name!r}: {name!r} has a {side} of {size} ([out, rest] = [{out}, {rest}]{inputs}), "
                    f"which does not divide by {part}; name it in `skip` or choose another size"
                )
        return tile

    def removes_outputs(self, name: str, shape: Shape) -> bool:
        """Say whether a tile of this tensor holds all weights of an output.

        >>> get_pattern("rows").removes_outputs("fc", (3, 2)), get_pattern("unstructured").removes_outputs("fc", (3, 1))
        (True, False)
        """
        out, rest = self.axes_of(name, shape).matrix_shape
        tile = self.tile_of(out, rest, **self.params)
        # A row of one weight is a row only where a longer one would go whole too.
        whole = tile.most is None and tile.width >= rest
        return whole and (rest > 1 or self.tile_of(out, 2, **self.params).width > 1)


PATTERNS: Registry[TileFunction] = Registry("pattern", "pruning.patterns", listed="patterns")


def pattern(name: str, *, source: str) -> Callable[[TileFunction], TileFunction]:
    """Register a function of an [out, rest] matrix and the pattern's sizes that returns its tile.

    The names of its arguments after the first two are what `pattern_params` holds. What is wrong with the sizes
    alone it says by raising `BadValue`; whether they divide a matrix is checked for it.
    """
    return PATTERNS.registering(name, source)


def get_pattern(name: str, params: Mapping[str, float] | None = None) -> Pattern:
    """Return the pattern called `name` with its sizes.

    Raises:
        UnknownName: no such pattern, or a size that it does not have.
        BadValue: a size that is missing, or that is not a whole number of 1 or more.

    >>> get_pattern("n-m", {"n": 2, "m": 4}).params
    {'n': 2, 'm': 4}
    """
    tile_of = PATTERNS[name].value
    expected = expected_params(name)
    given = dict(params or {})
    takes = f"pattern {name!r} takes {' and '.join(expected) or 'no sizes'}"
    for key in given:
        if not expected:
            raise BadValue(f"{takes}, not {key!r}")
        if key not in expected:
            raise unknown(f"size of pattern {name!r}", key, expected)
    missing = [key for key in expected if key not in given]
    if missing:
        raise BadValue(f"{takes} in pattern_params; {' and '.join(missing)} missing")
    for key, value in given.items():
        if not math.isfinite(value) or value != int(value) or value < 1:
            raise BadValue(f"{takes}, whole numbers of 1 or more; {key} is {value:g}")
    sizes = {key: int(given[key]) for key in expected}
    tile_of(1, 1, **sizes)  # the function says what is wrong with the sizes alone
    return Pattern(name, tile_of, sizes)


def expected_params(name: str) -> tuple[str, ...]:
    """Return the names of a pattern's sizes.

    >>> expected_params("blocks"), expected_params("rows")
    (('height', 'width'), ())
    """
    return tuple(inspect.signature(PATTERNS[name].value).parameters)[2:]


def check_pattern(pattern: Pattern, shapes: Mapping[str, Shape]) -> None:
    """Raise `BadValue` for the first tensor that does not divide into the pattern's tiles.

    >>> check_pattern(get_pattern("n-m", {"n": 2, "m": 4}), {"conv.weight": (16, 3, 3, 3)})
    Traceback (most recent call last):
    pruning.errors.BadValue: pattern 'n-m': 'conv.weight' has a width of 27 ([out, rest] = [16, 27]), which does not \
divide by 4; name it in `skip` or choose another size
    """
    for name, shape in shapes.items():
        pattern.tile(name, shape)
