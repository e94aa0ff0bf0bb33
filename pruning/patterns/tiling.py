"""Tiles of one matrix: which survivors are the best of their tile, and what is left of each tile.

Arrays are worked through in bands of whole tiles, so that little memory is needed beside the scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.patterns import Tile

_BAND = 1 << 20


@dataclass(frozen=True)
class Tiles:
    """What is left of the tiles of one matrix, in row-major order of the tiles.

    Attributes:
        scores: (tiles,) float64, the mean score of a tile's survivors; 0 where there are none.
        sizes: (tiles,) integers, how many survivors each has.
    """

    scores: NDArray[np.float64]
    sizes: NDArray[np.intp]


def best_of_tiles(values: NDArray[Any], keep: NDArray[np.bool_], tile: Tile) -> NDArray[np.bool_]:
    """Mark the survivors that are among the `tile.most` highest of their tile; of equal ones the earlier.

    Args:
        values: [out, rest] scores; those of removed weights are ignored.
        keep: the mask, a matrix too.
        tile: divides the matrix.

    >>> best_of_tiles(np.array([[1.0, 2, 3, 3, 3, 9]]), np.array([[1, 1, 1, 1, 1, 0]], bool), Tile(1, 3, most=2))
    array([[False,  True,  True,  True,  True, False]])
    """
    marked = np.zeros(keep.shape, bool)
    for band in _bands(keep, tile):
        held, scores = (_tiled(array[band], tile) for array in (keep, values))
        # A stable sort from the last to the first, read backwards: descending, of equal scores the earlier first.
        order = tile.area - 1 - np.argsort(scores[:, ::-1], axis=1, kind="stable")[:, ::-1]
        ranked = np.take_along_axis(held, order, axis=1)
        ranked &= np.cumsum(ranked, axis=1) <= (tile.area if tile.most is None else tile.most)
        best = np.empty_like(ranked)
        np.put_along_axis(best, order, ranked, axis=1)
        marked[band] = _untiled(best, tile, marked[band].shape)
    return marked


def tiles_of(name: str, values: NDArray[Any], keep: NDArray[np.bool_], tile: Tile) -> Tiles:
    """Return, for each tile of a tensor's matrix, the mean score of the weights left and their number.

    Means are added up in float64 and in row-major order, the same on every machine.

    Raises:
        BadValue: a tile with scores of both infinities, which has no mean.

    >>> tiles_of("w", np.array([[1.0, 3], [5, 9]]), np.array([[1, 1], [1, 0]], bool), Tile(1, 2))
    Tiles(scores=array([2., 5.]), sizes=array([2, 1]))
    """
    out, rest = keep.shape
    columns = rest // tile.width
    sizes = np.zeros(out // tile.height * columns, np.intp)
    sums = np.zeros(len(sizes))
    for band in _bands(keep, tile):
        held = keep[band]
        row = np.arange(len(held)) // tile.height * columns
        label = (row[:, None] + np.arange(rest) // tile.width)[held]
        first, count = band.start // tile.height * columns, len(held) // tile.height * columns
        where = slice(first, first + count)
        sizes[where] = np.bincount(label, minlength=count)
        sums[where] = np.bincount(label, values[band][held], minlength=count)
    if np.isnan(sums).any():
        raise BadValue(f"the scores of {name!r} hold both infinities in what stays or goes together: it has no mean")
    return Tiles(np.divide(sums, sizes, out=np.zeros(len(sums)), where=sizes > 0), sizes)


def spread(chosen: NDArray[np.bool_], keep: NDArray[np.bool_], tile: Tile) -> NDArray[np.bool_]:
    """Return the part of a mask that lies in the chosen tiles.

    >>> spread(np.array([True, False]), np.array([[1, 0], [1, 1]], bool), Tile(1, 2))
    array([[ True, False],
           [False, False]])
    """
    out, rest = keep.shape
    grid = chosen.reshape(out // tile.height, rest // tile.width)
    return np.repeat(np.repeat(grid, tile.height, axis=0), tile.width, axis=1) & keep


def _bands(keep: NDArray[np.bool_], tile: Tile) -> Iterator[slice]:
    """Yield slices of rows that hold whole tiles and not too many weights."""
    out, rest = keep.shape
    step = max(1, _BAND // max(1, rest * tile.height)) * tile.height
    return (slice(start, min(start + step, out)) for start in range(0, out if rest else 0, step))


def _tiled(band: NDArray[Any], tile: Tile) -> NDArray[Any]:
    """Return (tiles, weights of a tile)."""
    out, rest = band.shape
    cut = band.reshape(out // tile.height, tile.height, rest // tile.width, tile.width)
    return cut.transpose(0, 2, 1, 3).reshape(-1, tile.area)


def _untiled(tiles: NDArray[Any], tile: Tile, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the matrix that these are the tiles of."""
    out, rest = shape
    cut = tiles.reshape(out // tile.height, rest // tile.width, tile.height, tile.width)
    return cut.transpose(0, 2, 1, 3).reshape(out, rest)
