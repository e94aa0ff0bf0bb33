"""torch's operations in JAX, where torchax lacks them or differs from torch; one file for each family.

`registry` says where an operation is looked up. A new one costs a function with a decorator.
"""

from es.translation.operations import (  # noqa: F401
    attention,
    convolutions,
    embedding,
    functions,
    indexing,
    numbers,
    pooling,
    sequences,
)
from es.translation.operations.functions import function_of
from es.translation.operations.registry import decomposition, find, functional

__all__ = ["decomposition", "find", "function_of", "functional"]
