"""Before compaction: an independent, masked copy of the model, with plain parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from pruning.compaction.channels import Flags
from pruning.errors import MaskMismatch
from pruning.mask import Mask
from pruning.torch_modules import apply_mask, clean_copy
from pruning.uses.linear import linear_use


def prepared(model: nn.Module, mask: Mask) -> tuple[nn.Module, dict[torch.Tensor, Flags]]:
    """Return a masked copy in eval mode, and the mask by parameter.

    Masks of `torch.nn.utils.prune` on the model count as well. Parametrizations are computed once and become plain
    parameters; a mask of what they are computed from goes over to the result where that is 0 at the same places.

    Raises:
        MaskMismatch: a mask that does not fit the model.
    """
    copy, hooked = clean_copy(model)
    fitted = dict(mask.fit({name: tuple(value.shape) for name, value in copy.named_parameters()}))
    for name, also in (hooked or {}).items():
        fitted[name] = fitted[name] & also if name in fitted else also
    apply_mask(copy, Mask(fitted))
    copy, fitted = _as_linear(copy, _plain(copy, fitted))
    kept: dict[torch.Tensor, Flags] = {copy.get_parameter(name): values for name, values in fitted.items()}
    return copy.eval(), kept


def named_mask(module: nn.Module, kept: Mapping[torch.Tensor, Flags], metadata: Mapping[str, object]) -> Mask:
    """Return the mask of a module's parameters by its own names.

    Raises:
        MaskMismatch: none of them is masked.

    >>> layer = nn.Linear(2, 1)
    >>> named_mask(layer, {layer.weight: np.array([[True, False]])}, {})["weight"].tolist()
    [[True, False]]
    """
    found = {name: kept[value] for name, value in module.named_parameters() if value in kept}
    if not found:
        raise MaskMismatch("the mask covers no tensor that takes part in the forward pass")
    return Mask(found, metadata)


def _as_linear(model: nn.Module, mask: Mapping[str, Flags]) -> tuple[nn.Module, dict[str, Flags]]:
    """Put an `nn.Linear` in the place of every masked layer that does the same; return the mask of what is there now.

    A layer whose tensors are used elsewhere as well stays, and so does one whose tensors have other names.
    """
    left, tensors = dict(mask), [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    for path, layer in list(model.named_modules()):
        name = f"{path}.weight" if path else "weight"
        if name not in left or type(layer) is nn.Linear or any(tensors.count(id(p)) > 1 for p in layer.parameters()):
            continue
        use = linear_use(layer)
        if use is None or use.weight != "weight" or use.bias not in (None, "bias"):
            continue
        matrix = use.matrix(layer).detach()
        plain = nn.Linear(matrix.shape[1], matrix.shape[0], use.bias is not None, matrix.device, matrix.dtype)
        plain.weight = nn.Parameter(matrix.contiguous(), layer.get_parameter("weight").requires_grad)
        if use.bias is not None:
            plain.bias = layer.get_parameter("bias")
        for own, value in vars(layer).items():
            vars(plain).setdefault(own, value)
        left[name] = np.ascontiguousarray(left[name].T) if use.turned else left[name]
        if not path:
            return plain, left
        model.set_submodule(path, plain)
    return model, left


def _plain(model: nn.Module, mask: Mapping[str, Flags]) -> dict[str, Flags]:
    """Replace parametrized tensors by their values, in place; return the mask by the names that are left.

    `parametrize.remove_parametrizations` would change the class, which the copy shares with the caller's model.
    """
    left = dict(mask)
    for path, module in list(model.named_modules()):
        if not parametrize.is_parametrized(module):
            continue
        prefix = f"{path}." if path else ""
        parametrizations = module.parametrizations
        assert isinstance(parametrizations, nn.ModuleDict)
        with torch.no_grad():
            values = {name: getattr(module, name).detach().clone() for name in parametrizations}
        trained = {name: list(parametrizations[name].parameters(recurse=False)) for name in parametrizations}
        plain = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        module.__class__ = plain
        for name, value in values.items():
            if trained[name]:
                module.register_parameter(name, nn.Parameter(value, trained[name][0].requires_grad))
            else:
                module.register_buffer(name, value)
            for before in [key for key in left if key.startswith(f"{prefix}parametrizations.{name}.")]:
                kept = left.pop(before)
                if kept.shape == tuple(value.shape) and not np.any(value.cpu().numpy()[~kept]):
                    left[f"{prefix}{name}"] = kept
    return left
