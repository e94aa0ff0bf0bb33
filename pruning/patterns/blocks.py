"""Blocks of weights."""

from __future__ import annotations

from pruning.patterns import Tile, pattern


@pattern("blocks", source="Narang et al. 2017, block-sparse recurrent networks (arXiv 1711.02782)")
def blocks(out: int, rest: int, height: int, width: int) -> Tile:
    """Blocks of height × width weights stay or go whole, by the mean score of what is left of them."""
    return Tile(height, width)
