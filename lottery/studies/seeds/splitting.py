"""The spread of a table of results, split between its rows, its columns and the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lottery.results.statistics import finite_array, without_spread
from pruning.errors import BadValue


@dataclass(frozen=True)
class Split:
    """Shares of the sum of squares about the mean; together they are 1.

    Attributes:
        rows: what the means of the rows account for.
        columns: what the means of the columns account for.
        rest: what is left: rows and columns together, and what neither fixes.
    """

    rows: float
    columns: float
    rest: float


def split_variance(values: ArrayLike) -> Split | None:
    """Return the two-way analysis of variance of a table with one value a cell; None where all values are the same.

    Of values that are noise alone, r rows and c columns get (r − 1) / (rc − 1) and (c − 1) / (rc − 1) on average:
    shares of that size say nothing.

    Args:
        values: [rows, columns], two of each at least.

    Raises:
        BadValue: another shape, or values that are not finite.

    Source: Fisher 1925, chapter VII.

    >>> split_variance([[1.0, 2.0], [3.0, 4.0]])
    Split(rows=0.8, columns=0.2, rest=0.0)
    """
    data = finite_array(values, 2)
    if min(data.shape) < 2:
        raise BadValue(f"a split needs two rows and two columns at least, not the shape {data.shape}")
    if without_spread(data.reshape(-1)):
        return None
    deviations = data - data.mean()
    rows = np.broadcast_to(deviations.mean(1, keepdims=True), data.shape)
    columns = np.broadcast_to(deviations.mean(0, keepdims=True), data.shape)
    parts = [float(np.square(part).sum()) for part in (rows, columns, deviations - rows - columns)]
    return Split(*(part / sum(parts) for part in parts))
