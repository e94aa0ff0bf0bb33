"""Recurrent networks, attention, and other networks of sequences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


class Recurrent(nn.Module):
    """A recurrent layer over token embeddings; the last state decides."""

    def __init__(self, kind: Callable[..., nn.Module], **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.recurrent = kind(6, 8, batch_first=True, **options)
        self.out = nn.Linear(16 if options.get("bidirectional") else 8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.recurrent(self.embedding(tokens))[0].mean(1))


class PadsAndPacks(nn.Module):
    """Packs padded sequences by their lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.out(self.recurrent(packed)[1][-1])


class TakesPacked(nn.Module):
    """Is given packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, packed: PackedSequence) -> torch.Tensor:
        states, lengths = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return self.out(states.sum(1) / lengths[:, None])


class CellLoop(nn.Module):
    """A GRU cell in a Python loop, and an LSTM cell on top."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.GRUCell(4, 8), nn.LSTMCell(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 8)
        cell = (state, state)
        for t in range(x.shape[1]):
            state = self.first(x[:, t], state)
            cell = self.second(state, cell)
        return self.out(cell[0])


class MaskedAttention(nn.Module):
    """`nn.MultiheadAttention` with a causal mask and one for padding (token 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)
        self.register_buffer("causal", torch.triu(torch.ones(7, 7), 1).bool())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, padding = self.embedding(tokens), tokens == 0
        mixed, _ = self.attention(x, x, x, attn_mask=self.causal, key_padding_mask=padding, need_weights=False)
        return self.out(mixed[:, -1])


class FusedAttention(nn.Module):
    """One projection for queries, keys and values, and `scaled_dot_product_attention`."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.embedding, self.heads = nn.Embedding(20, width), heads
        self.qkv, self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out((x + self.mix(y.transpose(1, 2).reshape(n, t, d))).mean(1))


class CrossAttention(nn.Module):
    """One sequence looks at another; two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(4, 8)
        self.cross = nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        memory = self.right(right)
        return self.out(self.cross(self.left(left), memory, memory)[0].mean(1))


class Encoder(nn.Module):
    """`nn.TransformerEncoder` with positions that are learned."""

    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(20, 8), nn.Parameter(0.1 * torch.randn(7, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(self.embedding(tokens) + self.positions).mean(1))


class Decoder(nn.Module):
    """`nn.Transformer`, encoder and decoder, with a causal mask; returns logits for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True)
        self.out = nn.Linear(8, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        x = self.embedding(tokens)
        return self.out(self.transformer(x, x, tgt_mask=mask, tgt_is_causal=True)).transpose(1, 2)


class TiedLanguageModel(nn.Module):
    """Output weights are the embedding's; trained on the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True)
        self.middle, self.out = nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.middle(self.recurrent(self.embedding(tokens))[0])).transpose(1, 2)


class Mixer(nn.Module):
    """MLP-Mixer: one MLP over tokens, one over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.tokens = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16))
        self.channels = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.out((x + self.channels(x)).mean(1))


class GatedMLP(nn.Module):
    """gMLP: a gate that mixes positions by a bare matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(8, 8)
        self.spatial, self.bias = nn.Parameter(0.1 * torch.randn(7, 7)), nn.Parameter(torch.ones(7, 1))
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        left, right = F.gelu(self.up(x)).chunk(2, -1)
        return self.out((x + self.down(left * (self.spatial @ self.norm(right) + self.bias))).mean(1))


class Latents(nn.Module):
    """Perceiver-like: learned queries look at the input."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, 8))
        self.keys, self.values, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.latents @ self.keys(x).transpose(1, 2) / math.sqrt(8)
        return self.out((scores.softmax(-1) @ self.values(x)).flatten(1))


class Bag(nn.Module):
    """Sums embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.hidden, self.out = nn.EmbeddingBag(20, 8, mode="sum"), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.hidden(self.bag(tokens))))


class FourierMixer(nn.Module):
    """Tokens mixed by a Fourier transform (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        return self.out((x + F.gelu(self.hidden(torch.fft.fft2(x).real))).mean(1))


class StateSpace(nn.Module):
    """A diagonal linear recurrence over time, with gates (S4D-like)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.gate, self.leave = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)
        self.decay = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs, keep = self.enter(x), torch.sigmoid(self.decay)
        state, states = torch.zeros_like(inputs[:, 0]), []
        for t in range(x.shape[1]):
            state = keep * state + inputs[:, t]
            states.append(state)
        return self.leave((torch.stack(states, 1) * F.silu(self.gate(x))).mean(1))
