"""Modules that do something of their own where they are switched between training and evaluation."""

from __future__ import annotations

import torch
from torch import nn

from pruning.copies.copying import copy_module


def switches_by_itself(model: nn.Module) -> bool:
    """Say whether a module inside defines its own `train` or `eval`.

    >>> switches_by_itself(nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()))
    False
    """
    own = [(type(part).train, type(part).eval) for part in model.modules()]
    held = any("train" in vars(part) or "eval" in vars(part) for part in model.modules())
    return held or any(methods != (nn.Module.train, nn.Module.eval) for methods in own)


def written_on_eval(model: nn.Module) -> str | None:
    """Return a parameter that `eval()` writes (an adapter is merged into it), or None; the model is not changed.

    It is tried on random values: an adapter that begins at 0 changes nothing yet.

    >>> class Merging(nn.Linear):
    ...     def eval(self):
    ...         self.weight.data += 1
    ...         return super().eval()
    >>> written_on_eval(Merging(2, 1)), written_on_eval(nn.Linear(2, 1))
    ('weight', None)
    """
    if not switches_by_itself(model):
        return None
    tried = copy_module(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tried.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.rand(parameter.shape, generator=generator))
    before = {name: parameter.detach().clone() for name, parameter in tried.named_parameters()}
    after = dict(tried.eval().named_parameters())
    changed = [name for name in before if name not in after or not torch.equal(before[name], after[name].detach())]
    return changed[0] if changed else None
