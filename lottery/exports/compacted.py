"""The compacted network in PyTorch's own exchange format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lottery.exports import TicketNetwork, export_format, whole_program
from lottery.exports.loaders import compacted as loader
from lottery.exports.programs import compacted_program, tracing


@export_format("compacted", loader=loader, reload=whole_program(loader.load), source="torch.export of PyTorch")
def compacted(network: TicketNetwork, folder: Path) -> Sequence[str]:
    """The compacted network as a torch.export program, which needs no model code.

    For evaluation: dropout is gone and batch norm uses its running statistics. Any batch size runs.

    Raises:
        BadValue: packed inputs, or a network that torch.export cannot trace.
    """
    program = compacted_program(network)
    with tracing("torch.export"):
        torch.export.save(program.exported, folder / "model.pt2")
    return program.notes
