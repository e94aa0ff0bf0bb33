"""Sparsity-aware orthogonal initialization: small orthonormal blocks, spread over a matrix."""

from __future__ import annotations

import math
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from pruning.errors import BadValue, unknown
from pruning.initializers import Chosen, initializer, leave_lookups
from pruning.starts.choosing.kernels import Centre, at_centre, centre_count, filled_up, kept_for_centre
from pruning.starts.gains import gain_before
from pruning.starts.haar import haar
from pruning.starts.weight import Weight

T = TypeVar("T", bound=np.generic)
Mirror = Literal["both", "outputs", "inputs", "none"]


@initializer(
    "sao",
    source="Esguerra et al. 2023, sparsity-aware orthogonal initialization (10.1109/ACCESS.2023.3295344)",
    chooses_mask=True,
)
def sao(
    weight: Weight,
    rng: np.random.Generator,
    *,
    gain: float | None = None,
    activation: str | None = None,
    degree: int | None = None,
    mirror: Mirror | None = None,
    centre: Centre = "denser",
) -> Chosen:
    """Blocks of orthonormal rows, each on as many inputs of its own, and their mask; mirrored before a ReLU.

    Rows are orthonormal up to the gain (columns, where there are more outputs than inputs). Mirrored, the matrix is
    [[A, −A], [−A, A]], and a ReLU between two such layers changes nothing: [u, −u] goes to [Au, −Au]. The network's
    first layer is [[A], [−A]]. The gain is then 1. Entries that are left over, because blocks cannot have every size,
    are drawn at random (mirrored as far as they go): they start at 0 and are trained. A layer without a ReLU behind it
    is not mirrored; where it reads a mirrored one, `mirror=inputs` makes it linear, too.

    Args:
        weight: only the number of entries that its mask keeps is used.
        rng: for everything random.
        gain: by default that of the activation, and 1 where the matrix is mirrored.
        activation: by default the one that was found.
        degree: the most inputs of a unit (of A, where mirrored); by default as many as the density allows.
        mirror: `both` sides, `outputs` ([[A], [−A]]), `inputs` ([A, −A]) or `none`; by default by the activation.
        centre: in a kernel, `even` for a centre tap as dense as the kernel, d; `denser` for min(d·k², 1, √d).

    Raises:
        BadValue: an odd width to mirror, fewer entries than blocks need, or a kernel of an even size.
        UnknownName: another word for `mirror` or `centre`.
        LeftAlone: an embedding.
    """
    leave_lookups(weight)
    if mirror is None:
        mirror = _mirror_before(activation or weight.activation, weight)
    if mirror not in get_args(Mirror):
        raise unknown("mirror", mirror, get_args(Mirror))
    scale = 1.0 if mirror != "none" and gain is None else gain_before(weight, gain, activation)
    copies, rows, columns = _halved(weight, mirror)
    blocks = _blocks(weight, rows, columns, copies, degree, centre)
    values, live = _block_matrix(rows, columns, blocks, rng)
    kernel = at_centre(weight, _mirrored(scale * values, mirror), "sao")
    return Chosen(kernel, _filled_up(weight, live, mirror, copies, rng))


def _mirror_before(activation: str | None, weight: Weight) -> Mirror:
    if activation != "relu":
        return "none"
    # What the network is given is not of the form [u, −u]: [A, −A] would take half of it away.
    first = weight.place is not None and weight.place.index == 0
    return "outputs" if first else "both"


def _halved(weight: Weight, mirror: Mirror) -> tuple[int, int, int]:
    """Return how often A stands in the matrix, and its rows and columns."""
    two = {"both": (2, 2), "outputs": (2, 1), "inputs": (1, 2), "none": (1, 1)}[mirror]
    for width, parts, side in zip(weight.shape, two, ("outputs", "inputs"), strict=False):
        if width % parts:
            raise BadValue(
                f"init 'sao' mirrors the {side} of {weight}, and {width:,} is odd: take an even width, or "
                "--set init_params.mirror=none"
            )
    return math.prod(two), weight.outputs // two[0], weight.inputs // two[1]


def _mirrored(matrix: NDArray[T], mirror: Mirror) -> NDArray[T]:
    """Return the matrix that A makes; its mirror image is −A, or the same where A is boolean."""
    image = matrix if matrix.dtype == bool else -matrix  # pyright: ignore[reportOperatorIssue]
    if mirror in ("both", "inputs"):
        matrix, image = np.concatenate([matrix, image], axis=1), np.concatenate([image, matrix], axis=1)
    return np.concatenate([matrix, image], axis=0) if mirror in ("both", "outputs") else matrix


def _filled_up(
    weight: Weight, live: NDArray[np.bool_], mirror: Mirror, copies: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the mask: A's, mirrored, and random others that are mirror images of each other, but for three at most."""
    rows, columns = live.shape
    half = Weight(weight.name, np.empty((rows, columns, *weight.shape[2:]), bool), weight.kind)
    own = at_centre(half, live, "sao")
    more = -(-int(weight.keep.sum()) // copies)
    keep = _mirrored(filled_up(own, more, rng), mirror)
    added = np.flatnonzero(keep & ~_mirrored(own, mirror))
    keep.reshape(-1)[added[: more * copies - int(weight.keep.sum())]] = False
    return keep


def _blocks(weight: Weight, rows: int, columns: int, copies: int, degree: int | None, centre: Centre) -> int:
    """Return into how many blocks A is cut: as few as the number of entries allows, or as `degree` says."""
    count = centre_count(weight, centre) // copies
    most = min(rows, columns)
    if degree is None:
        possible = range(min(most, max(1, rows * columns // max(1, count))), most + 1)
        found = next((blocks for blocks in possible if _entries(rows, columns, blocks) <= count), None)
        wanted, advice = most, "; init 'exact-orthogonal' can be sparser"
    else:
        if not 1 <= degree <= columns:
            raise BadValue(f"degree of init 'sao' must be 1 to {columns:,} for {weight}, not {degree}")
        wanted, advice = min(most, -(-columns // degree)), ", or give a smaller degree"
        found = wanted if _entries(rows, columns, wanted) <= count else None
    if found is not None:
        return found
    kept, total = int(weight.keep.sum()), weight.keep.size
    enough = kept_for_centre(weight, copies * _entries(rows, columns, wanted), centre)
    raise BadValue(
        f"init 'sao' cannot draw {weight} with {kept:,} of {total:,} entries: keep {enough:,} or more, a density of "
        f"{enough / total:.3g}{advice}"
    )


def _sizes(width: int, blocks: int) -> list[int]:
    return [width // blocks + (block < width % blocks) for block in range(blocks)]


def _entries(rows: int, columns: int, blocks: int) -> int:
    return int(np.dot(_sizes(rows, blocks), _sizes(columns, blocks)))


def _block_matrix(
    rows: int, columns: int, blocks: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a matrix of orthonormal blocks, its rows and columns in random order, and where it has entries."""
    values, live = np.zeros((rows, columns)), np.zeros((rows, columns), bool)
    # Sizes fall along both sides, so that no block is longer on the side on which the matrix is shorter.
    ends = [np.cumsum(_sizes(width, blocks))[:-1] for width in (rows, columns)]
    ours, theirs = np.split(rng.permutation(rows), ends[0]), np.split(rng.permutation(columns), ends[1])
    for units, inputs in zip(ours, theirs, strict=True):
        values[np.ix_(units, inputs)] = haar(rng, len(units), len(inputs))
        live[np.ix_(units, inputs)] = True
    return values, live
