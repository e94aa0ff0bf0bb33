"""A running average of a network's weights, beside the weights that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from lottery.state.tensors import named_tensors
from pruning.mask import Mask


class Average:
    """The exponential moving average of every parameter and buffer; buffers that count are taken as they are.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that a short training is not an average of its beginning
    (as TensorFlow's `ExponentialMovingAverage` does with `num_updates`). Removed weights are 0 in every term, and so in
    their average. Halves are averaged in float32, whose digits a step of 1 − decay needs.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay, self._updates = decay, 0
        self._mean = {name: _wide(tensor.detach()).clone() for name, tensor in named_tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self._updates += 1
        weight = 1 - min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, tensor in named_tensors(model).items():
            mean, now = self._mean.get(name), _wide(tensor.detach())
            averaged = mean is not None and mean.shape == now.shape and (now.is_floating_point() or now.is_complex())
            if averaged and mean is not None:
                mean.lerp_(now, weight)
            else:
                self._mean[name] = now.clone()

    def apply_mask(self, mask: Mask) -> None:
        """Forget the weights that a mask removes."""
        for name, keep in mask.items():
            self._mean[name].masked_fill_(torch.from_numpy(~keep).to(self._mean[name].device), 0.0)

    @torch.no_grad()
    def write(self, model: nn.Module) -> None:
        """Give `model` the averaged weights, in place."""
        for name, tensor in named_tensors(model).items():
            tensor.copy_(self._mean[name])

    @contextlib.contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let `model` have the averaged weights while the block runs, and its own ones afterwards, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
        self.write(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in named_tensors(model).items():
                    tensor.copy_(own[name])


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
