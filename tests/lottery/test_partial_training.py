"""Partial training: named parameters are trained, all others keep their bits, and pruning goes on as usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from es.trainer import ESTrainer
from lottery import Data, find_ticket
from lottery.networks.trainable import NAMED, trainable_names
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.optimizers.named import OPTIMIZERS
from pruning.errors import BadValue, UnknownName
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, removed, tiny_model
from tests.lottery.test_evolving import jax_pair, net
from tests.lottery.test_gd_trainer import half_mask, ready, train

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
# What each choice trains in 6-8-3 with a batch norm (`tiny_model`).
CHOICES = {
    ("norm",): {"1.weight", "1.bias"},
    ("biases",): {"0.bias", "1.bias", "4.bias"},
    ("all-but-first",): {"1.weight", "1.bias", "4.weight", "4.bias"},
    ("4.*",): {"4.weight", "4.bias"},
    ("norm", "*.weight"): {"0.weight", "1.weight", "1.bias", "4.weight"},
    (): {"0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"},
}


class Various(nn.Module):
    """A normalization layer of every kind, biases of every name, a frozen layer, an embedding before the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 4)
        self.rnn = nn.GRU(4, 4)
        self.norms = nn.ModuleList(
            [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.BatchNorm1d(4, affine=False)]
        )
        self.out = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 2).requires_grad_(False)


class TestNames:
    @pytest.mark.parametrize("wanted", CHOICES)
    def test_every_choice_means_these_parameters(self, wanted):
        model = tiny_model()
        names = trainable_names(model, wanted)
        assert set(names) == CHOICES[wanted]
        assert names == [name for name, _ in model.named_parameters() if name in names]

    def test_named_sets_in_a_network_of_many_kinds(self):
        model = Various()
        norms = ["norms.0.weight", "norms.0.bias", "norms.1.weight", "norms.1.bias", "norms.2.weight"]
        assert trainable_names(model, ["norm"]) == norms
        assert trainable_names(model, ["biases"]) == [
            "rnn.bias_ih_l0", "rnn.bias_hh_l0", "norms.0.bias", "norms.1.bias", "out.bias",
        ]  # fmt: skip
        # The first layer with a prunable tensor is the GRU; what comes before it is trained.
        assert trainable_names(model, ["all-but-first"]) == ["embed.weight", *norms, "out.weight", "out.bias"]

    def test_a_pattern_that_matches_nothing_names_the_nearest(self):
        with pytest.raises(UnknownName, match=r"train_only: '4\.wieght' matches no tensor \(closest: 4\.weight.*"):
            trainable_names(tiny_model(), ["4.wieght"])
        with pytest.raises(UnknownName, match="named sets: norm"):
            trainable_names(tiny_model(), ["norms"])
        with pytest.raises(UnknownName, match="matches no tensor"):
            trainable_names(Various(), ["frozen.*"])

    def test_a_named_set_that_is_empty_is_an_error(self):
        with pytest.raises(BadValue, match="train_only 'norm': the model has no such parameter"):
            trainable_names(nn.Linear(2, 1), ["norm"])
        with pytest.raises(BadValue, match="train_only 'biases'"):
            trainable_names(nn.Linear(2, 1, bias=False), ["biases"])
        with pytest.raises(BadValue, match="train_only 'all-but-first'"):
            trainable_names(nn.Linear(2, 1), ["all-but-first"])

    @pytest.mark.parametrize("trainer", ["gd", "es"])
    def test_a_wrong_name_is_an_error_before_anything_is_written(self, tmp_path, trainer):
        with pytest.raises(UnknownName, match="train_only"):
            find_ticket(net, DATA, trainer=trainer, train_only=["fc*"], out=tmp_path / "runs")
        assert not (tmp_path / "runs").exists()


class TestGradientDescent:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("wanted", CHOICES)
    def test_the_others_keep_their_bits(self, wanted, optimizer):
        settings: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
        settings |= {"optimizer": optimizer, "weight_decay": 0.1, "clip_norm": 1.0, "lr": 0.01}
        setup, source = ready(train_only=wanted, **settings)
        mask, start = half_mask(source.build(0)), source.initial_state(0)
        end = train(setup, source, mask).params
        masked = mask.apply(start)
        others = [name for name in start if name not in CHOICES[wanted] | STATISTICS]
        assert_same_arrays({n: end[n] for n in others}, {n: masked[n] for n in others})
        for name in CHOICES[wanted]:
            alive = mask[name] if name in mask else np.ones(end[name].shape, bool)
            # Not all of them: a hidden unit may have lost all its outputs.
            assert (end[name] != start[name])[alive].mean() > 0.5
        assert (removed(mask, end) == 0).all()
        # Running statistics are no parameters: they follow the data.
        assert end["1.num_batches_tracked"] == 30 and (end["1.running_mean"] != start["1.running_mean"]).all()

    def test_naming_every_parameter_is_naming_none(self):
        one, two = (train(*ready(train_only=wanted)) for wanted in ((), ("*",)))
        assert_same_arrays(one.params, two.params)

    @pytest.mark.parametrize("criterion", ["magnitude", "snr"])
    def test_pruning_goes_on_as_usual(self, tmp_path, criterion):
        found = find_ticket(
            tiny_model, DATA, criterion=criterion, train_only=["norm"], levels=2, steps=20, batch_size=16, out=tmp_path,
            tolerance=1.0, prune_rate=0.5,
        ).search  # fmt: skip
        assert found is not None
        run = RunDirectory(found.run)
        assert [run.read_mask(0, level).counts().keys() for level in range(3)] == [{"0.weight", "4.weight"}] * 3
        assert [level.kept for level in found.levels] == [72, 36, 18]
        start = run.read_rewound(0, 0)
        for level in (1, 2):
            mask, trained = run.read_mask(0, level), run.read_trained(0, level)
            assert mask.issubset(run.read_mask(0, level - 1))
            for name, keep in mask.items():
                assert (trained.params[name] == np.where(keep, start[name], 0)).all()
                # Curvature says something of a weight whether it is trained or not.
                assert trained.std is None or (trained.std[name][keep] < 1e4).any()

    def test_an_estimator_of_what_training_changes_is_refused(self):
        with pytest.raises(BadValue, match="std 'swag' says nothing of weights that train_only leaves alone"):
            GDConfig(train_only=("norm",), std="swag")


class TestEvolution:
    def search(self, tmp_path, model: Any = net, **settings):
        defaults = {"trainer": "es", "generations": 2, "population": 4, "batch_size": 16, "eval_every": 2, "levels": 1}
        return find_ticket(model, DATA, **(defaults | {"tolerance": 1.0, "out": tmp_path} | settings)).search

    def test_only_named_parameters_are_evolved(self, tmp_path):
        names = {"1.weight", "1.bias", "3.weight", "3.bias"}
        found = self.search(tmp_path, train_only=["all-but-first"], rewind="1")
        assert found is not None
        run = RunDirectory(found.run)
        assert [level.kept for level in found.levels] == [72, 58]
        for level in (0, 1):
            mask, trained = run.read_mask(0, level), run.read_trained(0, level)
            start = mask.apply(dict(run.read_rewound(0, level)))
            others = [name for name in start if name not in names]
            for params in (trained.params, *trained.snapshots.values()):
                assert_same_arrays({n: params[n] for n in others}, {n: start[n] for n in others})
            for name in names:
                alive = mask[name] if name in mask else np.ones(start[name].shape, bool)
                assert (trained.params[name] != start[name])[alive].all()

    def test_a_jax_pair_has_names_and_no_layers(self, tmp_path):
        request = Request(Given(jax_pair, DATA), {"trainer": "es", "train_only": ["output.*"]}, out=tmp_path)
        prepared = prepare_search(request, Silent())
        assert isinstance(prepared.frame.setup.trainer, ESTrainer)
        assert prepared.frame.setup.trainer.space.names == ("output.0", "output.1")
        assert list(prepared.frame.dense[0]) == ["hidden.kernel", "output.0"]
        with pytest.raises(BadValue, match="train_only 'norm' looks at the layers of a PyTorch module"):
            self.search(tmp_path, model=jax_pair, train_only=["norm"])

    def test_weights_that_are_not_evolved_have_no_standard_deviation(self, tmp_path):
        with pytest.raises(BadValue, match="criterion 'snr': train_only leaves weights alone"):
            self.search(tmp_path, criterion="snr", train_only=["norm"])


def test_the_callers_model_can_still_be_trained():
    model = tiny_model()
    train(*ready(model, train_only=("norm",)))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(NAMED) == {"norm", "biases", "all-but-first"} and torch.is_grad_enabled()
