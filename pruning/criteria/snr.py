"""Signal-to-noise ratio of the trained weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.criteria import Scores, criterion
from pruning.errors import BadValue, MaskMismatch
from pruning.jobs import Job, Trained

# Both sides of the ratio are held to the range of float32, so that a ratio in float64 is at most 2**277. A standard
# deviation of 0 counts as 2**-600: |w| divided by it is beyond every such ratio, finite, and exact, so that the order
# among certain weights is that of |w|.
_LEAST = float(np.finfo(np.float32).smallest_subnormal)
_MOST = float(np.finfo(np.float32).max)
_CERTAIN = 2.0**-600


@criterion(
    "snr",
    source="Lange & Sprekeler 2023, Algorithm 1 (arXiv 2306.00045); Blundell et al. 2015 (arXiv 1505.05424)",
    needs=("std",),
)
def snr(trained: Trained, job: Job) -> Scores:
    """|w| / std after training: weights that are small beside their own uncertainty go first.

    Returns:
        One finite float64 array for each tensor of the mask. A survivor that is 0 scores 0, whatever its standard
        deviation; one that is not 0 and has a standard deviation of 0 is certain and scores above every other, by
        |w| among its like. Removed weights score −1, below every survivor.

    Raises:
        BadValue: no standard deviation for a tensor, or one of a survivor that is negative or NaN.
        MaskMismatch: a standard deviation of another shape.
    """
    return {name: _ratio(name, trained, keep) for name, keep in job.mask.items()}


def _ratio(name: str, trained: Trained, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    size = np.abs(_numbers(trained.params[name]))
    std = _checked(name, trained, keep)
    noise = np.where(std > 0, np.clip(std, _LEAST, _MOST), _CERTAIN)
    ratio = np.where(size == 0, 0.0, np.clip(size, _LEAST, _MOST) / noise)
    return np.where(keep, ratio, -1.0)


def _checked(name: str, trained: Trained, keep: NDArray[np.bool_]) -> NDArray[Any]:
    if trained.std is None or name not in trained.std:
        raise BadValue(f"criterion 'snr' needs the standard deviation of {name!r}, and the training gave none")
    std = _numbers(trained.std[name])
    if std.shape != keep.shape:
        raise MaskMismatch(f"standard deviation of {name!r}: expected shape {keep.shape}, got {std.shape}")
    if not (std[keep] >= 0).all():
        raise BadValue(f"the standard deviation of {name!r} holds negative values or NaN")
    return std


def _numbers(values: Any) -> NDArray[np.float64]:
    """Return real numbers; of complex ones their sizes: the standard deviation of both halves together."""
    array = np.asarray(values)
    return (np.abs(array) if np.iscomplexobj(array) else array).astype(np.float64)
