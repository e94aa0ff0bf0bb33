"""The flow through a network of absolute weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _NormBase

from lottery.networks.example_gradients import differentiable
from lottery.networks.models.policy import Observations
from lottery.search.probes import Look, probe
from pruning.errors import BadValue
from pruning.masks.complex_tensors import require_real

# So small that functions which are linear at 0 (tanh, GELU, written out in a `forward`) stay there at any depth;
# float64 has room for it. It does not matter for ReLU.
INPUT = 1e-20

_ACTIVATIONS = tuple(getattr(activation, name) for name in activation.__all__ if name != "MultiheadAttention")
_BY_EXAMPLE = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


@probe("synflow", source="Tanaka et al. 2020, Algorithm 1 (arXiv 2006.05467)", data=False)
def synflow(look: Look) -> dict[str, torch.Tensor]:
    """∂R/∂|w| of R = 1ᵀ(∏|W|)1 in float64, up to one factor for the whole network: neither data nor labels.

    The network is made linear: parameters are |·|; biases and batch norms' running means are 0; activation modules
    pass on what they get; normalizations by example only scale; one constant goes in. What is written out in a
    `forward` runs as it is, near 0. The largest score |w · ∂R/∂|w|| is 1.

    Raises:
        BadValue: a model that takes something other than one tensor of numbers, or one without any flow.
    """
    if look.batch is not None and not _numbers(look.batch[0]):
        raise BadValue("synflow feeds one constant, and this model takes no single tensor of numbers; use snip")
    require_real("the synaptic flow", dict(look.model.named_parameters()), "snip")
    model = _linear(look.model)
    constant = torch.full((1, *look.input_shape), INPUT, dtype=torch.float64, device=look.device)
    with differentiable(model):
        outputs = model(constant)
    if not isinstance(outputs, torch.Tensor):
        raise BadValue(f"synflow sums one tensor of outputs, and this model returns {type(outputs).__name__}; use snip")
    weights = look.weights
    found = torch.autograd.grad(outputs.sum(), list(weights.values()), materialize_grads=True)
    # Scores of deep networks would leave the range of float64 when they are multiplied further.
    most = max(float((g * w.detach()).abs().max()) for g, w in zip(found, weights.values(), strict=True))
    if not 0 < most < float("inf"):
        why = "no path leads through this network" if most == 0 else "this network is too deep for it"
        raise BadValue(f"the largest synaptic flow is {most:g}: {why}; use snip")
    return {name: g / most for name, g in zip(weights, found, strict=True)}


def flow(model: nn.Module, input_shape: tuple[int, ...]) -> float:
    """Return R = 1ᵀ(∏|W|)1, the flow from inputs of 1 to the outputs of a network that is made linear, in place.

    With 1 for every weight that is kept it is the number of paths from an input to an output.

    Raises:
        BadValue: a model that does not return one tensor.

    >>> two = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    >>> with torch.no_grad():
    ...     _ = [parameter.fill_(-1) for parameter in two.parameters()]
    >>> round(flow(two, (3,)), 6)
    24.0
    """
    with torch.no_grad():
        outputs = _linear(model)(torch.full((1, *input_shape), INPUT, dtype=torch.float64))
    if not isinstance(outputs, torch.Tensor):
        raise BadValue(f"the flow is a sum of one tensor of outputs, and this model returns {type(outputs).__name__}")
    return float(outputs.sum()) / INPUT


def _numbers(inputs: Any) -> bool:
    return isinstance(inputs, torch.Tensor) and inputs.is_floating_point()


def _linear(model: nn.Module) -> nn.Module:
    model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.abs_()
            if "bias" in name.rpartition(".")[2]:
                parameter.zero_()
    for module in model.modules():
        if isinstance(module, _ACTIVATIONS):
            module.register_forward_hook(_pass)
        elif isinstance(module, _BY_EXAMPLE) or (isinstance(module, _NormBase) and module.running_var is None):
            module.register_forward_hook(_scale)
        elif isinstance(module, _NormBase) and module.running_mean is not None:
            module.running_mean.zero_()
        elif isinstance(module, Observations):
            module.count.zero_()  # without statistics it passes on what it gets
    return model


def _pass(module: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> torch.Tensor:
    # Gated units halve a dimension: what they return has another shape and stays.
    return inputs[0] if inputs and inputs[0].shape == outputs.shape else outputs


def _scale(module: nn.Module, inputs: tuple[torch.Tensor, ...], outputs: torch.Tensor) -> torch.Tensor:
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        return inputs[0]
    by_feature = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    channels_second = weight.shape if by_feature else (-1,) + (1,) * (inputs[0].dim() - 2)
    return inputs[0] * weight.reshape(channels_second)
