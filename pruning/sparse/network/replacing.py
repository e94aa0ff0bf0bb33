"""Sparse layers in the place of dense ones: every masked layer of a network is decided in one run of an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import map_tensors
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.choosing import Choice, Undecided, sparse_parts
from pruning.sparse.layers.attention import avoid_fused_encoder_kernels
from pruning.sparse.network.owners import Owned, owners


@dataclass(frozen=True)
class ChosenLayer:
    """A masked tensor after the choice.

    Attributes:
        name: the name of the tensor in the network.
        kind: the kind of the layer that owns it.
        shape: the shape of the tensor.
        kept: how many weights stay.
        backend: the backend of the product; `dense` where the layer stayed as it was.
        choice: the choice of its layer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    kept: int
    backend: str
    choice: Choice

    @property
    def density(self) -> float:
        """Fraction of the tensor's weights that stay."""
        return self.kept / prod(self.shape) if prod(self.shape) else 1.0


@dataclass(frozen=True)
class Replaced:
    """A network with sparse layers.

    Attributes:
        network: the network itself.
        layers: what was chosen for each masked tensor.
        contiguous: whether sparse layers hand over contiguous outputs, because the network uses `view` on them.
    """

    network: nn.Module
    layers: list[ChosenLayer]
    contiguous: bool


def replace_layers(network: nn.Module, mask: Mask, call: Call, choosing: Choosing, training: bool) -> Replaced:
    """Put sparse layers into a network, in place, wherever one wins.

    Layers are decided in the order in which the example runs through them, each on what it really gets there: the
    choice of one layer decides how the next one's inputs lie in memory.

    Args:
        network: masked, in evaluation mode.
        mask: fits the network.
        call: an example.
        choosing: how to choose.
        training: whether layers are timed with their backward pass.

    Raises:
        BadValue: an example that the network does not take.

    >>> mask = Mask({"weight": [[1, 0]]})
    >>> call, choosing = Call((torch.ones(1, 2),)), Choosing(backend="csr", cache=None)
    >>> replace_layers(mask.apply(nn.Linear(2, 1)), mask, call, choosing, training=False).network.kept_weight.backend
    'csr'
    """
    found = owners(network, mask)
    undecided: dict[str, Undecided] = {}
    for owned in found:
        if owned.form is not None:
            undecided[owned.path] = Undecided(owned.path, owned.layer, owned.form, choosing, training)
            network = put(network, owned.path, undecided[owned.path])
    before = _encoder_settings(network)
    avoid_fused_encoder_kernels(network)
    contiguous = False
    with torch.set_grad_enabled(training):
        try:
            _once(network, call)
        except RuntimeError as error:
            # Activations lie feature by feature after a sparse layer, and `view` cannot join what is not adjacent.
            if "view" not in str(error):
                raise
            contiguous = True
            for case in undecided.values():
                hand_over_contiguous(case.form)
            _once(network, call)
    for path, case in undecided.items():
        network = put(network, path, case.winner)
    for encoder, name, value in before:
        setattr(encoder, name, value)
    avoid_fused_encoder_kernels(network)
    return Replaced(network, [row for owned in found for row in _rows(owned, undecided.get(owned.path))], contiguous)


def _once(network: nn.Module, call: Call) -> None:
    copies = call.cloned()
    network(*copies.args, **copies.kwargs)


def left_dense(mask: Mask, reason: str) -> list[ChosenLayer]:
    """Return a line for every masked tensor of a network in which all layers stay as they are, for one reason."""
    choice = Choice({}, None, None, reason)
    return [ChosenLayer(row.name, "", row.shape, row.kept, "dense", choice) for row in mask.layers()]


def put_layers(network: nn.Module, mask: Mask, backends: Mapping[str, str], contiguous: bool) -> nn.Module:
    """Put sparse layers with these backends into a network, in place, and return it.

    Args:
        network: masked.
        mask: fits the network.
        backends: the backends of each sparse tensor, by its name in the network; a layer without any stays dense.
        contiguous: whether they hand over contiguous outputs.

    >>> network = put_layers(nn.Linear(2, 1), Mask({"weight": [[1, 0]]}), {"weight": "csr"}, contiguous=False)
    >>> network.kept_weight.backend
    'csr'
    """
    for owned in owners(network, mask):
        if owned.form is None:
            continue
        chosen = {name: backends.get(owned.full_name(name)) for name in sparse_parts(owned.form)}
        if all(backend is None for backend in chosen.values()):
            continue
        for name, part in sparse_parts(owned.form).items():
            part.backend = chosen[name] or "dense"
        if contiguous:
            hand_over_contiguous(owned.form)
        network = put(network, owned.path, owned.form)
    avoid_fused_encoder_kernels(network)
    return network


def put(network: nn.Module, path: str, layer: nn.Module) -> nn.Module:
    """Put a layer into a network, in place; the network itself is replaced where the path is empty."""
    if not path:
        return layer
    network.set_submodule(path, layer)
    return network


def hand_over_contiguous(form: nn.Module) -> None:
    """Let a sparse layer hand over outputs that are contiguous in memory.

    >>> layer = nn.Identity()
    >>> hand_over_contiguous(layer)
    >>> layer(torch.zeros(2, 3).t()).is_contiguous()
    True
    """
    form.register_forward_hook(_contiguous)


def contiguous_tensors(outputs: Any) -> Any:
    """Return outputs of any structure with their tensors contiguous in memory.

    >>> turned = torch.zeros(2, 3).t()
    >>> [tensor.is_contiguous() for tensor in contiguous_tensors([turned, (turned,)])[:1]], turned.is_contiguous()
    ([True], False)
    """
    if isinstance(outputs, torch.Tensor):
        return outputs.contiguous()
    return map_tensors(torch.Tensor.contiguous, outputs)


def _encoder_settings(network: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Return the attributes by which transformer encoders decide whether to use their fused kernels."""
    names = ("use_nested_tensor", "activation_relu_or_gelu")
    encoders = [m for m in network.modules() if isinstance(m, nn.TransformerEncoder | nn.TransformerEncoderLayer)]
    return [(encoder, name, getattr(encoder, name)) for encoder in encoders for name in names if hasattr(encoder, name)]


def _contiguous(form: nn.Module, args: Any, outputs: Any) -> Any:
    return contiguous_tensors(outputs)


def _rows(owned: Owned, case: Undecided | None) -> list[ChosenLayer]:
    choice = case.choice if case is not None else Choice({}, None, None, owned.reason)
    choice = choice or Choice({}, None, None, "took no part in the example")
    return [
        ChosenLayer(
            owned.full_name(name),
            type(owned.layer).__name__,
            keep.shape,
            int(keep.sum()),
            choice.backends.get(name, "dense"),
            choice,
        )
        for name, keep in owned.masks.items()
    ]
