"""N of M: a few weights of every group of neighbours."""

from __future__ import annotations

from pruning.errors import BadValue
from pruning.patterns import Tile, pattern


@pattern("n-m", source="Mishra et al. 2021, section 3, 2:4 (arXiv 2104.08378); Zhou et al. 2021 (arXiv 2102.04010)")
def n_m(out: int, rest: int, n: int, m: int) -> Tile:
    """At most n of every m consecutive weights of a row stay.

    A level keeps as many weights as the schedule says, or all that the pattern allows where that is less.

    >>> n_m(out=3, rest=8, n=2, m=4)
    Tile(height=1, width=4, most=2)
    """
    if n > m:
        raise BadValue(f"pattern 'n-m' keeps n of every m weights: n must be at most m, not {n} of {m}")
    return Tile(1, m, most=n)
