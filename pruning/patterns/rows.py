"""Output units."""

from __future__ import annotations

from pruning.patterns import Tile, pattern


@pattern("rows", source="Li et al. 2017, section 3.1, filters (arXiv 1608.08710)")
def rows(out: int, rest: int) -> Tile:
    """Output neurons or channels stay or go whole, by the mean score of what is left of them."""
    return Tile(1, max(1, rest))
