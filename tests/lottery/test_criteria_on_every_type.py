"""Every registered criterion on networks of half, double and complex numbers: right, or one line of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery import find_ticket
from lottery.results.levels import Search
from lottery.trainers.gd.std import ESTIMATORS
from pruning.criteria import CRITERIA, get_criterion
from pruning.errors import BadValue
from pruning.jobs import Job, Trained
from pruning.mask import Mask
from tests.lottery.helpers import blobs
from tests.lottery.test_probes import job_of, prober

X, Y = (torch.from_numpy(array) for array in blobs(48))
NAMES = [entry.name for entry in CRITERIA]
# What is defined for real weights alone: the flow of absolute weights, and a second derivative by each weight.
REAL_ONLY = {"synflow", "taylor-second"}


class Waves(nn.Module):
    """6-5-3 of complex weights; sizes are classified."""

    def __init__(self, kind: torch.dtype = torch.complex64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 5, dtype=kind)
        self.weight = nn.Parameter(torch.randn(3, 5, dtype=kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.first(x.to(self.weight.dtype))) @ self.weight.t()).abs()


def reals(kind: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(kind)


def found(model: nn.Module, criterion: str, out: Any, **settings: Any) -> Search:
    settings = {"std_window": 1.0, "batch_size": 16, "steps": 4, "score_steps": 3, "score_rounds": 1, **settings}
    ticket = find_ticket(
        model, (X, Y), criterion=criterion, levels=1, tolerance=1.0, out=out, quiet=True, device="cpu", **settings
    )
    assert ticket.search is not None
    return ticket.search


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64], ids=["bfloat16", "float64"])
def test_real_networks_of_other_precisions(tmp_path, name, kind):
    search = found(reals(kind), name, tmp_path)
    assert search.levels[1].replicates[0].kept == round(45 * 0.8)


@pytest.mark.parametrize("name", NAMES)
def test_complex_networks(tmp_path, name):
    if name in REAL_ONLY:
        with pytest.raises(BadValue, match=r"one of real weights, and '(first\.)?weight' is complex; use") as refused:
            found(Waves(), name, tmp_path)
        assert "\n" not in str(refused.value)
    else:
        assert found(Waves(), name, tmp_path).levels[1].replicates[0].kept == round(45 * 0.8)


@pytest.mark.parametrize("std", ESTIMATORS)
def test_standard_deviations_of_complex_weights(tmp_path, std):
    assert found(Waves(), "snr", tmp_path, std=std, optimizer="adam").levels[1].replicates[0].kept == round(45 * 0.8)


class Halves(nn.Module):
    """`Waves`, with every complex weight as two real ones."""

    def __init__(self, waves: Waves) -> None:
        super().__init__()
        parts = {"first": waves.first.weight, "weight": waves.weight}
        self.real = nn.ParameterDict({name: nn.Parameter(part.detach().real.clone()) for name, part in parts.items()})
        self.imag = nn.ParameterDict({name: nn.Parameter(part.detach().imag.clone()) for name, part in parts.items()})
        self.bias = nn.Parameter(waves.first.bias.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = (torch.complex(self.real[name], self.imag[name]) for name in ("first", "weight"))
        return (torch.tanh(F.linear(x.to(first.dtype), first, self.bias)) @ second.t()).abs()


def job(model: nn.Module) -> Job:
    return job_of(model, Mask.dense({name: tuple(p.shape) for name, p in model.named_parameters() if p.ndim > 1}))


def looked_at(model: nn.Module, need: str) -> Mapping[str, Any]:
    return prober(model, X.double(), Y).look(job(model), 0.5, frozenset({need}))[need]


@pytest.mark.parametrize("need", ["gradients", "hessian_gradients", "fisher"])
def test_what_is_seen_of_a_complex_weight_is_what_is_seen_of_its_halves(need):
    waves = Waves(torch.complex128)
    whole, halves = looked_at(waves, need), looked_at(Halves(waves), need)
    for name, part in (("first.weight", "first"), ("weight", "weight")):
        np.testing.assert_allclose(whole[name], halves[f"real.{part}"] + 1j * halves[f"imag.{part}"], rtol=1e-6)


@pytest.mark.parametrize("name", ["snip", "taylor", "grasp", "fisher"])
def test_the_score_of_a_complex_weight_is_of_the_removal_of_both_halves(name):
    waves = Waves(torch.complex128)
    split = Halves(waves)
    criterion = get_criterion(name)
    (need,) = criterion.needs

    def scored(model: nn.Module) -> Mapping[str, Any]:
        given = job(model)
        return criterion.score(Trained(given.params, [], evidence={need: looked_at(model, need)}), given)

    whole, halves = scored(waves), scored(split)
    for full, part in (("first.weight", "first"), ("weight", "weight")):
        one, other = halves[f"real.{part}"], halves[f"imag.{part}"]
        if name in ("grasp", "fisher"):  # a sum over both
            np.testing.assert_allclose(whole[full], one + other, rtol=1e-6)
        else:  # of a sum over both, the size
            weight, slope = job(waves).params[full], looked_at(waves, need)[full]
            along = np.real(np.conj(slope) * weight) ** (2 if name == "taylor" else 1)
            np.testing.assert_allclose(whole[full], np.abs(along), rtol=1e-6)
            assert not np.allclose(whole[full], np.abs(one) + np.abs(other))
