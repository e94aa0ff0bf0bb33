"""How much two masks agree, and how much two random masks of the same size would."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue
from pruning.mask import Mask

# Half the width of 95 % of a normal distribution, in standard deviations.
_TWO_SIDED = 1.959963984540054


@dataclass(frozen=True)
class Overlap:
    """The overlap of two masks over some weights, against chance.

    Chance means: both keep as many weights as they do, and which ones is drawn uniformly and independently.

    Attributes:
        total: weights that both cover.
        kept: weights that each of the two keeps.
        both: weights that both keep.
        expected: mean of `both` by chance.
        std: its standard deviation by chance.
        chance: the central 95 % of `both` by chance.
    """

    total: int
    kept: tuple[int, int]
    both: int
    expected: float
    std: float
    chance: tuple[float, float]

    @property
    def jaccard(self) -> float:
        """|A ∩ B| / |A ∪ B|: 1 for equal masks, 0 for disjoint ones."""
        return self._jaccard(self.both)

    @property
    def share(self) -> float:
        """|A ∩ B| / min(|A|, |B|): 1 where one mask contains the other."""
        return self.both / min(self.kept) if min(self.kept) else 1.0

    @property
    def chance_jaccard(self) -> tuple[float, float, float]:
        """The Jaccard index of the expected overlap, and of the central 95 % by chance (it grows with the overlap)."""
        return self._jaccard(self.expected), self._jaccard(self.chance[0]), self._jaccard(self.chance[1])

    @property
    def z(self) -> float:
        """Standard deviations above chance; NaN where chance leaves nothing open (a dense or an empty tensor)."""
        return (self.both - self.expected) / self.std if self.std > 0 else math.nan

    def _jaccard(self, both: float) -> float:
        union = sum(self.kept) - both
        return both / union if union else 1.0


def hypergeometric(total: int, first: int, second: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the distribution of the overlap of two random subsets of `total` things, `first` and `second` in size.

    Returns:
        The possible overlaps, ascending, and their probabilities (exact up to rounding).

    Raises:
        BadValue: a subset that is negative in size or larger than the whole.

    >>> overlaps, chances = hypergeometric(4, 2, 2)
    >>> overlaps.tolist(), (6 * chances).round(12).tolist()
    ([0, 1, 2], [1.0, 4.0, 1.0])
    """
    if not (0 <= first <= total and 0 <= second <= total):
        raise BadValue(f"subsets of {first} and {second} do not fit into {total}")
    overlaps = np.arange(max(0, first + second - total), min(first, second) + 1)
    # Neighbouring probabilities have a ratio of small integers: no factorial, no overflow.
    before = overlaps[:-1].astype(np.float64)
    up = np.log(first - before) + np.log(second - before) - np.log(before + 1)
    steps = up - np.log(total - first - second + before + 1)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    return overlaps, weights / weights.sum()


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Overlap:
    """Return the overlap of two boolean arrays of one shape; chance is the exact hypergeometric distribution.

    >>> overlap(np.array([True, True, False, False]), np.array([True, False, True, False])).expected
    1.0
    """
    return _one_pool(a.size, (int(a.sum()), int(b.sum())), int((a & b).sum()))


def layer_overlaps(a: Mask, b: Mask) -> dict[str, Overlap]:
    """Return the overlap in each tensor; raises `MaskMismatch` for masks of different tensors.

    >>> found = layer_overlaps(Mask({"u": [1, 1, 0], "v": [1, 0]}), Mask({"u": [0, 1, 1], "v": [1, 0]}))
    >>> {name: one.jaccard for name, one in found.items()}
    {'u': 0.3333333333333333, 'v': 1.0}
    """
    both = (a & b).counts()
    kept = (a.counts(), b.counts())
    return {name: _one_pool(a[name].size, (kept[0][name], kept[1][name]), both[name]) for name in a}


def global_overlap(a: Mask, b: Mask) -> Overlap:
    """Return the overlap of two whole masks, where chance keeps each mask's total count and nothing else.

    Raises:
        MaskMismatch: masks of different tensors.
    """
    return _one_pool(a.total, (a.kept, b.kept), (a & b).kept)


def pooled(layers: Iterable[Overlap]) -> Overlap:
    """Return the overlap of two whole masks, where chance keeps the count of every tensor (the sharper null model).

    Layers that are denser in both masks already make them overlap: that is no agreement about single weights. The
    95 % by chance is the normal approximation of a sum of independent hypergeometric numbers.

    >>> from pruning.mask import Mask
    >>> same = Mask({"u": [1, 1, 1, 1], "v": [0, 0, 0, 1]})
    >>> pooled(layer_overlaps(same, same).values()).expected
    4.25
    """
    layers = list(layers)
    expected = math.fsum(layer.expected for layer in layers)
    std = math.sqrt(math.fsum(layer.std**2 for layer in layers))
    least = sum(max(0, sum(layer.kept) - layer.total) for layer in layers)
    most = sum(min(layer.kept) for layer in layers)
    return Overlap(
        total=sum(layer.total for layer in layers),
        kept=(sum(layer.kept[0] for layer in layers), sum(layer.kept[1] for layer in layers)),
        both=sum(layer.both for layer in layers),
        expected=expected,
        std=std,
        chance=(max(least, expected - _TWO_SIDED * std), min(most, expected + _TWO_SIDED * std)),
    )


def _one_pool(total: int, kept: tuple[int, int], both: int) -> Overlap:
    expected = kept[0] * kept[1] / total
    spread = expected * (1 - kept[0] / total) * (1 - kept[1] / total) * total / max(1, total - 1)
    overlaps, chances = hypergeometric(total, *kept)
    below = np.cumsum(chances)
    low, high = (int(overlaps[min(int(np.searchsorted(below, level)), len(below) - 1)]) for level in (0.025, 0.975))
    return Overlap(total, kept, both, expected, math.sqrt(spread), (float(low), float(high)))
