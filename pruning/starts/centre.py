"""The centre of a kernel."""

from __future__ import annotations

from pruning.errors import BadValue
from pruning.starts.weight import Weight


def centre_of(weight: Weight, scheme: str) -> tuple[slice | int, ...]:
    """Return the index of a kernel's centre tap: `values[centre_of(...)]` is [out, in]; all of a matrix.

    Args:
        weight: the weight.
        scheme: the initializer that asks, for the message.

    Raises:
        BadValue: a kernel of even size has no centre.

    >>> import numpy as np
    >>> centre_of(Weight("conv", np.ones((8, 4, 3, 5), bool), "convolution"), "identity")[2:]
    (1, 2)
    """
    kernel = weight.shape[2:]
    if any(size % 2 == 0 for size in kernel):
        raise BadValue(
            f"{scheme} needs a kernel with a centre, so of odd size: {weight} has {' × '.join(map(str, kernel))}; "
            "init 'orthogonal' serves it"
        )
    return (slice(None), slice(None), *(size // 2 for size in kernel))
