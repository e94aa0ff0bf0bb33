"""What trains: the caller's architecture, with sparse layers wherever a step with them is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.users_code import one_line
from pruning.copies.copying import copy_module
from pruning.errors import DeviceError, UnknownName
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.choosing import step
from pruning.sparse.choosing.comparing import Wanted
from pruning.sparse.choosing.timing import fastest
from pruning.sparse.network.replacing import Replaced, replace_layers


@dataclass(frozen=True)
class Trainable:
    """A network that trains.

    Attributes:
        network: in evaluation mode; its masks are still to be held where layers stayed dense.
        dense_seconds: of a forward and backward pass of the masked dense network; None where nothing was measured.
        sparse_seconds: the time of a forward and backward pass of `network`; None where nothing was measured.
        reason: why it has no sparse layers although some are faster; empty where nothing speaks against them.
    """

    network: nn.Module
    dense_seconds: float | None
    sparse_seconds: float | None
    reason: str = ""


def choose_trainable(dense: nn.Module, mask: Mask, call: Call, choosing: Choosing) -> Trainable:
    """Return the faster of a masked network and the same with sparse layers; its parameters are new.

    Args:
        dense: masked, in evaluation mode; not changed.
        mask: fits it.
        call: an example.
        choosing: how to choose.

    Raises:
        BadValue: outputs that nothing can be compared with.
        UnknownName: a backend asked for that no product here knows.
        DeviceError: a backend asked for that does not run on this device with this type of numbers.

    >>> mask, choosing = Mask({"weight": [[1, 0]]}), Choosing(backend="csr", cache=None)
    >>> found = choose_trainable(mask.apply(nn.Linear(2, 1)).eval(), mask, Call((torch.ones(1, 2),)), choosing)
    >>> found.network.kept_weight.backend
    'csr'
    """
    replaced = _replaced(dense, mask, call, choosing)
    if isinstance(replaced, str):
        return Trainable(copy_module(dense), None, None, replaced)
    nothing = not any(layer.choice.backends for layer in replaced.layers)
    if nothing or choosing.backend is not None or choosing.by == "model":
        return Trainable(replaced.network, None, None)
    runs = {"dense": _step(dense, call), "sparse": _step(replaced.network, call)}
    with torch.enable_grad():
        winner, times = fastest(runs, "dense", call.device, 2 * choosing.seconds)
    if winner == "sparse":
        return Trainable(replaced.network, times["dense"], times["sparse"])
    return Trainable(copy_module(dense), times["dense"], times["dense"])


def _replaced(dense: nn.Module, mask: Mask, call: Call, choosing: Choosing) -> Replaced | str:
    """Return the network with sparse layers, or why it is not used."""
    wanted = Wanted.of(dense, call)
    try:
        replaced = replace_layers(copy_module(dense), mask, call, choosing, training=True)
    except (UnknownName, DeviceError):  # of the backend that was asked for
        raise
    except Exception as error:  # code around a sparse layer may want something else of it
        return f"it does not run with sparse layers: {one_line(error)}"
    if not any(layer.choice.backends for layer in replaced.layers):
        return replaced
    if reason := wanted.difference(replaced.network):
        return reason
    with torch.enable_grad():
        try:
            _step(replaced.network, call)()
        except Exception as error:  # the same in a backward pass
            return f"it does not run backward with sparse layers: {one_line(error)}"
    return replaced


def _step(network: nn.Module, call: Call) -> Callable[[], object]:
    return lambda: step(network, network.parameters(), call.args, dict(call.kwargs), gradients=True)
