"""What belongs to a compiled program and is no array of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax


@jax.tree_util.register_static
@dataclass(frozen=True)
class Fixed:
    """What belongs to the program and is no array: a switch in a batch, a `torch.Size`, a number of an object."""

    value: Any


def released(tree: Any) -> Any:
    """Return a pytree with what was fixed in its place.

    >>> released([Fixed(True), 2])
    [True, 2]
    """
    return jax.tree.map(lambda leaf: leaf.value if is_fixed(leaf) else leaf, tree, is_leaf=is_fixed)


def is_fixed(leaf: Any) -> bool:
    """Say whether a leaf is fixed.

    >>> is_fixed(Fixed(True)), is_fixed(True)
    (True, False)
    """
    return isinstance(leaf, Fixed)
