"""What a model was first shown, as plain JSON: containers, shapes and types, no values."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from pruning.errors import FileFormatError

_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def described(tree: Any) -> Any:
    """Return a tree of arrays as JSON; tuples become lists.

    >>> described({"image": jnp.ones((2, 3)), "ids": [jnp.arange(2)]})
    {'image': 'float32[2,3]', 'ids': ['int32[2]']}
    """
    if isinstance(tree, dict):
        return {str(key): described(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [described(value) for value in tree]
    return f"{tree.dtype.name}[{','.join(map(str, tree.shape))}]"


def shapes_of(description: Any) -> Any:
    """Return a tree of shapes from its description; raises `FileFormatError` for any other value.

    >>> shapes_of(["float32[2,3]"])
    [ShapeDtypeStruct(shape=(2, 3), dtype=float32)]
    """
    if isinstance(description, dict):
        return {key: shapes_of(value) for key, value in description.items()}
    if isinstance(description, list):
        return [shapes_of(value) for value in description]
    found = _ARRAY.fullmatch(description) if isinstance(description, str) else None
    try:
        if found is not None:
            return jax.ShapeDtypeStruct(tuple(map(int, filter(None, found[2].split(",")))), jnp.dtype(found[1]))
    except (TypeError, ValueError):  # no type of that name, a number of thousands of digits
        pass
    raise FileFormatError("the ticket's record of the batch that its model was first shown cannot be read")
