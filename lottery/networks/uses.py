"""How a PyTorch network uses its tensors: one batch goes through it, and every operation is listened to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lottery.data.batch import copied
from lottery.state.randomness import seeded_everywhere
from pruning.calls.calling import call_once
from pruning.calls.structures import tensors_in
from pruning.copies.copying import copy_module
from pruning.errors import first_line
from pruning.uses.flows.destinations import with_destinations
from pruning.uses.flows.listening import Listening
from pruning.uses.following import Following
from pruning.uses.torch_axes import torch_axes
from pruning.uses.uses import Trace, Uses


def torch_uses(
    model: nn.Module,
    names: Iterable[str],
    inputs: Any,
    loss: Callable[[Any, Any], Any] | None = None,
    targets: Any = None,
) -> Uses:
    """Follow a forward pass from its inputs to the outputs that the loss looks at.

    The pass is one in training mode; where the network cannot do that on this batch, one in evaluation mode.

    Args:
        model: the network; it is not changed.
        names: the names of its tensors.
        inputs: a small batch, as the model is called with it.
        loss: `loss(outputs, targets)`: outputs that it does not look at (hidden states) do not count.
        targets: what it is given.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> uses = torch_uses(network, ["2.weight", "0.weight"], torch.ones(1, 3))
    >>> uses.order, uses.outputs
    (('0.weight', '2.weight'), frozenset({'2.weight'}))
    """
    names, failed = list(names), ""
    by_kind = torch_axes(model)
    for training in (True, False):
        network = copy_module(model).train(training)
        parameters = dict(network.named_parameters())
        batch = copied(inputs)  # before anything is listened to: how a batch copies itself is its own affair
        following = Following({name: parameters[name] for name in names}, tensors_in(batch))
        listening = Listening(following, tensors_in(batch))
        try:
            with seeded_everywhere(0), torch.enable_grad(), listening, following:
                outputs = call_once(network, batch)
        except Exception as error:  # a caller's model may do anything
            failed = failed or first_line(error)
            continue
        made_by = _made_by(following, outputs, loss, targets)
        reason = "" if made_by else "its outputs do not depend on them by any operation that could be followed"
        return with_destinations(following.uses(by_kind, made_by, reason), listening.flow_to(outputs))
    return Uses(by_kind, reason=failed)


def _made_by(
    following: Following, outputs: Any, loss: Callable[[Any, Any], Any] | None, targets: Any
) -> frozenset[str]:
    """Return the tensors whose layers make the outputs that count."""
    made = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    found = [following.trace(leaf).names for leaf in made]
    if loss is not None and len(made) != 1:
        found = _looked_at(following, made, found, lambda: loss(outputs, targets))
    return frozenset[str]().union(*found)


def _looked_at(
    following: Following, made: list[torch.Tensor], found: list[frozenset[str]], loss: Callable[[], Any]
) -> list[frozenset[str]]:
    """Return the names of those outputs that the loss depends on; of all where that does not show."""
    marks: dict[str, frozenset[str]] = {}
    for index, (leaf, names) in enumerate(zip(made, found, strict=True)):
        key = next((mark for mark in following.trace(leaf).names if mark in marks), f"output {index}")
        marks[key] = marks.get(key, frozenset()) | names  # two outputs in one memory share a mark
        following.set(leaf, Trace(True, frozenset({key})))
    try:
        with seeded_everywhere(0), torch.enable_grad(), following.only_traces():
            value = loss()
    except Exception:  # a caller's loss may need what it finds in training only; then every output counts
        return found
    seen = following.trace(value).names if isinstance(value, torch.Tensor) else frozenset()
    if not made:  # outputs of a kind of their own: the loss knows what is in them
        return [seen]
    return [marks[mark] for mark in seen if mark in marks] or found
