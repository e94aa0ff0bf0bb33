"""What torch code does that has no JAX form, and the one line that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from torch import nn

from pruning.errors import BadValue, first_line


class NoForm(Exception):
    """An operation that has no form in JAX."""


class ReadsValues(Exception):
    """Code that asks for the numbers of a tensor that changes between calls."""


class DrawsNumbers(Exception):
    """Code that asks for random numbers."""


class DependsOnValues(Exception):
    """An operation whose result is as large as the numbers of a tensor say."""


class OperationFailed(Exception):
    """An operation whose form in JAX failed, or gives another shape."""


@contextmanager
def explained(called: Any, label: str) -> Iterator[None]:
    """Turn what goes wrong in the block into one line that names the submodule and the operation.

    >>> with explained(None, "the model"):
    ...     raise NoForm("aten::sort")
    Traceback (most recent call last):
    pruning.errors.BadValue: the model uses aten::sort, which has no JAX form here (in the model)
    """
    try:
        yield
    except BadValue as error:
        if getattr(error, "explained", False):
            raise
        raise _refused(f"{_innermost(error, called, label)} cannot be translated to JAX: {error}") from error
    except Exception as error:  # a caller's code runs here, on arrays that it was not written for
        raise _refused(_reason(error, _innermost(error, called, label))) from error


def draws_numbers(where: str) -> BadValue:
    """Return the refusal of code that asks for random numbers.

    >>> draws_numbers("layers.3 (Noise)")
    BadValue('layers.3 (Noise) draws random numbers even in evaluation mode, and evolution needs a pure function')
    """
    return BadValue(_draws(where))


def _draws(where: str) -> str:
    return f"{where} draws random numbers even in evaluation mode, and evolution needs a pure function"


def _refused(text: str) -> BadValue:
    error = BadValue(text)
    error.explained = True  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _reason(error: Exception, where: str) -> str:
    if isinstance(error, NoForm):
        return f"the model uses {error}, which has no JAX form here (in {where})"
    if isinstance(error, DependsOnValues):
        return (
            f"{where} uses {error}, whose result is as large as the values of a tensor say, and a compiled function "
            "has fixed shapes: keep all elements and mask them, for instance with torch.where"
        )
    if isinstance(error, ReadsValues | jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError):
        return (
            f"{where} reads the values of a tensor (in `if`, `.item()`, `float()` or a size), which a compiled "
            "function cannot do: compute with tensors throughout, for instance with torch.where"
        )
    if isinstance(error, DrawsNumbers):
        return _draws(where)
    reason = str(error) if isinstance(error, OperationFailed) else first_line(error)
    return f"{where} cannot be translated to JAX: {reason}"


def _innermost(error: Exception, called: Any, label: str) -> str:
    names = {id(m): n for n, m in called.named_modules()} if isinstance(called, nn.Module) else {}
    where, frames = label, error.__traceback__
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if id(owner) in names:
            where = called_in(names[id(owner)], owner)
        frames = frames.tb_next
    return where


def called_in(name: str, layer: Any) -> str:
    """Return the name of a submodule in messages.

    >>> called_in("layers.3", nn.ReLU()), called_in("", nn.ReLU())
    ('layers.3 (ReLU)', 'ReLU')
    """
    return f"{name} ({type(layer).__name__})" if name else type(layer).__name__
