"""What every test of compaction says: the smaller network computes what the masked dense one does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from pruning.compaction import Compacted, compact
from pruning.mask import Mask
from pruning.torch_modules import apply_mask, prunable


def dense(model: nn.Module, mask: Mask) -> Any:
    return apply_mask(copy.deepcopy(model), mask).eval()


def unsettled(model: nn.Module, seed: int = 0) -> Any:
    """Return the model in float64 with biases, norms and running statistics that are nothing special."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if name == "running_var":
                    value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
                elif name in ("bias", "running_mean") or (name == "weight" and value.ndim == 1):
                    value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return model


def holed(model: nn.Module, seed: int = 0, density: float = 0.5, empty: float = 0.4) -> Mask:
    """Return a random mask that empties this share of all rows and of all columns as well."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in prunable(model).items():
        keep = generator.random(shape) < density
        keep[generator.random(shape[0]) < empty] = False
        keep[:, generator.random(shape[1]) < empty] = False
        tensors[name] = keep
    return Mask(tensors)


def rows(model: nn.Module, **empty: list[int]) -> Mask:
    """Keep all weights of the named layers, but of these rows."""
    tensors = {}
    for name, dead in empty.items():
        keep = np.ones(model.get_parameter(f"{name.replace('_', '.')}.weight").shape, bool)
        keep[dead] = False
        tensors[f"{name.replace('_', '.')}.weight"] = keep
    return Mask(tensors)


def images(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_exact(
    model: nn.Module,
    mask: Mask,
    inputs: Callable[[int], torch.Tensor],
    example: int = 2,
    batches: tuple[int, ...] = (1, 2, 5),
    tolerance: float = 1e-12,
) -> Compacted:
    """Compact with an example of one batch size; compare on others, and hold the mask to its promises."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = compact(model, mask, inputs(example))
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any("computes something else" in reason for reason in found.opaque.values())
    with torch.no_grad():
        for batch in batches:
            expected, given = dense(model, mask)(inputs(batch)), found.module(inputs(batch))
            assert given.shape == expected.shape and given.dtype == expected.dtype
            assert (given - expected).abs().max() <= tolerance * expected.abs().max()
    parameters = dict(found.module.named_parameters())
    for name, keep in found.mask.items():
        assert not parameters[name].detach().numpy()[~keep].any()
    assert not any(module.training for module in found.module.modules())
    mine = {value.data_ptr() for value in model.state_dict().values() if value.numel()}
    assert not mine & {value.data_ptr() for value in found.module.state_dict().values()}
    return found


def widths(found: Compacted) -> dict[str, tuple[int, int]]:
    return {row.name: (row.inputs_left, row.outputs_left) for row in found.layers}
