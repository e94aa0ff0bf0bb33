"""Compressed sparse rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from lottery.exports import TicketNetwork, export_format, into_blank_model, save_state
from lottery.exports.loaders import csr as loader
from pruning.errors import BadValue
from pruning.sparse.plans.plan import Plan


@export_format("csr", loader=loader, reload=into_blank_model(loader.load), source="torch.sparse_csr_tensor of PyTorch")
def csr(network: TicketNetwork, folder: Path) -> Sequence[str]:
    """A state dict whose masked weights are sparse CSR matrices with int32 indices.

    The pattern is the mask's: a surviving weight of 0 is stored. A weight of more than two axes is a matrix of its
    first axis by all others, with its shape beside it under `NAME.shape` (int64).

    Raises:
        BadValue: a masked tensor with fewer than two axes.
    """
    state = dict(network.model.state_dict())
    for name, keep in network.masked().items():
        if keep.dim() < 2:
            raise BadValue(f"{name!r} has the shape {list(keep.shape)}, and compressed rows need a matrix")
        state[name] = _compressed(state[name], keep)
        if keep.dim() > 2:
            state[f"{name}.shape"] = torch.tensor(keep.shape)
    save_state(state, folder)
    return []


def _compressed(weight: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    matrix, kept = weight.detach().flatten(1), keep.flatten(1)
    rows = Plan.of(kept.numpy()).rows
    starts, columns = torch.from_numpy(rows.starts), torch.from_numpy(rows.columns)
    with warnings.catch_warnings():
        # PyTorch says once a process that this layout is in beta, and 2.11 that its invariants go unchecked, which they
        # do not here; a user cannot act on either.
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        return torch.sparse_csr_tensor(starts, columns, matrix[kept], matrix.shape, check_invariants=True)
