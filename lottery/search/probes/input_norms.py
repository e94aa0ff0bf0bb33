"""Norms of the inputs that weights are multiplied by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from lottery.networks.objectives.objective import call
from lottery.search.probes import Look, probe
from lottery.search.probes.modes import without_noise
from pruning.calls.structures import tensors_in
from pruning.errors import BadValue
from pruning.uses.multiplied import Multiplied


@probe("input_norms", source="Sun et al. 2024, equation 1 (arXiv 2306.11695)")
def input_norms(look: Look) -> dict[str, torch.Tensor]:
    """‖x‖₂ of what each weight is multiplied by, over a batch and all positions, found by following the forward pass.

    A linear layer's weight [i, j] sees input j of every example (and of every token); a convolution's sees the inputs
    that lie under its place of the kernel, padding included; an expert's those of the tokens that it was given. A
    weight that is used more than once adds up. In the mode in which the network trains, without noise.

    Raises:
        BadValue: a weight that no product of the forward pass uses (the message names it, and says what it does).
    """
    inputs, model = look.examples[0], without_noise(look.model)
    listener = Multiplied(look.weights, tensors_in(inputs))
    # With gradients nothing takes a path that is for inference alone.
    with _step_by_step(model), torch.enable_grad(), listener:
        call(model, inputs)
    found = {name: listener.norms(name) for name in look.mask}
    for name, norms in found.items():
        if norms is None:
            raise BadValue(
                f"what {name!r} is multiplied by is not known ({listener.why_not(name)}); name it in `skip`, or use "
                "magnitude"
            )
    return {name: norms for name, norms in found.items() if norms is not None}


@contextlib.contextmanager
def _step_by_step(model: nn.Module) -> Iterator[None]:
    """Have recurrent layers made of products that can be looked at, instead of one operation each."""
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # `torch.backends.mkldnn.flags` warns of GPUs that are not there
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch._C._set_mkldnn_enabled(before)
