"""Exports: a ticket in the formats of other ecosystems, by name. One file each, found by itself.

A format writes its files into a folder. Beside them lies `load.py`, a copy of one of `lottery.exports.loaders`, which
reads them again and needs nothing of ours.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lottery.runs.network import TicketNetwork
from pruning.calls.structures import tensors_in
from pruning.errors import BadValue
from pruning.registry import Registry, summary_of

Forward = Callable[[Any], Any]


# How a note begins that says which batch size alone a file takes.
FIXED = "for batches of exactly"

Write = Callable[[TicketNetwork, Path], Sequence[str]]
Reload = Callable[[Path, TicketNetwork], Forward]


@dataclass(frozen=True)
class Export:
    """One format.

    Attributes:
        write: `write(network, folder)` writes the files and returns what a person should know of them, a line each.
        loader: the module that becomes `load.py`.
        reload: `reload(folder, network)` reads the files again with that module and returns a function of a batch.
        tensors: of the network's outputs, those that the format keeps.
    """

    write: Write
    loader: ModuleType
    reload: Reload
    tensors: Callable[[Any], list[torch.Tensor]] = tensors_in


EXPORTS: Registry[Export] = Registry("export format", "lottery.exports", listed="exports")


def export_format(
    name: str,
    *,
    loader: ModuleType,
    reload: Reload,
    source: str,
    tensors: Callable[[Any], list[torch.Tensor]] = tensors_in,
) -> Callable[[Write], Write]:
    """Register a format by the function that writes it; its docstring's first line is its summary."""

    def register(write: Write) -> Write:
        EXPORTS.add(name, Export(write, loader, reload, tensors), summary_of(write), source)
        return write

    return register


def into_blank_model(load: Callable[[nn.Module, Path], nn.Module]) -> Reload:
    """Return a `reload` for files that go into a model: it has lost its values before."""
    return lambda folder, network: _as_function(load(network.blank(), folder).eval())


def whole_program(load: Callable[[Path], nn.Module]) -> Reload:
    """Return a `reload` for files that need no model."""
    return lambda folder, network: _as_function(load(folder))


def save_state(state: Mapping[str, Any], folder: Path) -> None:
    """Write a state dict where the loaders look for it.

    Raises:
        BadValue: the extra state of a module that `torch.load` would not read without running code of the file's.

    >>> save_state({"fc.weight": torch.ones(2)}, tmp)
    >>> torch.load(tmp / "state_dict.pt")
    {'fc.weight': tensor([1., 1.])}
    """
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            continue
        try:
            memory = io.BytesIO()
            torch.save(value, memory)
            memory.seek(0)
            torch.load(memory, weights_only=True)
        except Exception as error:  # pickling runs the value's own code, which may raise anything
            raise BadValue(
                f"{name!r} is a module's extra state of type {type(value).__name__}, which torch.load does not read "
                "with weights_only: let get_extra_state return tensors, numbers, text and containers of them"
            ) from error
    torch.save(dict(state), folder / "state_dict.pt")


def owner_and_attribute(name: str) -> tuple[str, str]:
    """Split a tensor's name into the module that owns it and its name there.

    >>> owner_and_attribute("block.fc.weight"), owner_and_attribute("weight")
    (('block.fc', 'weight'), ('', 'weight'))
    """
    owner, _, attribute = name.rpartition(".")
    return owner, attribute


def _as_function(model: nn.Module) -> Forward:
    from lottery.networks.objectives.objective import call

    return lambda inputs: call(model, inputs)
