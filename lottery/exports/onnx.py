"""ONNX, for every runtime that is not PyTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lottery.exports import TicketNetwork, export_format
from lottery.exports.loaders import onnx as loader
from lottery.exports.programs import flat_program, flat_tensors, input_names, tracing
from pruning.calls.call import Call
from pruning.calls.calling import spread
from pruning.errors import BadValue, UsageError

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Protocol buffers end at 2 GiB; larger weights lie beside the file.
_LARGEST = 2**30


def _run_in_onnxruntime(folder: Path, network: TicketNetwork) -> Callable[[Any], list[torch.Tensor]]:
    """Read the file with onnxruntime; inputs and outputs are taken in their order."""
    session = loader.load(folder)
    names = [each.name for each in session.get_inputs()]

    def forward(inputs: Any) -> list[torch.Tensor]:
        args, kwargs = spread(network.model, inputs)
        by_name = {name: leaf for name, leaf in kwargs.items() if isinstance(leaf, torch.Tensor)}
        leaves = flat_tensors((args, kwargs))
        feeds = by_name if set(names) <= by_name.keys() else dict(zip(names, leaves, strict=True))
        found = session.run(None, {name: feeds[name].numpy() for name in names})
        return [torch.from_numpy(np.asarray(array)) for array in found]

    return forward


@export_format(
    "onnx",
    loader=loader,
    reload=_run_in_onnxruntime,
    tensors=flat_tensors,
    source="torch.onnx of PyTorch; onnx.ai; onnxruntime.ai",
)
def onnx(network: TicketNetwork, folder: Path) -> Sequence[str]:
    """The compacted network in ONNX, for onnxruntime and others.

    For evaluation: dropout is gone and batch norm uses its running statistics. Any batch size runs, unless a note says
    otherwise. Inputs that the model takes by name have their names; outputs are the tensors, in their order.

    Raises:
        UsageError: a package of the extra `onnx` is missing.
        BadValue: packed inputs, values in bfloat16, or a network that ONNX cannot express.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"the export to onnx needs {package}: pip install 'lottery-tickets[onnx]'")
    for name, tensor in network.model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.bfloat16:
            raise BadValue(f"{name!r} is bfloat16, which onnxruntime does not take from NumPy; take another format")
    program = flat_program(network)
    size = sum(tensor.nbytes for tensor in program.exported.state_dict.values())
    with tracing("torch.onnx"), _quiet_exporter():
        torch.onnx.export(
            program.exported,
            program.arguments,
            folder / "model.onnx",
            input_names=input_names(network.model, Call(*spread(network.model, network.inputs))),
            dynamo=True,
            dynamic_shapes=program.batch,
            external_data=size > _LARGEST,
            verbose=False,
        )
    return program.notes


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep PyTorch's exporter from logging that torchvision, which nothing here needs, is not installed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
