"""How a convolution's images lie in memory so that every weight reads straight lines of them, whatever the stride.

A padded image is split into phases: of a stride of 2, the even and the odd rows and columns. Within a phase, a weight
reads a window that moves by one place at a time, as in a convolution of stride 1, and nothing is read in vain.

    inputs   [phases down, phases right, in, lines, places, N]       outputs [out, H', W', N]
    gradients of the outputs [out, lines + margin, places + margin, N], zeros around them: for those of the inputs
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pruning.sparse.kernels.gather_plan import Reads, Runs
from pruning.sparse.kernels.widths import padded_width
from pruning.sparse.plans.convolution_plan import ConvPlan, Geometry, Pair


@dataclass(frozen=True)
class Layout:
    """The sizes of a convolution's buffers.

    Attributes:
        size: (height, width) of the input.
        output: (height, width) of the output.
        phase: (lines, places) of one phase of the padded input.
        margin: the farthest that a tap reads within a phase (down, right).
        geometry: how the kernel moves.

    >>> Layout.of(Geometry((3, 3), stride=(2, 2), padding=((1, 1), (1, 1))), (8, 8)).phase
    (5, 5)
    """

    size: Pair
    output: Pair
    phase: Pair
    margin: Pair
    geometry: Geometry

    @classmethod
    def of(cls, geometry: Geometry, size: Pair) -> Layout:
        """Return the sizes for an input of this height and width; raises `BadValue` where the kernel does not fit."""
        output = geometry.output(size)
        (above, below), (left, right) = geometry.padding
        extent = size[0] + above + below, size[1] + left + right
        reach = [step * (k - 1) for step, k in zip(geometry.dilation, geometry.kernel, strict=True)]
        down, across = geometry.stride
        phase = -(-extent[0] // down), -(-extent[1] // across)
        return cls(size, output, phase, (reach[0] // down, reach[1] // across), geometry)

    @property
    def framed(self) -> Pair:
        """(lines, places) of the gradients of the outputs with their margins."""
        return self.phase[0] + self.margin[0], self.phase[1] + self.margin[1]

    @property
    def forward(self) -> Runs:
        """The lines of an output, read from the phases."""
        return Runs(self.output[0], self.output[1], self.phase[1])

    @property
    def backward(self) -> Runs:
        """The lines of a phase, read from the framed gradients of the outputs."""
        return Runs(self.phase[0], self.phase[1], self.framed[1])


def convolution_reads(plan: ConvPlan, layout: Layout) -> tuple[Reads, Reads, np.ndarray]:
    """Return what outputs read of the phases, what phases read of the framed gradients, and the order of the latter.

    The order [kept], int32, takes the values to the rows of the second: (phase down, phase right, input channel).

    >>> plan = ConvPlan.of(np.array([[[[True, False, True]]]]), Geometry((1, 3)))
    >>> forward, backward, order = convolution_reads(plan, Layout.of(plan.geometry, (1, 4)))
    >>> forward.bases.tolist(), backward.bases.tolist(), order.tolist()
    ([0, 2], [2, 0], [0, 1])
    """
    out, channel, tap_row, tap_column = plan.kept_taps()
    (down, right), (dilate_down, dilate_right) = plan.geometry.stride, plan.geometry.dilation
    line, phase_down = np.divmod(tap_row * dilate_down, down)
    place, phase_right = np.divmod(tap_column * dilate_right, right)
    row = (phase_down * right + phase_right) * plan.inputs + channel
    forward = (row * layout.phase[0] + line) * layout.phase[1] + place
    backward = (out * layout.framed[0] + layout.margin[0] - line) * layout.framed[1] + layout.margin[1] - place
    order = np.argsort(row, kind="stable").astype(np.int32)
    starts = np.zeros(down * right * plan.inputs + 1, np.int32)
    np.cumsum(np.bincount(row, minlength=len(starts) - 1), out=starts[1:])
    return Reads.of(plan.weights.rows.starts, forward), Reads.of(starts, backward[order]), order


def to_phases(images: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return images [N, C, H, W] as phases [phases down, phases right, C, lines, places, width], contiguous.

    >>> layout = Layout.of(Geometry((1, 1), stride=(1, 2)), (1, 4))
    >>> to_phases(torch.arange(4.0).view(1, 1, 1, 4), layout).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    count, channels, height, width = images.shape
    (down, right), (lines, places) = layout.geometry.stride, layout.phase
    above, left = layout.geometry.padding[0][0], layout.geometry.padding[1][0]
    canvas = images.new_zeros(channels, lines * down, places * right, padded_width(count))
    canvas[:, above : above + height, left : left + width, :count] = images.permute(1, 2, 3, 0)
    split = canvas.view(channels, lines, down, places, right, canvas.shape[-1])
    return split.permute(2, 4, 0, 1, 3, 5).contiguous()


def from_phases(phases: torch.Tensor, layout: Layout, count: int) -> torch.Tensor:
    """Return `count` images [N, C, H, W] from their phases; `to_phases` the other way, a view where the stride is 1.

    >>> layout = Layout.of(Geometry((1, 1), stride=(1, 2)), (1, 4))
    >>> images = torch.arange(4.0).view(1, 1, 1, 4)
    >>> torch.equal(from_phases(to_phases(images, layout), layout, 1), images)
    True
    """
    down, right, channels, lines, places, innermost = phases.shape
    canvas = phases.permute(2, 3, 0, 4, 1, 5).reshape(channels, lines * down, places * right, innermost)
    (height, width), (above, left) = layout.size, (layout.geometry.padding[0][0], layout.geometry.padding[1][0])
    return canvas[:, above : above + height, left : left + width, :count].permute(3, 0, 1, 2)


def framed(gradients: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return gradients of the outputs [N, out, H', W'] as [out, lines, places, width], with zeros around them.

    >>> layout = Layout.of(Geometry((1, 3)), (1, 4))
    >>> framed(torch.ones(1, 1, 1, 2), layout)[0, 0, :, 0].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    count, channels, height, width = gradients.shape
    frame = gradients.new_zeros(channels, *layout.framed, padded_width(count))
    down, right = layout.margin
    frame[:, down : down + height, right : right + width, :count] = gradients.permute(1, 2, 3, 0)
    return frame


def inside(frame: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the view of framed gradients without their margins [out, H', W', width]."""
    (down, right), (height, width) = layout.margin, layout.output
    return frame[:, down : down + height, right : right + width]
