"""The compacted network as a program that any batch size runs through: what `compacted` and `onnx` write."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import (
    keystr,
    tree_flatten,
    tree_flatten_with_path,
    tree_leaves,
    tree_map_only,
    tree_unflatten,
)

from lottery.exports import FIXED, TicketNetwork
from pruning.calls.call import Call
from pruning.calls.calling import Whole, spread
from pruning.calls.structures import flattened, tensors_in
from pruning.calls.users_code import one_line
from pruning.compaction import compact
from pruning.errors import BadValue

_LONGEST = 600
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What torch.export says to people who call it themselves.
_ADVICE = re.compile(
    r"The error above occurred when calling torch\.export\.export\..*$"
    r"|consider using data-dependent friendly APIs[^.]*\."
    r"|\(Size-like symbols: none\)|Please file an issue on github\."
)


@dataclass(frozen=True)
class Program:
    """A traced network.

    Attributes:
        exported: PyTorch's own form of it.
        arguments: the batch that it was traced with, by position; without what it takes by name.
        batch: PyTorch's description of which axes are free: the first of every tensor, or none.
        notes: remarks for the user, one line each.
    """

    exported: torch.export.ExportedProgram
    arguments: tuple[Any, ...]
    batch: Any
    notes: tuple[str, ...]


def compacted_program(network: TicketNetwork) -> Program:
    """Trace the network with a free batch size, without the parts that no weight reaches.

    Raises:
        BadValue: packed inputs, a batch that a function of the caller's hands over, or a network that torch.export
            cannot trace.
    """
    call = _call(network)
    smaller = compact(network.model, network.mask, *call.args, **call.kwargs)
    with tracing("torch.export"):
        return _traced(smaller.module, call, True, _left(smaller.opaque))


def flat_program(network: TicketNetwork) -> Program:
    """Return the network as a program whose outputs are its tensors, one after the other.

    Compacted with a free batch size where that can be traced; else the masked network as it is; else for batches of
    exactly as many examples as it was traced with.

    Raises:
        BadValue: packed inputs, a batch that a function of the caller's hands over, or a network that torch.export
            cannot trace at all.
    """
    call = _call(network)
    masked = Flat(network.model, call)
    try:
        smaller = compact(network.model, network.mask, *call.args, **call.kwargs)
        found, notes = Flat(smaller.module.eval(), call), _left(smaller.opaque)
    except Exception as error:  # it runs the network's own code in ways that nobody thought of
        found, notes = masked, (f"not compacted: {one_line(error)}",)
    size = len(next((t for t in call.tensors if t.dim()), torch.zeros(1)))
    fixed = f"{FIXED} {size} examples: torch.export cannot leave the batch size of this network free"
    tries = [(found, True, notes), (masked, True, ("not compacted: torch.export cannot take the compacted network",))]
    tries += [(masked, False, (fixed,))]
    failed: list[Exception] = []
    for module, free, said in tries:
        try:
            with _quiet():
                return _traced(module, call, free, said if free else (f"{fixed} ({whole_reason(failed[-1])})",))
        except Exception as error:  # tracing runs the caller's model, and anything may come of that
            failed.append(error)
    free, one = whole_reason(failed[1]), whole_reason(failed[2])
    why = f"({free}) nor for {size} examples ({one})" if free != one else f"nor for {size} examples ({one})"
    raise BadValue(
        f"torch.export cannot take this network, neither with a free batch size {why}; take the format csr, which "
        "needs no tracing"
    ) from failed[0]


class Flat(torch.nn.Module):
    """A network from tensors to tensors: those of a call, in their order, and those that it returns, in theirs.

    What else the call holds is always as it was; what else the network returns is left out.
    """

    def __init__(self, network: torch.nn.Module, call: Call) -> None:
        super().__init__()
        self.network = network
        leaves, self.form = tree_flatten((call.args, dict(call.kwargs)))
        self.leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors that the network returns."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self.form)
        outputs = self.network(*args, **kwargs)
        found = tuple(flat_tensors(outputs))
        if not found:
            raise BadValue(f"outputs of type {type(outputs).__name__} hold no tensor in a container of a known type")
        return found


def input_names(model: torch.nn.Module, call: Call) -> list[str]:
    """Return a name for each tensor of a call: that of the argument, and where it lies in it.

    >>> input_names(torch.nn.Linear(1, 1), Call((torch.ones(1),), {"more": [torch.ones(1), None]}))
    ['input', 'more_0']
    """
    positional = [name for name, _ in zip(inspect.signature(model.forward).parameters, call.args, strict=False)]
    positional += [f"input_{place}" for place in range(len(positional), len(call.args))]
    given = {**dict(zip(positional, call.args, strict=True)), **call.kwargs}
    names: list[str] = []
    for name, value in given.items():
        inside, _ = tree_flatten_with_path(value)
        tensors = [
            "_".join(re.findall(r"\w+", keystr(path))) for path, leaf in inside if isinstance(leaf, torch.Tensor)
        ]
        names += [f"{name}_{path}".removesuffix("_") for path in tensors]
    return names


def flat_tensors(outputs: Any) -> list[torch.Tensor]:
    """Return the tensors in outputs, as PyTorch's pytrees find them: not those in caches and other objects.

    >>> flat_tensors((torch.ones(1), {"cache": "no tensor", "out": [torch.zeros(1)]}))
    [tensor([1.]), tensor([0.])]
    """
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _call(network: TicketNetwork) -> Call:
    inputs = network.inputs
    if isinstance(inputs, Whole):
        raise BadValue("the model is called by a function (forward=…), which no traced network takes; take csr")
    if any("PackedSequence" in path for path in flattened(inputs)):
        raise BadValue("the model takes a PackedSequence, which no traced network takes; take another format")
    call = Call(*spread(network.model, inputs))
    holders = {type(leaf).__name__ for leaf in tree_leaves((call.args, dict(call.kwargs))) if _hides_tensors(leaf)}
    if holders:
        # A tracer would take these tensors for constants: the file would answer for this batch, whatever it is asked.
        raise BadValue(
            f"the model takes tensors inside of {', '.join(sorted(holders))}, which no traced network takes; take csr"
        )
    return call


def _hides_tensors(leaf: Any) -> bool:
    return not isinstance(leaf, torch.Tensor) and bool(tensors_in(leaf))


def _traced(module: torch.nn.Module, call: Call, free: bool, notes: tuple[str, ...]) -> Program:
    args, kwargs, batch = call.args, dict(call.kwargs), None
    if isinstance(module, Flat):
        args, kwargs = tuple(flat_tensors((args, kwargs))), {}
    if free:
        named = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        batch = tree_map_only(torch.Tensor, lambda t: {0: torch.export.Dim.DYNAMIC} if t.dim() else {}, dict(named))
    copies = Call(args, kwargs).cloned()
    exported = torch.export.export(module, copies.args, dict(copies.kwargs), dynamic_shapes=batch)
    _forget_its_making(exported)
    return Program(exported, args, batch, notes)


def _left(opaque: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"left as it was: {name or 'the model'} ({why})" for name, why in opaque.items())


@contextlib.contextmanager
def tracing(what: str) -> Iterator[None]:
    """Turn whatever a tracer raises into a line that says what it was about; PyTorch's own warnings are not shown.

    >>> with tracing("torch.export"):
    ...     raise ValueError("a loop")
    Traceback (most recent call last):
    pruning.errors.BadValue: torch.export cannot take this network with a free batch size (ValueError: a loop)
    """
    try:
        with _quiet():
            yield
    except Exception as error:  # tracing runs the caller's model, and anything may come of that
        raise BadValue(f"{what} cannot take this network with a free batch size ({whole_reason(error)})") from error


def whole_reason(error: BaseException) -> str:
    """Return the class of an error and its whole message in one line; a long message loses its middle.

    >>> whole_reason(ValueError("too \\x1b[1msmall\\x1b[0m\\n  at least 3"))
    'ValueError: too small at least 3'
    """
    said = _ADVICE.sub("", " ".join(_COLOURS.sub("", str(error)).split())).strip()
    said = said if len(said) <= _LONGEST else f"{said[: _LONGEST // 2]} … {said[-_LONGEST // 2 :]}"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Show nothing of PyTorch's own warnings and reports while it traces."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # A recurrent layer lists its weights anew; the outputs are compared in the end.
        warnings.filterwarnings("ignore", message="The tensor attributes")
        # Several inputs share one batch size, as they should.
        warnings.filterwarnings("ignore", message="# The axis name")
        yield


def _forget_its_making(exported: torch.export.ExportedProgram) -> None:
    """Drop the training examples and the paths of source files, which would go into the file."""
    exported.example_inputs = None
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
