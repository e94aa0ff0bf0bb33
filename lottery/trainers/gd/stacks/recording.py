"""Recording on CUDA: what one step launches becomes one graph, and a step is one launch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from lottery.trainers.gd.stacks.program import Recorder, Work


class CudaGraphs:
    """Records work as CUDA graphs (`torch.cuda.CUDAGraph`).

    The tensors that the work makes lie in the graph's own memory; what it reads and writes beside them must stay.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Do the block on a stream of its own, after what came before and before what comes next."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            yield
        here.wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """Return what replays the work; raises `RuntimeError` for work that waits for the device."""
        here = torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph, stream=self._stream):
                work()
        finally:
            # A recording that fails does not leave its stream.
            torch.cuda.set_stream(here)
        return graph.replay


def recorder_for(device: torch.device, dtypes: set[torch.dtype]) -> Recorder | None:
    """Return what records the steps of a stack on a device; None where they are done eagerly.

    Args:
        device: where the stack trains.
        dtypes: of its trained weights: in double precision a learning rate is more than the device's float32 holds.

    >>> recorder_for(torch.device("cpu"), {torch.float32}) is None
    True
    """
    return CudaGraphs(device) if device.type == "cuda" and dtypes == {torch.float32} else None
