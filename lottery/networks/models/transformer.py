"""A small transformer that reads an image row by row."""

from __future__ import annotations

import math

import torch
from torch import nn

from lottery.networks.models import model


class Transformer(nn.Module):
    """Rows of an image (or equal pieces of a vector) as tokens, encoder layers with norms first, mean over tokens."""

    def __init__(self, rows: tuple[int, int, int], outputs: int, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.rows = rows
        channels, tokens, features = rows
        self.embed = nn.Conv2d(channels, width, (1, features))  # a row at a time, with all its channels
        self.position = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, ...] to [N, outputs]."""
        x = self.embed(x.reshape(len(x), *self.rows)).squeeze(-1).transpose(1, 2) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(1))


@model("small-transformer", source="Vaswani et al. 2017, encoder (arXiv 1706.03762), norms first; PyTorch's own start")
def small_transformer(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two encoder layers of width 64 over the rows of an image.

    >>> small_transformer((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    if len(shape) == 3:
        return Transformer((shape[0], shape[1], shape[2]), outputs)
    size = math.prod(shape)
    tokens = max(n for n in range(1, 33) if size % n == 0)
    return Transformer((1, tokens, size // tokens), outputs)
