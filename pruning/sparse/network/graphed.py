"""A network as one CUDA graph for each shape of its inputs: small networks spend their time on launches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pruning.calls.structures import flattened, map_tensors, tensors_in
from pruning.errors import DeviceError

_MOST_SHAPES = 8


class Graphed(nn.Module):
    """Records what a network does on CUDA, once for each shape, and replays it.

    Outputs are copies, so that the next call does not overwrite them. After 8 shapes, further ones run unrecorded.

    Args:
        network: in evaluation mode; its weights must stay where they lie.

    Raises:
        DeviceError: a call without a CUDA tensor.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]] = {}

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's outputs."""
        leaves = flattened((args, kwargs))
        tensors = [leaf for leaf in leaves.values() if isinstance(leaf, torch.Tensor)]
        if not any(tensor.is_cuda for tensor in tensors):
            raise DeviceError("a CUDA graph needs inputs on a CUDA device")
        key = tuple((path, _kind(leaf)) for path, leaf in leaves.items())
        if key not in self._recorded:
            if len(self._recorded) >= _MOST_SHAPES:
                return self.network(*args, **kwargs)
            self._recorded[key] = self._record(args, kwargs)
        graph, places, outputs = self._recorded[key]
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
        graph.replay()
        return map_tensors(torch.Tensor.clone, outputs)

    def _record(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], Any]:
        held = map_tensors(torch.Tensor.clone, (args, kwargs))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.network(*held[0], **held[1])
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.network(*held[0], **held[1])
        return graph, tensors_in(held), outputs


def _kind(leaf: Any) -> Any:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, torch.Tensor) else leaf
