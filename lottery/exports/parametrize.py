"""PyTorch's parametrizations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.nn.utils import parametrize as torch_parametrize

from lottery.exports import TicketNetwork, export_format, into_blank_model, owner_and_attribute, save_state
from lottery.exports.loaders import parametrize as loader
from lottery.exports.reaching import check_reached
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, first_line


@export_format(
    "parametrize", loader=loader, reload=into_blank_model(loader.load), source="torch.nn.utils.parametrize of PyTorch"
)
def parametrize(network: TicketNetwork, folder: Path) -> Sequence[str]:
    """A state dict with a mask as a parametrization: parametrizations.weight.original and .0.mask.

    Removed weights are 0 in `original` too. A mask takes one byte a weight.

    Raises:
        BadValue: a weight that its layer keeps for itself, where no parametrization reaches it, or a layer that is
            parametrized already.
    """
    network.state()  # which these files are: it can be had
    model = copy_module(network.model)
    masks: dict[str, Any] = {}
    layers = dict(model.named_modules())
    own = {name for name, layer in layers.items() if torch_parametrize.is_parametrized(layer)}
    for name, keep in network.masked().items():
        owner, attribute = owner_and_attribute(name)
        masks[name] = loader.Masked(keep)
        if owner in own:
            # A copy of such a layer shares its class with the original: another parametrization would break that one.
            raise BadValue(f"{name!r} belongs to a layer with a parametrization of its own; take another format")
        try:
            torch_parametrize.register_parametrization(layers[owner], attribute, masks[name])
        except Exception as error:  # a module of somebody else's may refuse to have its weight replaced
            raise BadValue(f"torch.nn.utils.parametrize cannot hold {name!r} ({first_line(error)})") from error
    check_reached(network, model, masks, "torch.nn.utils.parametrize")
    save_state(model.state_dict(), folder)
    return []
