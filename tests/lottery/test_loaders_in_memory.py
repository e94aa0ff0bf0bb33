"""Evolution reads loaders into memory; where it matters which examples share a batch, they stay together."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from es.tasks.supervised import KeptBatches
from lottery import Data, find_ticket
from lottery.data.parts import Loader, Parts
from lottery.networks.objectives.objective import objective_for
from lottery.networks.sources.source import ModelSource
from lottery.trainers.es.loaders import in_memory, measure_in_torch
from pruning.errors import BadValue, DataError

BATCH = 4
ES: dict[str, Any] = {"trainer": "es", "generations": 2, "population": 8, "levels": 1, "tolerance": 1e6, "quiet": True}


class Pairs(nn.Module):
    """Every pair of a batch is compared, so that there are as many outputs as examples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = F.normalize(self.body(x), dim=-1)
        return made @ made.t()


class Centred(nn.Module):
    """Inputs are centred by the mean of their batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(6, BATCH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x - x.mean(0))


class OfFour(nn.Module):
    """Takes four examples, no more and no fewer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.place = nn.Linear(6, BATCH), nn.Parameter(torch.randn(BATCH, BATCH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.place


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, BATCH)


def loader(count: int = 22, seed: int = 0, batch_size: int = BATCH) -> DataLoader[Any]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=draw)
    return DataLoader(TensorDataset(x, torch.arange(count) % BATCH), batch_size=batch_size)


def data() -> Data:
    return Data(train=loader(), validation=loader(seed=1), test=loader(6, seed=2))


def kept(make: Any, train: DataLoader[Any]) -> KeptBatches | None:
    parts = Parts(Loader(train), Loader(loader(seed=1, batch_size=3)), None, "examples")
    loaded = in_memory(parts, 0)
    objective = objective_for(loaded.parts.example[1], None, None)
    return loaded.kept(measure_in_torch(ModelSource("model", lambda seed: make(), varies=False), 0, objective))


def test_each_example_counts_for_itself_and_minibatches_are_drawn_from_all():
    assert kept(plain, loader()) is None


@pytest.mark.parametrize("make", [Pairs, Centred])
def test_what_looks_at_the_whole_batch_keeps_the_batches_of_every_loader(make):
    assert kept(make, loader()) == KeptBatches(BATCH, 3, BATCH)


@pytest.mark.parametrize("make", [Pairs, Centred])
def test_the_metric_is_that_of_the_loaders_batches(make, tmp_path):
    ticket = find_ticket(make(), data(), out=tmp_path, **ES)
    model = ticket.trained(make()).eval()
    hits = [(model(x).argmax(1) == y).sum().item() for x, y in loader(seed=1)]
    assert ticket.info["validation"] == pytest.approx(sum(hits) / 22, abs=1e-6)


def test_a_model_of_jax_that_looks_at_the_whole_batch_keeps_it_too(tmp_path):
    def apply(params: Any, x: Any) -> Any:
        return (x - x.mean(0)) @ params["w"]

    params = {"w": jnp.asarray(torch.randn(6, BATCH, generator=torch.Generator().manual_seed(0)).numpy())}
    ticket = find_ticket((params, apply), data(), out=tmp_path, **ES)
    assert ticket.trained_params is not None
    hits = [(apply(ticket.trained_params, x.numpy()).argmax(1) == y.numpy()).sum() for x, y in loader(seed=1)]
    assert ticket.info["validation"] == pytest.approx(sum(hits) / 22, abs=1e-6)


def test_batches_of_different_sizes_are_refused_where_they_must_stay_together():
    odd = DataLoader(loader(12).dataset, batch_sampler=[[0, 1, 2], [3, 4, 5, 6], [7, 8]])  # type: ignore[arg-type]
    assert kept(plain, odd) is None
    with pytest.raises(DataError, match="different sizes: evolution needs one batch_size"):
        kept(Centred, odd)


def test_a_network_of_one_batch_size_evolves_where_all_batches_have_it(tmp_path):
    whole = Data(train=loader(20), validation=loader(12, seed=1), test=loader(8, seed=2))
    assert find_ticket(OfFour(), whole, out=tmp_path / "whole", **ES).info["level"] == 1
    with pytest.raises(BadValue, match="OfFour .*size of tensor"):
        find_ticket(OfFour(), data(), out=tmp_path / "cut", **ES)
    assert not list((tmp_path / "cut").rglob("level-*"))
