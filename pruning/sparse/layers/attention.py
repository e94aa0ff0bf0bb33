"""Attention over several heads, with sparse projections.

    q, k, v = projections of query, key, value     softmax(q kᵀ / √d + mask) v = heads     output = projection of heads

Where query, key and value have one width, their projections lie in one matrix [3E, E]. Its kept values lie row by row,
so that each projection has a run of them, and self-attention needs a single product.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from pruning.errors import BadValue, unknown
from pruning.sparse.layers import Masks, NoSparseForm, sparse_layer
from pruning.sparse.layers.linear import SparseLinear
from pruning.sparse.plans.plan import Plan
from pruning.sparse.weights.weight import SparseWeight, as_autocast, take_the_place

Weight = SparseWeight | torch.Tensor
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_OWN = "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v"
_OUTPUT = "out_proj.weight"


class SparseAttention(nn.Module):
    """`nn.MultiheadAttention` that keeps its surviving weights only; arguments and outputs are those of the layer.

    >>> import numpy as np
    >>> layer = nn.MultiheadAttention(2, 1)
    >>> sparse = SparseAttention(layer, {"out_proj.weight": np.eye(2, dtype=bool)})
    >>> output, weights = sparse(*torch.ones(3, 1, 1, 2))
    >>> output.shape, weights.tolist(), sparse.state_dict().keys() == layer.state_dict().keys()
    (torch.Size([1, 1, 2]), [[[1.0]]], True)
    """

    in_proj_weight: Weight | None
    q_proj_weight: Weight
    k_proj_weight: Weight
    v_proj_weight: Weight
    in_proj_bias: torch.Tensor | None
    bias_k: torch.Tensor | None
    bias_v: torch.Tensor | None

    def __init__(self, layer: nn.MultiheadAttention, masks: Masks) -> None:
        super().__init__()
        parameters = dict(layer.named_parameters())
        for name in masks:
            if name not in parameters:
                raise unknown("weight of MultiheadAttention", name, parameters)
            if not name.endswith("weight"):
                raise NoSparseForm(f"MultiheadAttention has a mask for {name}: only its weights have a sparse form")
        self.embed_dim, self.kdim, self.vdim = layer.embed_dim, layer.kdim, layer.vdim
        self.num_heads, self.dropout, self.batch_first = layer.num_heads, layer.dropout, layer.batch_first
        self.add_zero_attn = layer.add_zero_attn
        # What nn.TransformerEncoderLayer asks before it hands the weights to a kernel that knows dense ones only.
        self._qkv_same_embed_dim = False
        for name in _OWN:
            own = getattr(layer, name)
            setattr(self, name, SparseWeight(own, masks[name]) if name in masks else own)
        self.out_proj = SparseLinear(layer.out_proj, {"weight": masks[_OUTPUT]}) if _OUTPUT in masks else layer.out_proj
        take_the_place(self, layer)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the output, and the attention weights where they are asked for.

        Args:
            query: [L, B, E]; [B, L, E] where the batch is first; [L, E] of a single example.
            key: the same with S steps of kdim features.
            value: the same with S steps of vdim features.
            key_padding_mask: [B, S] or [S]; True hides a key, floats are added to its scores.
            need_weights: whether to return the weights as well: [B, L, S], without B for a single example.
            attn_mask: [L, S] or [B · heads, L, S]; True hides, floats are added.
            average_attn_weights: whether those of the heads are averaged; [B, heads, L, S] otherwise.
            is_causal: a hint that `attn_mask` is the causal mask.

        Raises:
            BadValue: shapes that do not fit; a hint without its mask; nested tensors.
        """
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise BadValue("is_causal is a hint about attn_mask, which is missing")
        hinted = is_causal and key_padding_mask is None and not need_weights
        q, k, v = (self._heads(projected) for projected in self._project(query, key, value))
        if key_padding_mask is not None and query.dim() == 2:
            key_padding_mask = key_padding_mask[None]
        mask = None if hinted else _merged(attn_mask, key_padding_mask, q, k.shape[2])
        k, v, mask = self._extended(k, v, mask)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            weights = _weights(q, k, mask, dropout)
            heads, shown = weights @ v, weights.mean(1) if average_attn_weights else weights
        else:
            heads, shown = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=hinted), None
        # Step by step in memory, as the layer itself lays them out: a dropout after it draws in the order of memory.
        output = self.out_proj(heads.permute(2, 0, 1, 3).flatten(2))
        if query.dim() == 2:
            return output[:, 0], None if shown is None else shown[0]
        return output.transpose(0, 1) if self.batch_first else output, shown

    def extra_repr(self) -> str:
        """Say the options where the module is printed."""
        return f"{self.embed_dim}, {self.num_heads}, kdim={self.kdim}, vdim={self.vdim}, batch_first={self.batch_first}"

    def _check(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        if any(each.is_nested for each in (query, key, value)):
            raise BadValue("nested tensors have no sparse attention: call avoid_fused_encoder_kernels(model) once")
        shapes = [tuple(each.shape) for each in (query, key, value)]
        batch = 0 if self.batch_first else 1
        if (
            query.dim() not in (2, 3)
            or any(len(shape) != query.dim() for shape in shapes)
            or [shape[-1] for shape in shapes] != [self.embed_dim, self.kdim, self.vdim]
            or shapes[1][:-1] != shapes[2][:-1]
            or (query.dim() == 3 and shapes[0][batch] != shapes[1][batch])
        ):
            widths = f"{self.embed_dim}, {self.kdim} and {self.vdim}"
            raise BadValue(f"attention takes query, key and value of widths {widths} and of one batch, not {shapes}")

    def _project(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Three:
        """Return the projections [..., E]; inputs that are one tensor share a product."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if weight is None:
            biases = (None, None, None) if bias is None else bias.chunk(3)
            q, k, v = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            return _linear(query, q, biases[0]), _linear(key, k, biases[1]), _linear(value, v, biases[2])
        if query is key and key is value:
            q, k, v = _linear(query, weight, bias).split(width, -1)
            return q, k, v
        q = _some_rows(query, weight, bias, slice(0, width))
        if key is value:
            k, v = _some_rows(key, weight, bias, slice(width, 3 * width)).split(width, -1)
            return q, k, v
        k = _some_rows(key, weight, bias, slice(width, 2 * width))
        return q, k, _some_rows(value, weight, bias, slice(2 * width, 3 * width))

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        """Return [B, heads, L, E / heads]."""
        if projected.dim() == 2:
            projected = projected[None]
        elif not self.batch_first:
            projected = projected.transpose(0, 1)
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _extended(
        self, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Append the learnt key and value, then those of zeros, where the layer has them; no mask hides them."""
        batch, heads, steps, width = k.shape
        more: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self.bias_k is not None and self.bias_v is not None:
            learnt = (bias.view(1, heads, 1, width).expand(batch, -1, -1, -1) for bias in (self.bias_k, self.bias_v))
            more.append((next(learnt), next(learnt)))
        if self.add_zero_attn:
            zeros = k.new_zeros(batch, heads, 1, width)
            more.append((zeros, zeros))
        if not more:
            return k, v, mask
        k, v = (torch.cat([first, *rest], 2) for first, rest in zip((k, v), zip(*more, strict=True), strict=True))
        return k, v, None if mask is None else F.pad(mask, (0, k.shape[2] - steps))


def avoid_fused_encoder_kernels(model: nn.Module) -> None:
    """Let transformer encoders with sparse layers run layer by layer; in place, once, after layers were replaced.

    In eval mode `nn.TransformerEncoder` and `nn.TransformerEncoderLayer` read the weights of the layers in them for a
    fused kernel, which knows dense weights only. An encoder that runs without it holds at padded positions what it
    computes there, as it does in training, and not 0.

    >>> import numpy as np
    >>> encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, 4, batch_first=True), 1)
    >>> layer = encoder.layers[0]
    >>> layer.linear1 = SparseLinear(layer.linear1, {"weight": np.ones((4, 2), bool)})
    >>> avoid_fused_encoder_kernels(encoder)
    >>> encoder.eval()(torch.ones(1, 1, 2)).shape
    torch.Size([1, 1, 2])
    """
    for module in model.modules():
        if any(isinstance(child, SparseWeight) for child in module.modules()):
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
            elif isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0


def _linear(inputs: torch.Tensor, weight: Weight, bias: torch.Tensor | None) -> torch.Tensor:
    return _by_steps(weight(inputs, bias)) if isinstance(weight, SparseWeight) else F.linear(inputs, weight, bias)


def _some_rows(inputs: torch.Tensor, weight: Weight, bias: torch.Tensor | None, rows: slice) -> torch.Tensor:
    """Return the outputs of some rows of a weight: [..., in] to [..., rows]. Hooks on the weight see a whole call."""
    some = None if bias is None else bias[rows]
    if not isinstance(weight, SparseWeight):
        return F.linear(inputs, weight[rows], some)
    if weight._forward_pre_hooks or weight._forward_hooks:
        return _by_steps(weight(inputs, bias))[..., rows]
    plan, made = weight.plan, weight.plan.made
    key = "rows", rows.start, rows.stop
    if key not in made:
        made[key] = Plan.of(plan.mask[rows])
    values = weight.values[int(plan.rows.starts[rows.start]) : int(plan.rows.starts[rows.stop])]
    values, inputs, some = as_autocast(values, inputs, some)
    columns = inputs.reshape(-1, inputs.shape[-1]).t()
    outputs = weight.product(inputs)(values, columns, made[key]).t()
    outputs = outputs if some is None else outputs + some
    return _by_steps(outputs.reshape(*inputs.shape[:-1], outputs.shape[-1]))


def _by_steps(outputs: torch.Tensor) -> torch.Tensor:
    # Products come feature by feature. PyTorch transposes a matrix several times as fast as a tensor of heads.
    return outputs.flatten(0, -2).contiguous().view(outputs.shape)


def _merged(
    attn_mask: torch.Tensor | None, key_padding_mask: torch.Tensor | None, q: torch.Tensor, steps: int
) -> torch.Tensor | None:
    """Return the bias that is added to the scores [B or 1, heads or 1, L or 1, S], or None."""
    batch, heads, length, _ = q.shape
    merged = None
    if attn_mask is not None:
        shapes = [(length, steps), (batch * heads, length, steps)]
        if tuple(attn_mask.shape) not in shapes:
            raise BadValue(f"attn_mask has the shape {tuple(attn_mask.shape)}, expected {shapes[0]} or {shapes[1]}")
        merged = _added(attn_mask, q).reshape(-1, 1 if attn_mask.dim() == 2 else heads, length, steps)
    if key_padding_mask is not None:
        if tuple(key_padding_mask.shape) != (batch, steps):
            raise BadValue(f"key_padding_mask has the shape {tuple(key_padding_mask.shape)}, expected {(batch, steps)}")
        padding = _added(key_padding_mask, q)[:, None, None]
        merged = padding if merged is None else merged + padding
    return merged


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.is_floating_point():
        return mask.to(like.dtype)
    if mask.dtype != torch.bool:
        raise BadValue(f"an attention mask is of bool or of a floating type, not {mask.dtype}")
    return like.new_zeros(mask.shape).masked_fill(mask, -math.inf)


def _weights(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, dropout: float) -> torch.Tensor:
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
    return F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)


@sparse_layer(nn.MultiheadAttention, source="Vaswani et al. 2017 (arXiv 1706.03762)")
def sparse_attention(layer: nn.Module, masks: Masks) -> nn.Module:
    """Attention with sparse projections; the mask of the output projection is called `out_proj.weight`.

    >>> import numpy as np
    >>> form = sparse_attention(nn.MultiheadAttention(2, 1), {"out_proj.weight": np.eye(2, dtype=bool)})
    >>> form.out_proj.weight.nonzero().tolist()
    [[0, 0], [1, 1]]
    """
    assert isinstance(layer, nn.MultiheadAttention)
    return SparseAttention(layer, masks)
