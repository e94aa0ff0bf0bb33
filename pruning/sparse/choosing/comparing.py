"""Whether a candidate is the masked dense network: the same outputs, held alike, for any number of examples."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import flattened, same_structure, tensors_in
from pruning.calls.users_code import one_line
from pruning.errors import BadValue
from pruning.sparse.choosing.closeness import relative_error, tolerance


@dataclass(frozen=True)
class Wanted:
    """What the masked dense network gives.

    Attributes:
        cases: calls and their outputs: the example, and another number of examples where the network takes it.
    """

    cases: tuple[tuple[Call, Any], ...]

    @classmethod
    def of(cls, dense: nn.Module, call: Call) -> Wanted:
        """Run the dense network on an example and on another number of examples.

        Raises:
            BadValue: outputs without a tensor, with which nothing can be compared.
        """
        outputs = call.run(dense)
        if reason := _incomparable(outputs):
            raise BadValue(f"{type(dense).__name__} {reason} for the example: no sparse form can be compared with it")
        cases = [(call, outputs)]
        other = call.resized()
        if other is not None:
            with contextlib.suppress(Exception):  # a network may take one batch size only; that one is compared then
                cases.append((other, other.run(dense)))
        return cls(tuple(cases))

    def difference(self, network: nn.Module) -> str:
        """Return in what a candidate differs, whatever it does; empty where it does not."""
        for call, wanted in self.cases:
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # torch.fx prints where a traced network fails
                    found = call.run(network)
            except Exception as error:  # a candidate may fail in any way
                return f"it raises {one_line(error)}{self._where(call)}"
            if said := _difference(found, wanted):
                return f"{said}{self._where(call)}"
        return ""

    def _where(self, call: Call) -> str:
        return "" if call is self.cases[0][0] else f" on another number of examples ({call.described()})"


def _incomparable(outputs: Any) -> str:
    tensors = [t for t in tensors_in(outputs) if t.numel()]
    if not tensors:
        return f"returns no tensor with numbers (but {type(outputs).__name__})"
    return "" if any(bool(t.isfinite().any()) for t in tensors) else "returns no finite number"


def _difference(found: Any, wanted: Any) -> str:
    if not same_structure(found, wanted):
        return f"it returns another structure{_place(found, wanted)}"
    for get, want in zip(tensors_in(found), tensors_in(wanted), strict=True):
        if (get.shape, get.dtype) != (want.shape, want.dtype):
            return f"it returns {list(get.shape)} {get.dtype} instead of {list(want.shape)} {want.dtype}"
        if not (want.is_floating_point() or want.is_complex()):
            if not torch.equal(get, want):
                return "it returns other whole numbers"
            continue
        # rounding adds up over the layers
        if not (gap := relative_error(get, want)) <= 10 * tolerance(want):
            return f"it differs from the dense network by {gap:.1e} of its largest output"
    return ""


def _place(found: Any, wanted: Any) -> str:
    """Return the first place at which two structures differ, in words."""
    mine, theirs = flattened(found), flattened(wanted)
    for path in theirs:
        if path not in mine:
            return f": nothing at {path or 'its top'}"
        if not same_structure(mine[path], theirs[path]):
            return f": {type(mine[path]).__name__} at {path or 'its top'}"
    return f": {next(path for path in mine if path not in theirs)} is too much"
