"""An evolved network is measured again by PyTorch: a translation that does not hold for its weights is an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import lottery.trainers.es.check
import lottery.trainers.es.setup
from es.network import Network
from es.population.interpreter import RULES
from es.population.values import Members
from es.translation.functions import torch_network
from lottery import Data, find_ticket
from pruning.errors import RunError
from tests.lottery.helpers import blobs

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
RIGHT: Any = RULES["tanh"]
TINY = {"trainer": "es", "generations": 6, "population": 8, "batch_size": 32, "levels": 1, "tolerance": 1.0}


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def wrong_after_training(outputs: Any, by: Any) -> Any:
    """A translation that is right for the first weights, and off by a little more than rounding for all others."""

    def translated(module: nn.Module, example: Any) -> Network:
        right = torch_network(module, example)
        name, first = next(iter(module.named_parameters()))
        before = jnp.asarray(first.detach().numpy())

        def apply(params: Any, inputs: Any) -> Any:
            moved = jnp.any(params[name] != before)
            return jax.tree.map(lambda out: jnp.where(moved, outputs(out, by), out), right.apply(params, inputs))

        return replace(right, apply=apply)

    return translated


def search(tmp_path, data: Any = DATA, model: Any = net, **settings: Any) -> Any:
    return find_ticket(model, data, out=tmp_path, **(TINY | settings)).search


def test_the_loss_of_another_network_is_an_error_and_nothing_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(lottery.trainers.es.setup, "torch_network", wrong_after_training(jnp.multiply, 1.02))
    with pytest.raises(RunError, match=r"a validation loss of [\d.]+ at generation 6 .* PyTorch gives [\d.]+"):
        search(tmp_path)
    assert not list(tmp_path.glob("*/seed-*/level-*/config.json"))


def test_the_message_has_both_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(
        lottery.trainers.es.setup, "torch_network", wrong_after_training(jnp.add, np.array([3, 0, 0], np.float32))
    )
    with pytest.raises(RunError) as caught:
        search(tmp_path)
    words = str(caught.value)
    recorded, measured = (float(words.split(before)[1].split()[0]) for before in (" loss of ", "PyTorch gives "))
    assert recorded != measured
    assert "\n" not in words


def wrong_at(batch: int) -> Any:
    """A rule for a whole population that holds for every batch size but one."""

    def rule(context: Any, equation: Any, operands: Any) -> Any:
        result = RIGHT(context, equation, operands)
        assert isinstance(result, Members)
        return replace(result, data=result.data + 0.1) if result.shape[0] == batch else result

    return rule


def bent(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("replicates", [1, 2])  # alone, and stacked
def test_a_population_that_is_wrong_at_one_batch_size_is_an_error_in_the_first_generation(
    tmp_path, monkeypatch, replicates
):
    monkeypatch.setitem(RULES, "tanh", wrong_at(32))
    with pytest.raises(
        RunError, match=r"for a member of generation 1 on 32 examples .* PyTorch gives [\d.]+"
    ) as caught:
        search(tmp_path / "wrong", model=bent, replicates=replicates)
    assert "\n" not in str(caught.value) and "population of 8 is wrong at that size" in str(caught.value)
    assert not list(tmp_path.glob("wrong/*/seed-*/level-*/config.json"))
    assert search(tmp_path / "right", model=bent, replicates=replicates, batch_size=16).levels[1].kept


def test_every_level_has_a_program_that_is_compared(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        lottery.trainers.es.check._Examples,
        "compare",
        lambda self, params, key, loss, generation: seen.append(generation),
    )
    search(tmp_path, model=bent)
    assert seen == [1, 1, 1, 1]  # two members each of levels 0 and 1


def test_batches_that_are_kept_are_compared_as_they_are(tmp_path, monkeypatch):
    def spread(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - outputs.mean(0)) ** 2).mean() + (targets * 0.0).mean()

    x, y = blobs(96)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), 16)
    data = Data(train=loader, validation=(x[:32], y[:32]))
    assert search(tmp_path / "right", data, bent, loss=spread, metric="loss").levels[1].kept
    monkeypatch.setitem(RULES, "tanh", lambda *given: replace(RIGHT(*given), data=RIGHT(*given).data * 1.1))
    with pytest.raises(RunError, match="of generation 1 on 16 examples"):
        search(tmp_path / "wrong", data, bent, loss=spread, metric="loss")


def test_a_loss_that_hangs_on_a_rounding_is_no_gap(tmp_path, monkeypatch):
    """Of such a network nobody knows the loss to a thousandth, except at weights of zero, where it begins."""

    class Rough(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            outputs = super().forward(input)
            return outputs + torch.sin(1e7 * outputs)

    def make(seed: int) -> nn.Module:
        model = Rough(6, 3)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        return model

    monkeypatch.setattr(lottery.trainers.es.check._Examples, "confirm", lambda self, params, point: None)
    assert search(tmp_path, model=make).levels[1].kept


def test_a_right_translation_passes_for_every_kind_of_label(tmp_path):
    x, y = blobs(96)
    for labels, outputs in ((y, 3), (y.astype(np.float32), 1), (y == 1, 1)):

        def make(seed: int, outputs: int = outputs) -> nn.Module:
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, outputs))

        assert search(tmp_path, Data(train=(x, labels), validation=(x[:30], labels[:30])), make).levels[1].kept


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_model_of_another_precision_passes(tmp_path, kind):
    assert search(tmp_path, model=lambda: net().to(kind)).levels[1].kept


def test_a_policy_is_compared_on_observations(tmp_path, monkeypatch):
    episodes = {"episodes": 1, "episode_steps": 5, "test_episodes": 2, "tolerance": 500.0, "population": 4}
    assert search(tmp_path / "right", "gymnax:CartPole-v1", None, **episodes).levels[1].kept
    monkeypatch.setattr(lottery.trainers.es.setup, "torch_network", wrong_after_training(jnp.multiply, 1.1))
    with pytest.raises(RunError, match=r"evolution recorded an output of .* and PyTorch gives"):
        search(tmp_path / "wrong", "gymnax:CartPole-v1", lambda: nn.Linear(4, 2), **episodes)
