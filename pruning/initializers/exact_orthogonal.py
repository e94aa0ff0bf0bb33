"""Exact orthogonal initialization: a sparse isometry, and the mask it needs."""

from __future__ import annotations

import numpy as np

from pruning.errors import BadValue
from pruning.initializers import Chosen, initializer, leave_lookups
from pruning.starts.choosing.kernels import Centre, at_centre, centre_count, filled_up, kept_for_centre
from pruning.starts.choosing.rotations import fewest, sparse_orthogonal
from pruning.starts.gains import gain_before
from pruning.starts.weight import Weight


@initializer(
    "exact-orthogonal",
    source="Nowak et al. 2024, exact orthogonal initialization (arXiv 2406.01755)",
    chooses_mask=True,
)
def exact_orthogonal(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    centre: Centre = "denser",
    irreducible: bool = False,
) -> Chosen:
    """A sparse orthogonal matrix, a product of random rotations, and its mask; in a kernel, at the centre tap.

    Rows are orthonormal up to the gain, or columns where there are more outputs than inputs, to rounding of float64. In
    a convolution with fewer outputs than inputs, too. Entries that the product has too few are drawn at random from the
    others: they start at 0 and are trained. At density 1 the matrix is orthogonal, but not uniform among all such.

    Args:
        weight: only the number of entries that its mask keeps is used.
        rng: for everything random.
        gain: the singular values; by default that of the activation.
        activation: by default the one that was found.
        centre: `even` for a centre tap as dense as the kernel, d; `denser` for min(d·k², 1, √d).
        irreducible: whether the matrix may not fall apart into blocks that share no rows or columns.

    Raises:
        BadValue: fewer entries than an orthogonal matrix has, or a kernel of an even size.
        LeftAlone: an embedding.
    """
    leave_lookups(weight)
    count, needed = centre_count(weight, centre), fewest(weight.outputs, weight.inputs, irreducible)
    if count < needed:
        raise BadValue(_too_few(weight, needed, centre, irreducible))
    values, live = sparse_orthogonal(weight.outputs, weight.inputs, count, rng, irreducible)
    kernel = at_centre(weight, gain_before(weight, gain, activation) * values, "exact-orthogonal")
    keep = at_centre(weight, live, "exact-orthogonal")
    return Chosen(kernel, filled_up(keep, int(weight.keep.sum()), rng))


def _too_few(weight: Weight, needed: int, centre: Centre, irreducible: bool) -> str:
    kept, total = int(weight.keep.sum()), weight.keep.size
    enough = kept_for_centre(weight, needed, centre)
    kind = "irreducible orthogonal" if irreducible else "orthogonal"
    return (
        f"init 'exact-orthogonal' cannot draw {weight} with {kept:,} of {total:,} entries: an {kind} matrix of "
        f"{weight.outputs:,}×{weight.inputs:,} needs {needed:,}{' at the centre' if weight.taps > 1 else ''}; keep "
        f"{enough:,} or more, a density of {enough / total:.3g}"
    )
