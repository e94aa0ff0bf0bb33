"""What the sparse forward pass of a stored ticket runs on this machine, for several batch sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from lottery.data.batch import is_divisible
from lottery.runs.network import ticket_network
from lottery.runs.ticket import Ticket
from lottery.state.machine.bars import with_bar
from lottery.state.machine.callers_settings import own_settings
from lottery.state.machine.device import choose_device
from pruning.calls.calling import Whole, spread
from pruning.errors import BadValue
from pruning.sparse.choices import Choosing
from pruning.sparse.module import sparse_module
from pruning.sparse.network.report import SparseReport


@own_settings()
def sparse_reports(
    ticket: Ticket,
    model: Any = None,
    data: Any = None,
    batches: Sequence[int] = (128,),
    device: str = "auto",
    choosing: Choosing | None = None,
    *,
    trust: bool = False,
) -> Iterator[SparseReport]:
    """Yield the report of a ticket's sparse forward pass for each batch size, on its own training examples.

    Args:
        ticket: with trained weights, or at its rewind point where it holds none.
        model: the architecture; by default the ticket's own, by name.
        data: the data; by default the ticket's own, by name.
        batches: sizes; where the data are fewer, examples come again.
        device: as for `lottery prune`.
        choosing: how backends are chosen; by default they are measured afresh and not remembered.
        trust: run a model that only the ticket's record names as `package.module:callable`.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        BadValue: a model or data without a name, or a JAX model.
        MaskMismatch: a model that the ticket does not fit.
    """
    if not batches or not all(
        isinstance(batch, int) and not isinstance(batch, bool) and batch > 0 for batch in batches
    ):
        raise BadValue(f"batch sizes are whole numbers from 1, not {list(batches)}")
    place = choose_device(device)
    weights = "rewind" if ticket.trained_params is None else "trained"
    network = ticket_network(
        ticket, model, data, weights, max(batches), asked="lottery bench sparse times", trust=trust
    )
    if not is_divisible(network.inputs) or isinstance(network.inputs, Whole):
        raise BadValue(
            "batches of these inputs cannot be made in another size (a packed sequence, a graph, or a batch that "
            "`forward` takes whole): use ticket.sparse(model, …) with an example"
        )
    choosing = choosing or Choosing(cache=None)
    for batch in with_bar(batches, "batch sizes"):
        inputs = tree_map_only(torch.Tensor, lambda t, batch=batch: _sized(t, batch).to(place), network.inputs)
        args, kwargs = spread(network.model, inputs)
        yield sparse_module(network.model.to(place), network.mask, *args, choosing=choosing, **kwargs).report


def _sized(examples: torch.Tensor, batch: int) -> torch.Tensor:
    return examples[torch.arange(batch, device=examples.device) % len(examples)]
