"""Convolutions that are compiled for this machine, on the CPU: a kept weight times a shifted row of pixels.

    inputs ──▶ blocks of examples in a frame of zeros ──▶ outputs, laid out as the inputs are

Nothing is unfolded. What the forward pass packed serves the gradient of the values; that of the inputs is a
convolution with the transposed kernel. Kernels move by one pixel; padding, dilation and groups may be any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.function import once_differentiable

from pruning.sparse.convolutions import Size, convolution
from pruning.sparse.convolutions.dense import dense
from pruning.sparse.native.compiling import Missing
from pruning.sparse.native.convolutions import FrameOf, ImagesOf, ShiftsOf, convolutions
from pruning.sparse.native.threads import LANES, Compiled, check
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry, Pair
from pruning.sparse.plans.cost import Machine, sparse_seconds

# Of the seconds of gathered rows. Measured.
_OF_GATHERED = 0.6


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.float32 and isinstance(convolutions(), Compiled)


def _knows(geometry: Geometry) -> bool:
    """Say whether a kernel moves by one pixel, and pads by no more than what it spans."""
    spans = [step * (size - 1) for step, size in zip(geometry.dilation, geometry.kernel, strict=True)]
    return geometry.stride == (1, 1) and all(
        max(pad) <= span for pad, span in zip(geometry.padding, spans, strict=True)
    )


def _seconds(plan: ConvPlan, size: Size, rates: Machine) -> float:
    if not _knows(plan.geometry):
        return float("inf")
    batch, height, width = size
    down, right = plan.geometry.output((height, width))
    moved = 4.0 * batch * (2 * plan.inputs * height * width + 2 * plan.outputs * down * right) / rates.memory
    arithmetic = sparse_seconds(plan.outputs, plan.inputs, plan.weights.kept, batch * down * right, rates)
    return _OF_GATHERED * arithmetic + moved + 5 * rates.call


@convolution("compiled", runs=_runs, seconds=_seconds, source="Elsen et al. 2020 (arXiv 1911.09723), for direct sums")
def compiled(values: torch.Tensor, inputs: torch.Tensor, plan: ConvPlan) -> torch.Tensor:
    """Weighted sums of shifted images in C, compiled on the machine that runs it; dense for other strides than 1."""
    if not _knows(plan.geometry) or not inputs.shape[0]:
        return dense(values, inputs, plan)
    shifts = _shifts(plan, (inputs.shape[2], inputs.shape[3]))
    if not torch.is_grad_enabled():
        return _forward(values, inputs, shifts)[0]
    return _Convolution.apply(values, inputs, shifts)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class _Frame:
    """An image in a frame of zeros: (height, width) of the frame, and where in it the image begins."""

    size: Pair
    begin: Pair

    def pixels(self, channels: int) -> int:
        return channels * self.size[0] * self.size[1]

    def packed(self, channels: int, batch: int) -> torch.Tensor:
        """Return room for blocks of examples; PyTorch's memory is aligned for vectors of any processor."""
        return torch.empty(-(-batch // LANES) * LANES * self.pixels(channels))

    def structure(self) -> FrameOf:
        return FrameOf(*self.size, *self.begin)


@dataclass(frozen=True)
class _Shifts:
    """A convolution of images of one size, as the compiled functions read it.

    Attributes:
        plan: of the convolution.
        inside: the frame of the inputs.
        outside: the frame of the outputs' gradients, of the same width.
        forward: which pixels of the inputs an output reads.
        backward: which pixels of the gradient an input's gradient reads.
        size: (height, width) of the outputs.
        held: the arrays that both point to.
    """

    plan: ConvPlan
    inside: _Frame
    outside: _Frame
    forward: ShiftsOf
    backward: ShiftsOf
    size: Pair
    held: Any


def _shifts(plan: ConvPlan, size: Pair) -> _Shifts:
    made, key = plan.weights.made, ("compiled", plan.geometry, size)
    if key not in made:
        made[key] = _shifts_of(plan, size)
    return made[key]


def _shifts_of(plan: ConvPlan, size: Pair) -> _Shifts:
    geometry = plan.geometry
    (top, bottom), (left, right) = geometry.padding
    down, along = geometry.dilation
    tall, wide = (step * (k - 1) for step, k in zip(geometry.dilation, geometry.kernel, strict=True))
    height, width = geometry.output(size)
    row = max(size[1] + left + right, width + 2 * wide - left - right)  # one width for both frames
    inside = _Frame((size[0] + top + bottom, row), (top, left))
    outside = _Frame((height + 2 * tall - top - bottom, row), (tall - top, wide - left))
    out, channel, tap_row, tap_column = plan.kept_taps()
    reads = (tap_row * down * plan.inputs + channel) * row + tap_column * along
    order = np.lexsort((out, channel)).astype(np.int32)
    gives = ((tall - tap_row * down) * plan.outputs + out) * row + wide - tap_column * along
    starts = np.zeros(plan.inputs + 1, np.int32)
    np.cumsum(np.bincount(channel, minlength=plan.inputs), out=starts[1:])
    forward = plan.weights.rows.starts, reads.astype(np.int32)
    backward = starts, gives[order].astype(np.int32), order
    return _Shifts(
        *(plan, inside, outside),
        ShiftsOf(_address(forward[0]), _address(forward[1]), None),
        ShiftsOf(*(_address(array) for array in backward)),
        (height, width),
        (forward, backward),
    )


def _address(array: NDArray[np.int32]) -> int:
    return array.ctypes.data


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, inputs: torch.Tensor, shifts: _Shifts) -> torch.Tensor:
        outputs, packed = _forward(values, inputs, shifts)
        ctx.save_for_backward(values, packed)
        ctx.shifts, ctx.like = shifts, (inputs.shape, inputs.stride())
        return outputs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (the decorator hides the parameters' names)
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        values, packed = ctx.saved_tensors
        shifts: _Shifts = ctx.shifts
        by_values, by_inputs, _ = ctx.needs_input_grad
        plan, batch = shifts.plan, gradient.shape[0]
        run, threads = _run(shifts, batch)
        delta = _packed(_laid_out(gradient), shifts.outside, run, threads)
        slopes = below = None
        row = shifts.inside.size[1]
        inside, outside = shifts.inside.pixels(plan.inputs), shifts.outside.pixels(plan.outputs)
        if by_inputs:
            shape, stride = ctx.like
            below = _empty_like(shape, stride)
            _sums(run, threads, shifts.backward, values, delta, outside, plan.outputs * row, below)
        if by_values:
            slopes = values.new_empty(plan.weights.kept)
            begin = shifts.outside.begin[0] * plan.outputs * row + shifts.outside.begin[1]
            error = run.library.convolution_slopes(
                *(run.parallel, threads, shifts.forward, packed.data_ptr(), inside, plan.inputs * row),
                *(delta.data_ptr(), outside, plan.outputs * row, row, begin),
                *(*shifts.size, plan.outputs, batch, slopes.data_ptr()),
            )
            check(error)
        return slopes, below, None


def _forward(values: torch.Tensor, inputs: torch.Tensor, shifts: _Shifts) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs [N, out, H', W'], laid out as the inputs are, and the inputs as they were packed."""
    plan, batch = shifts.plan, inputs.shape[0]
    run, threads = _run(shifts, batch)
    laid_out = _laid_out(inputs.detach())
    packed = _packed(laid_out, shifts.inside, run, threads)
    outputs = _empty_like((batch, plan.outputs, *shifts.size), laid_out.stride())
    inside, row = shifts.inside.pixels(plan.inputs), plan.inputs * shifts.inside.size[1]
    _sums(run, threads, shifts.forward, values.detach().contiguous(), packed, inside, row, outputs)
    return outputs, packed


def _sums(
    run: Compiled,
    threads: int,
    shifts: ShiftsOf,
    values: torch.Tensor,
    packed: torch.Tensor,
    block: int,
    row: int,
    out: torch.Tensor,
) -> None:
    found = run.library.convolution_sums(
        *(run.parallel, threads, shifts, values.data_ptr(), packed.data_ptr(), block, row, _images(out), out.shape[0])
    )
    check(found)


def _run(shifts: _Shifts, batch: int) -> tuple[Compiled, int]:
    found = convolutions()
    assert not isinstance(found, Missing)
    height, width = shifts.size
    return found, found.threads(2.0 * shifts.plan.weights.kept * batch * height * width)


def _packed(images: torch.Tensor, frame: _Frame, run: Compiled, threads: int) -> torch.Tensor:
    packed = frame.packed(images.shape[1], images.shape[0])
    run.library.convolution_pack(
        run.parallel, threads, _images(images), frame.structure(), images.shape[0], packed.data_ptr()
    )
    return packed


def _laid_out(images: torch.Tensor) -> torch.Tensor:
    """Return images whose channels or columns lie side by side in memory."""
    if min(images.stride()) > 0 and 1 in (images.stride(1), images.stride(3)):
        return images
    return images.contiguous()


def _empty_like(shape: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    last = stride[1] == 1 and stride[3] != 1
    return torch.empty(shape, memory_format=torch.channels_last if last else torch.contiguous_format)


def _images(images: torch.Tensor) -> ImagesOf:
    _, channels, height, width = images.shape
    by_example, by_channel, by_row, by_column = images.stride()
    return ImagesOf(images.data_ptr(), channels, height, width, by_example, by_channel, by_row, by_column)
