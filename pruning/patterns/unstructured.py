"""Every weight for itself."""

from __future__ import annotations

from pruning.patterns import Pattern, Tile, pattern


@pattern("unstructured", source="Han et al. 2015, section 3 (arXiv 1506.02626)")
def unstructured(out: int, rest: int) -> Tile:
    """Every weight stays or goes by itself: exactly as many stay as the schedule says."""
    return Tile(1, 1)


UNSTRUCTURED = Pattern("unstructured", unstructured)
