"""Random number generators of the three kinds that people hold on to: PyTorch's, NumPy's and Python's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generator_state(thing: Any) -> bytes | None:
    """Return the state of a random number generator, or None for anything else.

    >>> generator_state(random.Random(1)) == generator_state(random.Random(1)) != generator_state(random.Random(2))
    True
    """
    if isinstance(thing, torch.Generator):
        return thing.get_state().numpy().tobytes()
    if isinstance(thing, np.random.Generator):
        return repr(thing.bit_generator.state).encode()
    if isinstance(thing, np.random.RandomState):
        kind, keys, *rest = thing.get_state(legacy=True)
        return f"{kind} {rest}".encode() + np.asarray(keys).tobytes()
    if isinstance(thing, random.Random):
        return repr(thing.getstate()).encode()
    return None
