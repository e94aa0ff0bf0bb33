"""PyTorch's own pruning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.nn.utils import prune

from lottery.exports import TicketNetwork, export_format, into_blank_model, owner_and_attribute, save_state
from lottery.exports.loaders import torch_prune as loader
from lottery.exports.reaching import check_reached
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, first_line


@export_format(
    "torch-prune", loader=loader, reload=into_blank_model(loader.load), source="torch.nn.utils.prune of PyTorch"
)
def torch_prune(network: TicketNetwork, folder: Path) -> Sequence[str]:
    """A state dict as `torch.nn.utils.prune` leaves it: weight_orig and weight_mask.

    Removed weights are 0 in `weight_orig` too. The bytes do not shrink: this is for code that prunes with PyTorch.

    Raises:
        BadValue: a weight that its layer reads without running, which a hook on the layer cannot mask.
    """
    network.state()  # which these files are: it can be had
    model = copy_module(network.model)
    masked = network.masked()
    owners = {name: model.get_submodule(owner_and_attribute(name)[0]) for name in masked}
    check_reached(network, model, owners, "torch.nn.utils.prune")
    for name, keep in masked.items():
        try:
            prune.custom_from_mask(owners[name], owner_and_attribute(name)[1], keep)
        except Exception as error:  # a module of somebody else's may refuse to have its weight replaced
            raise BadValue(f"torch.nn.utils.prune cannot hold {name!r} ({first_line(error)})") from error
    save_state(model.state_dict(), folder)
    return []
