"""The function that a name, or a caller of the library, means: any function of an array, element by element."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pruning.errors import BadValue, first_line, shown, unknown
from pruning.registry import import_by_path
from pruning.uses.functions import ACTIVATIONS, Function, Numbers

Activation = str | Callable[[Any], Any]
"""A name of `ACTIVATIONS`, with numbers or without; `package.module:function`; or a function of NumPy or PyTorch."""

_WITH_NUMBERS = re.compile(r"(\w+)\((.*)\)")


def function_of(activation: Activation) -> Function:
    """Return a function from float64 to float64 arrays.

    Raises:
        UnknownName: a name that no function has.
        BadValue: numbers that the function does not take.

    >>> function_of("leaky_relu(0.2)")(np.array([-1.0, 1.0])).tolist()
    [-0.2, 1.0]
    >>> import torch
    >>> function_of(torch.nn.Softplus(beta=2))(np.zeros(1)).round(4).tolist()
    [0.3466]
    """
    if not isinstance(activation, str):
        return partial(_evaluated, activation)
    if ":" in activation:
        found = import_by_path(activation, "activation")
        if not callable(found):
            raise BadValue(f"activation {activation!r} is not a function")
        return partial(_evaluated, found)
    numbered = _WITH_NUMBERS.fullmatch(activation)
    name = numbered[1] if numbered else activation
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return partial(ACTIVATIONS[name], **_numbers(name, numbered[2])) if numbered else ACTIVATIONS[name]


def name_of(activation: Activation) -> str:
    """Return how messages call an activation.

    >>> name_of("relu"), name_of(np.tanh), name_of(lambda z: z)
    ("'relu'", "'tanh'", "'<lambda>'")
    """
    return shown(
        activation if isinstance(activation, str) else getattr(activation, "__name__", type(activation).__name__)
    )


def _numbers(name: str, text: str) -> dict[str, float]:
    function = ACTIVATIONS[name]
    taken = [] if isinstance(function, np.ufunc) else list(inspect.signature(function).parameters)[1:]
    try:
        given = [float(each) for each in text.split(",")]
    except ValueError:
        given = []
    if not 0 < len(given) <= len(taken):
        wanted = f"{name}({', '.join(taken)}), numbers" if taken else f"{name!r}, without numbers"
        raise BadValue(f"activation {name}({text}): expected {wanted}")
    return dict(zip(taken, given, strict=False))


def _evaluated(function: Callable[[Any], Any], z: Numbers) -> Numbers:
    """Call a function of NumPy's arrays, or of PyTorch's tensors: which one it is shows when it is called."""
    made, failed = None, ""
    for kind in ("numpy", "float64", "float32"):
        try:
            made = np.asarray(function(z) if kind == "numpy" else _by_torch(function, z, kind), dtype=np.float64)
            break
        except Exception as error:  # a caller's function may do anything
            failed = first_line(error)
    if made is None:
        raise BadValue(f"activation {name_of(function)} takes neither an array nor a tensor: {failed}")
    if made.shape != z.shape:
        raise BadValue(
            f"activation {name_of(function)} returns shape {made.shape} for {z.shape}: "
            "expected a function element by element"
        )
    return made


def _by_torch(function: Callable[[Any], Any], z: Numbers, dtype: str) -> Any:
    import torch

    with torch.no_grad():
        return function(torch.from_numpy(z).to(getattr(torch, dtype))).double().numpy()
