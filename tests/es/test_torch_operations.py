"""torch's operations in JAX: what other people's networks are made of gives what torch gives, at other sizes too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from es.translation.functions import to_jax, torch_network
from pruning.errors import BadValue


class Code(nn.Module):
    """A module whose forward is a plain function of it and its inputs."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def attention(**settings: Any) -> Callable[..., torch.Tensor]:
    def forward(_: Code, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (4, 2)).transpose(1, 2)
        few = heads[:, ::2] if settings.get("enable_gqa") else heads
        mask = None
        if "mask" in settings:
            mask = keep[:, None, None, :] if settings["mask"] == "bool" else keep[:, None, None, :].float().log()
        given = {key: value for key, value in settings.items() if key != "mask"}
        return F.scaled_dot_product_attention(heads, few, few, attn_mask=mask, **given)

    return forward


def through_views(_: Code, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.transpose(1, 2)[:, 0].add_(1.0)
    y[:, 1:3, ::2] *= 2
    y.view(len(x), -1)[:, -1] = 7.0
    y.diagonal(dim1=1, dim2=2).zero_()
    parts = y.chunk(2, dim=-1)
    parts[0].mul_(3)
    out = torch.zeros(len(x), 5, 10)
    out[:, :, 1:9] = y
    out[:, 0, ::3] = x[:, 0, :4]
    return out + y.sum(-1, keepdim=True)


def by_masks(_: Code, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[keep] = 0.5
    y[~keep] = torch.arange(8.0)
    y[y > 1] = 1.0
    y.masked_fill_(x < -1, -1.0)
    y[:, 0] = torch.where(keep[:, :1], y[:, 0], y[:, 1])
    return y.masked_scatter(keep[:, :, None], x.flip(1))


def by_indices(_: Code, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    index = keep.long().cumsum(1)
    hot = F.one_hot(index, 6).float()
    order = x.mean(-1).argsort(dim=1)
    y = x.gather(1, order[:, :, None].expand_as(x)).roll((1, 2), (1, 2))
    y.scatter_add_(1, index.clamp(max=4)[:, :, None].expand_as(y), x)
    y = y.index_add(1, torch.tensor([0, 0, 3]), x[:, :3])
    places = torch.bucketize(x, torch.linspace(-1, 1, 4)) + torch.searchsorted(torch.linspace(-1, 1, 4), x)
    windows = y.unfold(1, 3, 1).sum(-1) + x.as_strided((len(x), 3, 8), (40, 8, 1), 8)
    return torch.cat(
        [y, places.float(), hot.sum(1, keepdim=True).expand(-1, 1, 6).repeat(1, 1, 2)[..., :8], windows], 1
    )


def states(m: Any, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Written in parts by one layer after the other, and read in between, from memory that begins as constants."""
    memory = [torch.zeros(len(x), 5, 8, 2) - 1e30 for _ in range(3)]
    for layer in range(2):
        for each in memory:
            x = x + each[..., layer].clamp(min=-1)
            each[..., layer] = x.tanh()
            x = torch.maximum(each[..., layer], x * 0.5)
    return x + sum(each.clamp(min=-1).sum(-1) for each in memory)


def rotated(_: Code, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    angles = torch.outer(torch.arange(5.0), 1 / 100 ** (torch.arange(4.0) / 4))
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous()) * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(2) + F.rms_norm(x, (8,)) + torch.fft.rfft(x, dim=1).abs().mean()


def pictures(_: Code, x: torch.Tensor, keep: torch.Tensor) -> list[torch.Tensor]:
    image = x.reshape(-1, 2, 4, 5)
    resized = [
        F.interpolate(image, scale_factor=2.0, mode=mode, align_corners=None if mode == "nearest" else False)
        for mode in ("nearest", "bilinear", "bicubic")
    ]
    pooled = [
        F.adaptive_avg_pool2d(image, (3, 2)), F.adaptive_max_pool2d(image, 2), F.max_pool2d(image, 3, 2, 1),
        F.avg_pool2d(image, 3, 2, 1, ceil_mode=True), F.avg_pool2d(image, 2, count_include_pad=False),
        F.fold(F.unfold(image, 2), (4, 5), 2), F.pixel_unshuffle(image[..., :4], 2),
        F.pad(image, (1, 1) * 2, "reflect"), F.pad(image, (1, 2, 0, 1), "replicate"),
        F.pad(image, (1, 1) * 2, "circular"), F.lp_pool2d(image, 2, 2),
        F.grid_sample(image, torch.tanh(image.permute(0, 2, 3, 1)), align_corners=False),
    ]  # fmt: skip
    return [*resized, *pooled]


def experts(m: Any, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(0, 1)
    chosen = (rows @ m.gate).argmax(-1)
    order = chosen.argsort()
    ends = F.one_hot(chosen, 3).sum(0).cumsum(0).int()
    products = F.grouped_mm(rows[order].bfloat16(), m.weight.bfloat16(), offs=ends)
    return products.float()[order.argsort()]


def slopes(m: Any, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_(True)
    with torch.enable_grad():
        energy = m.energy(x).square().sum()
        return torch.autograd.grad(energy, x)[0] + torch.func.grad(lambda y: m.energy(y).sin().sum())(x)


def mixture(m: Any, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Normal(x, F.softplus(x)).log_prob(x + 1)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.3)


CASES: dict[str, Callable[[], nn.Module]] = {
    "attention": lambda: Code(attention()),
    "attention, causal": lambda: Code(attention(is_causal=True)),
    "attention, kept by a mask": lambda: Code(attention(mask="bool")),
    "attention, an added mask": lambda: Code(attention(mask="float", scale=0.3)),
    "attention, shared keys": lambda: Code(attention(enable_gqa=True, is_causal=True)),
    "writes through views": lambda: Code(through_views),
    "writes by masks": lambda: Code(by_masks),
    "states in shared memory": lambda: Code(states),
    "indices": lambda: Code(by_indices),
    "rotary embedding": lambda: Code(rotated),
    "pooling and resizing": lambda: Code(pictures),
    "experts": lambda: Code(experts, gate=parameter(8, 3), weight=parameter(3, 8, 8)),
    "derivatives in the forward": lambda: Code(slopes, energy=nn.Linear(8, 2)),
    "distributions": lambda: Code(mixture),
    "a normalized weight": lambda: Code(
        lambda m, x, keep: m.part(x), part=nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))
    ),
}


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    keep = torch.rand(count, 5, generator=generator) > 0.3
    keep[:, 0] = True
    return torch.randn(count, 5, 8, generator=generator), keep


@pytest.mark.parametrize("case", CASES)
def test_a_network_equals_torch_on_other_values_and_sizes(case: str):
    torch.manual_seed(0)
    module = CASES[case]().eval()
    network = torch_network(module, batch(4))
    params = to_jax({**dict(module.named_parameters()), **dict(module.named_buffers())})
    found = jax.jit(network.apply)(params, to_jax(batch(6)))
    with torch.no_grad():
        wanted = module(*batch(6))
    tolerance = 1e-2 if case == "experts" else 1e-4
    for have, want in zip(jax.tree.leaves(found), jax.tree.leaves(to_jax(wanted)), strict=True):
        np.testing.assert_allclose(np.asarray(have), np.asarray(want), tolerance, tolerance)


@dataclass
class Output:
    logits: torch.Tensor
    name: str = "output"


def test_outputs_of_any_class_come_back_in_it():
    module = Code(lambda m, x: Output(x * m.scale), scale=parameter(1))
    network = torch_network(module, torch.ones(2, 3))
    outputs = network.apply(to_jax(dict(module.named_parameters())), to_jax(torch.ones(2, 3)))
    assert set(outputs) == {"logits"}
    assert network.restored({"logits": 5}) == Output(5)  # pyright: ignore[reportArgumentType]


def test_the_translation_leaves_torch_as_it_was():
    def state() -> tuple[Any, ...]:
        kind = torch.distributions.Distribution
        return (
            kind._validate_args,
            torch.compiler.is_compiling(),
            torch._C._get_mkldnn_enabled(),
            torch.is_grad_enabled(),
        )

    before = state()
    torch_network(Code(mixture), batch(3))
    assert state() == before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: x[x > 0].sum(), r"^Code uses x\[mask\] .* keep all elements and mask them"),
        (lambda m, x: torch.nonzero(x).sum(), "Code uses aten::nonzero, whose result is as large as the values"),
        (lambda m, x: torch.unique(x).sum(), "Code uses aten::_unique2"),
        (lambda m, x: x.tolist()[0][0] * x, "reads the values of a tensor"),
        (lambda m, x: x * torch.from_numpy(x.numpy()), "reads the values of a tensor"),
        (lambda m, x: torch.randn_like(x) + x, "Code draws random numbers even in evaluation mode"),
        (lambda m, x: torch.bernoulli(x), "Code draws random numbers even in evaluation mode"),
    ],
)
def test_what_depends_on_values_is_refused_by_name(function: Callable[..., Any], message: str):
    with pytest.raises(BadValue, match=message) as caught:
        torch_network(Code(function).eval(), torch.rand(2, 4))
    assert "\n" not in str(caught.value)
