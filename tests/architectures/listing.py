"""All architectures, by name."""

from __future__ import annotations

import functools

from tests.architectures import hand_made, hugging_face
from tests.architectures.entry import Architecture


@functools.cache
def architectures() -> dict[str, Architecture]:
    """Return the whole list."""
    return {each.name: each for each in (*hand_made.architectures(), *hugging_face.architectures())}
