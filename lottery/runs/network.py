"""The network of a stored ticket, and examples for it, found again by the names that the ticket was searched with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lottery.data.batches import sample
from lottery.data.datasets import load_data
from lottery.data.episodes import Episodes, load_episodes
from lottery.data.parts import Parts, prepare
from lottery.networks.sources.choosing import model_source
from lottery.networks.sources.source import require_torch
from lottery.runs.given import Given
from lottery.runs.records import split_seed
from lottery.runs.ticket import TWIN, Ticket
from lottery.state.tensors import float_type, load_state
from pruning.calls.calling import Forward
from pruning.calls.structures import tensors_in
from pruning.copies.copying import copy_module
from pruning.copies.modes import written_on_eval
from pruning.errors import BadValue, unknown
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.torch_modules import apply_mask

WEIGHTS = ("trained", "rewind")

_IN_JAX = f"take ticket.trained(model), whose removed weights are 0, or {TWIN}"


@dataclass(frozen=True)
class TicketNetwork:
    """The network of a ticket, with a batch of examples.

    Attributes:
        model: the masked dense network, on the CPU, in evaluation mode; never changed.
        mask: under the model's own names.
        inputs: a batch as the model takes it: a tensor, or a tuple or mapping of them; examples along the first axis.
        merged: a parameter into which `eval()` merged an adapter, or None.
    """

    model: nn.Module
    mask: Mask
    inputs: Any
    merged: str | None = None

    def state(self) -> dict[str, Any]:
        """Return the state dict of the model, for a loader that does not switch modes.

        Raises:
            BadValue: `eval()` merged adapters into weights, and would merge them again into what is loaded.
        """
        if self.merged is not None:
            raise BadValue(
                f"eval() of the model merges an adapter into {self.merged!r}, and would merge it again into weights "
                "that are loaded: merge the adapters for good before you search, or take csr or onnx"
            )
        return dict(self.model.state_dict())

    def masked(self) -> dict[str, torch.Tensor]:
        """Return the boolean mask of every masked entry of the state dict; a tied tensor has one for each name.

        >>> network = TicketNetwork(nn.Linear(2, 1), Mask({"weight": [[1, 0]]}), torch.ones(1, 2))
        >>> network.masked()
        {'weight': tensor([[ True, False]])}
        """
        masks = {id(self.model.get_parameter(name)): keep for name, keep in self.mask.items()}
        everywhere = self.model.named_parameters(remove_duplicate=False)
        return {name: torch.from_numpy(masks[id(p)].copy()) for name, p in everywhere if id(p) in masks}

    def blank(self) -> nn.Module:
        """Return a copy of the model that has lost its values: NaN in floats, 0 elsewhere.

        What a file does not bring back then shows in the outputs. Buffers that no state dict holds are kept. A model
        that merges adapters on `eval()` is in training mode, as one is that was just made.
        """
        empty = copy_module(self.model)
        if self.merged is not None:
            empty.train()
        with torch.no_grad():
            for tensor in tensors_in(dict(empty.state_dict())):  # a module's extra state may be anything
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        return empty


def ticket_network(
    ticket: Ticket,
    model: Any,
    data: Any,
    weights: str,
    examples: int,
    *,
    asked: str,
    trust: bool = False,
    forward: Forward | None = None,
) -> TicketNetwork:
    """Return the masked dense network of a ticket in evaluation mode, with some examples.

    Args:
        ticket: its record names the model and the data that it was found with.
        model: another one, as `find_ticket` takes it; None for the ticket's own.
        data: other data, as `find_ticket` takes them; None for the ticket's own.
        weights: `trained`, or `rewind` for the initialization that the ticket trains from.
        examples: how many: training examples, or first observations of an environment.
        asked: who wants it, with a verb, for the message: "lottery bench sparse times".
        trust: run a model that only the ticket's record names as `package.module:callable`.
        forward: how a batch is handed to the model, where that is the caller's own.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        UnknownName: weights, a model or a data set that does not exist.
        BadValue: a model or data that has no name and was not given, weights that were not stored, or a JAX model.
        MaskMismatch: a model that the ticket does not fit.
    """
    params = _params(ticket, weights)
    if model is None and ticket.info.get("framework") == "jax":
        raise BadValue(f"{asked} PyTorch modules, and this ticket's model is in JAX: {_IN_JAX}")
    where = ticket.path or "this ticket"
    given = Given(model, data, forward=forward).or_stored(ticket.info, where, trust, ticket.named)
    parts = _parts(ticket, given.data, forward)
    network = require_torch(model_source(given.model, parts, "model"), asked, _IN_JAX).build(ticket.info["seed"])
    load_state(network, params)
    mask = ticket.mask.fit({name: tuple(p.shape) for name, p in network.named_parameters()})
    merged = written_on_eval(network)
    apply_mask(network, mask).eval()
    # What a ticket delivers holds its mask, also over an adapter that eval() merges into a weight.
    return TicketNetwork(apply_mask(network, mask), mask, _examples(parts, float_type(network), examples), merged)


def _params(ticket: Ticket, weights: str) -> Params:
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    if weights == "rewind":
        return ticket.params
    if ticket.trained_params is None:
        raise BadValue("this ticket holds no trained weights; take those at its rewind point (--weights rewind)")
    return ticket.trained_params


def _parts(ticket: Ticket, data: Any, forward: Forward | None) -> Parts | Episodes:
    """Return the data of the search that found the ticket: what is needed for a model's sizes and examples."""
    if isinstance(data, str) and ":" in data:
        from es.tasks.environments import is_environment

        if is_environment(data):
            return load_episodes(data)
    config = ticket.info.get("config", {})
    return prepare(load_data(data), split_seed(config), config.get("validation_size"), forward)


def _examples(parts: Parts | Episodes, floats: torch.dtype, count: int) -> Any:
    if isinstance(parts, Parts):
        return sample(parts.with_floats(floats).train, count, seed=0)[0]
    import jax
    import numpy as np

    environment = parts.environment
    keys = jax.random.split(jax.random.key(0), count)
    observations = jax.vmap(lambda key: environment.reset(key)[0])(keys)
    return torch.from_numpy(np.array(observations)).to(floats)
