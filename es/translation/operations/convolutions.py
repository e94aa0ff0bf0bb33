"""Convolution, also transposed, with groups and dilation."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from es.translation.operations.registry import operation


@operation("convolution", "convolution_overrideable")
def _convolution(
    inputs: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> jax.Array:
    """Of [N, C, …] and [O, C / groups, …]; a transposed one has a weight [C, O / groups, …].

    torchax reshapes the weight of a transposed one with groups without moving the groups.
    """
    axes = inputs.ndim - 2
    stride, padding, dilation, output_padding = (
        [values[0] if len(values) == 1 else values[axis] for axis in range(axes)]
        for values in (stride, padding, dilation, output_padding)
    )
    spatial = "DHW"[3 - axes :] if axes <= 3 else "".join(map(chr, range(65, 65 + axes)))
    numbers = (f"NC{spatial}", f"OI{spatial}", f"NC{spatial}")
    if transposed:
        weight = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
        weight = lax.rev(weight.reshape(-1, *weight.shape[2:]), range(2, weight.ndim - 1))
        spans = [d * (size - 1) for d, size in zip(dilation, weight.shape[2:], strict=True)]
        pads = [(s - p, s - p + o) for s, p, o in zip(spans, padding, output_padding, strict=True)]
        steps, spread = [1] * axes, stride
    else:
        pads, steps, spread = [(p, p) for p in padding], stride, [1] * axes
    result = lax.conv_general_dilated(
        inputs, weight, steps, pads, spread, dilation, dimension_numbers=numbers, feature_group_count=groups
    )
    return result if bias is None else result + bias.reshape(1, -1, *[1] * axes)
