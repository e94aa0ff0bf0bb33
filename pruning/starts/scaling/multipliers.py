"""Multipliers that the author of a model writes into it for μP and SμPar: of logits and of attention."""

from __future__ import annotations

import math

import torch
from torch import nn

from pruning.errors import BadValue


class OutputMultiplier(nn.Module):
    """Logits by α / m_d: stands after the last layer, `nn.Sequential(body, head, OutputMultiplier(width, 64))`.

    The initializers `mup` and `smupar`, and the learning rates of these names, are then told
    `output_multiplier=True`: the output weight keeps its start and its rate whatever the width.

    Args:
        width: inputs of the last layer.
        base_width: the same of the base network; divides it, or is divided by it.
        alpha: α, a constant to tune once.

    Source: Dey et al. 2024, table 1 (arXiv 2405.15743); Yang et al. 2022, table 8 (arXiv 2203.03466).

    >>> OutputMultiplier(256, 64, alpha=2.0)(torch.ones(1)).item()
    0.5
    """

    def __init__(self, width: int, base_width: int, alpha: float = 1.0) -> None:
        super().__init__()
        if width % base_width and base_width % width:
            raise BadValue(f"base_width {base_width} does not divide the width {width}")
        self.factor = alpha * base_width / width

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits multiplied, of any shape."""
        return logits * self.factor

    def extra_repr(self) -> str:
        """Return the factor, for printing."""
        return f"{self.factor:g}"


def attention_scale(head_width: int, base_head_width: int | None = None) -> float:
    """Return what the products of queries and keys are multiplied with: 1 / d_head, instead of 1 / √d_head.

    `torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=attention_scale(d_head))`.

    Args:
        head_width: channels of a head.
        base_head_width: where given, the scale equals the usual 1 / √d_head at this width: √base / d_head.

    Source: Dey et al. 2024, table 1; Yang et al. 2022, definition 4.1.

    >>> attention_scale(64), attention_scale(64, base_head_width=64), attention_scale(256, base_head_width=64)
    (0.015625, 0.125, 0.03125)
    """
    if head_width < 1:
        raise BadValue(f"head_width must be 1 or more, not {head_width}")
    return math.sqrt(base_head_width or 1) / head_width
