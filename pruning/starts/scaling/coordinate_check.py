"""The coordinate check of a parametrization: whether activations keep their size while a network grows wider or denser.

A parametrization that is right has the same mean |activation| in every layer, after any number of steps, at every
width and density; then one learning rate is right for all of them (Yang et al. 2022, appendix D.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from pruning.errors import BadValue


def coordinates(model: nn.Module, inputs: torch.Tensor, layers: Sequence[str]) -> dict[str, float]:
    """Return mean |output| of each of these layers of a model, on one batch.

    Args:
        model: a module; it stays as it is.
        inputs: the batch.
        layers: names of modules whose output is a tensor.

    Raises:
        BadValue: a name that the model does not have, or a layer that it does not run.

    >>> coordinates(nn.Sequential(nn.Flatten(), nn.Threshold(1.0, 3.0)), torch.tensor([[-1.0, 2.0]]), ["0", "1"])
    {'0': 1.5, '1': 2.5}
    """
    modules, seen = dict(model.named_modules()), dict[str, float]()
    for name in layers:
        if name not in modules:
            raise BadValue(f"the model has no layer {name!r}: it has {', '.join(each for each in modules if each)}")

    def looking(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def look(module: nn.Module, given: object, output: torch.Tensor) -> None:
            del module, given
            seen[name] = float(output.detach().abs().mean())

        return look

    handles = [modules[name].register_forward_hook(looking(name)) for name in layers]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in layers if name not in seen]:
        raise BadValue(f"the model does not run its layer {missing[0]!r} on these inputs")
    return {name: seen[name] for name in layers}


def log_slopes(found: Mapping[float, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Return, for each layer, the slope of log mean |activation| against the log of a width or density.

    Args:
        found: by width (or density), the coordinates of several seeds; means are taken over seeds.

    Raises:
        BadValue: fewer than two widths, or an activation that is 0 everywhere.

    >>> log_slopes({64: [{"fc1": 2.0}], 256: [{"fc1": 1.0}, {"fc1": 1.0}]})
    {'fc1': -0.5}
    """
    if len(found) < 2:
        raise BadValue("a slope takes two widths or densities, or more")
    sizes = np.log2(list(found))
    slopes: dict[str, float] = {}
    for layer in next(iter(found.values()))[0]:
        means = np.array([np.mean([each[layer] for each in seeds]) for seeds in found.values()])
        if not (means > 0).all():
            raise BadValue(f"the activations of {layer!r} are all 0 at one size: a logarithm has no value there")
        slopes[layer] = float(np.polyfit(sizes, np.log2(means), 1)[0])
    return {layer: round(slope, 12) for layer, slope in slopes.items()}
