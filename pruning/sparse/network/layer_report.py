"""The report of one masked tensor in a sparse forward pass, and its row in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADER = ("layer", "shape", "compacted", "density", "backend", "dense ms", "sparse ms", "", "bytes")
# Of all columns but the first, which is as wide as its longest name.
_WIDTHS = (16, 16, 8, 8, 9, 9, 6, 22)
Row = tuple[str, ...]


@dataclass(frozen=True)
class LayerReport:
    """One masked tensor.

    Attributes:
        name: in the model.
        kind: the kind of its layer.
        shape: the shape of the tensor.
        compacted: of the tensor without neurons, channels and columns that no result depends on.
        density: fraction of its weights that stay.
        backend: the backend of the product; `dense` where the layer stayed as it was.
        dense_seconds: the time of its layer, masked and dense; None where nothing was measured.
        sparse_seconds: the time of its layer in the best sparse form found; None where nothing was measured.
        dense_bytes: the size of the dense tensor.
        sparse_bytes: of the surviving values and of where they lie, in memory and on disk alike (compressed rows).
        reason: why it stayed dense; empty where it did not.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    compacted: tuple[int, ...]
    density: float
    backend: str
    dense_seconds: float | None
    sparse_seconds: float | None
    dense_bytes: int
    sparse_bytes: int
    reason: str


def aligned(rows: Sequence[Row]) -> list[str]:
    """Return the header and rows as lines in columns, the first on the left and the others on the right.

    >>> aligned([("fc", "4×2", "–", "50.00%", "dense", "–", "–", "", "32 → 32")])[1].split()
    ['fc', '4×2', '–', '50.00%', 'dense', '–', '–', '32', '→', '32']
    """
    first = max(len(row[0]) for row in (HEADER, *rows))
    return [
        " ".join([f"{row[0]:<{first}}", *(f"{text:>{size}}" for text, size in zip(row[1:], _WIDTHS, strict=True))])
        for row in (HEADER, *rows)
    ]


def row_of(layer: LayerReport, above: LayerReport | None, as_it_was: bool) -> Row:
    """Return the row of a layer.

    Args:
        layer: the layer.
        above: the one above it: tensors of one layer are timed together.
        as_it_was: the network runs as it was, nothing is compacted.
    """
    dense, sparse = layer.dense_seconds, layer.sparse_seconds
    taken = ("–", "–", "")
    if dense is not None and sparse is not None:
        taken = times(dense, sparse, dense / sparse)
        if above is not None and (above.dense_seconds, above.sparse_seconds) == (dense, sparse):
            taken = ("″", "″", "")
    compacted = "–" if as_it_was else _shape(layer.compacted)
    size = f"{layer.dense_bytes:,} → {layer.sparse_bytes:>9,}"
    return (layer.name, _shape(layer.shape), compacted, _percent(layer.density), layer.backend, *taken, size)


def times(dense: float, sparse: float, gain: float) -> tuple[str, str, str]:
    """Return two times in seconds as milliseconds, and what is gained.

    >>> times(0.002, 0.001, 2)
    ('2.000', '1.000', '2.0x')
    """
    return f"{dense * 1e3:.3f}", f"{sparse * 1e3:.3f}", f"{gain:.1f}x"


def _percent(density: float) -> str:
    return "<0.01%" if 0 < density < 5e-5 else f"{density:.2%}"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
