"""The data diet: scores by hand, exact counts, training examples only."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, find_ticket
from lottery.data.parts import Parts, Tensors, prepare
from lottery.networks.sources.choosing import model_source
from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.search.data_scores import DATA_SCORES, data_score
from lottery.search.data_scores.el2n import el2n
from lottery.search.data_scores.grand import grand
from lottery.search.frame.diet import keep_examples, network_seeds, with_data_diet
from lottery.settings.config import SearchConfig
from lottery.studies.reopening import reopen
from lottery.trainers import Ask
from lottery.trainers.gd.config import GDConfig
from pruning.disk.files import read_json
from pruning.errors import BadValue, DataError, UnknownName
from pruning.mask import Mask
from pruning.watch import Silent
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model
from tests.lottery.test_compiled_steps import mlp

SETTINGS = {"data_diet": 0.5, "data_diet_networks": 2}


def dieted(data=None, model=tiny_model, seed=0, gd=None, **settings) -> Parts:
    config = SearchConfig(seed=seed, **(SETTINGS | settings))
    parts = prepare(data or Data(train=blobs(60), validation=blobs(30, seed=1)), 0)
    source = model_source(model, parts, "model")
    found = with_data_diet(
        Ask(source, parts, gd or GDConfig(steps=20, batch_size=16), None, None, Silent(), seed), config
    )
    assert isinstance(found.parts, Parts)
    return found.parts


def inputs_of(parts: object) -> np.ndarray:
    assert isinstance(parts, Parts) and isinstance(parts.train, Tensors)
    return parts.train.inputs.numpy()


def some_examples(n=12, features=5, classes=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, features, generator=generator), torch.arange(n) % classes


def test_the_examples_of_a_run_do_not_depend_on_what_the_machine_would_compute_faster(monkeypatch):
    """A run that goes on where the rates of the machine are measured anew has the examples that it was begun with."""

    def compiled(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("lottery.trainers.gd.trainer.train_side_by_side", compiled)
    assert len(inputs_of(dieted(model=mlp))) == 30


class TestScores:
    def test_el2n_of_a_network_that_knows_nothing(self):
        zero = nn.Linear(5, 10)
        nn.init.zeros_(zero.weight)
        nn.init.zeros_(zero.bias)
        x, y = some_examples(classes=10)
        np.testing.assert_allclose(el2n([zero], x, y), np.full(12, math.sqrt(0.81 + 9 * 0.01)), rtol=1e-6)
        assert el2n([zero], x, y)[0].round(6) == 0.948683

    def test_el2n_of_sure_networks(self):
        sure = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            sure.weight.copy_(1000 * torch.eye(2))
        x = torch.eye(2)
        assert el2n([sure], x, torch.tensor([0, 0])).tolist() == [0.0, math.sqrt(2)]

    def test_grand_of_a_linear_layer_with_a_bias(self):
        torch.manual_seed(0)
        layers = [nn.Linear(5, 4) for _ in range(3)]
        x, y = some_examples()
        length = (x.square().sum(1) + 1).sqrt().numpy()
        np.testing.assert_allclose(grand(layers, x, y), el2n(layers, x, y) * length, rtol=1e-5)

    @pytest.mark.parametrize("entry", list(DATA_SCORES), ids=lambda entry: entry.name)
    def test_every_score_is_the_mean_over_networks_without_a_trace(self, entry):
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4)) for _ in range(2)]
        x, y = some_examples()
        before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
        both = entry.value(models, x, y, ())
        alone = [entry.value([model], x, y, ()) for model in models]
        assert both.shape == (12,) and both.dtype == np.float64
        np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, rtol=1e-9)
        for model, state in zip(models, before, strict=True):
            assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
            assert all(p.grad is None for p in model.parameters())

    def test_grand_is_what_autograd_gives_where_the_transform_cannot_follow(self):
        class Branching(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(5, 4), nn.Linear(5, 4)

            def forward(self, x):
                return self.a(x) if float(x.sum()) > 0 else self.b(x)

        torch.manual_seed(0)
        model = Branching()
        x, y = some_examples()
        expected = []
        for example, label in zip(x, y, strict=True):
            loss = F.cross_entropy(model(example[None]), label[None])
            grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
            expected.append(math.sqrt(sum(float(g.double().square().sum()) for g in grads if g is not None)))
        np.testing.assert_allclose(grand([model], x, y), expected, rtol=1e-5)

    def test_grand_leaves_removed_and_frozen_weights_out(self):
        torch.manual_seed(0)
        layer = nn.Linear(5, 4)
        x, y = some_examples()
        nothing = Mask({"weight": np.zeros((4, 5))})
        np.testing.assert_allclose(grand([layer], x, y, [nothing]), el2n([layer], x, y), rtol=1e-5)
        layer.weight.requires_grad_(False)
        np.testing.assert_allclose(grand([layer], x, y), el2n([layer], x, y), rtol=1e-5)

    def test_labels_and_outputs_that_do_not_fit_are_one_clear_line(self):
        x, y = some_examples()
        with pytest.raises(DataError, match="one integer label"):
            el2n([nn.Linear(5, 4)], x, y.float())
        with pytest.raises(DataError, match="logits"):
            grand([nn.Unflatten(1, (5, 1))], x, y)
        with pytest.raises(DataError, match="3 outputs"):
            el2n([nn.Linear(5, 3)], x, y)


class TestDiet:
    @pytest.mark.parametrize("fraction", [0.1, 0.34, 0.5, 0.99])
    def test_keeps_exactly_the_fraction_in_the_original_order(self, fraction):
        x, _ = blobs(60)
        kept = inputs_of(dieted(data_diet=fraction))
        assert len(kept) == round(fraction * 60)
        positions = [int(np.flatnonzero((x == row).all(1))[0]) for row in kept]
        assert positions == sorted(set(positions))

    def test_hard_and_easy_halves_are_complements(self):
        hard, easy = (inputs_of(dieted(data_diet_keep=keep)) for keep in ("hard", "easy"))
        assert len({row.tobytes() for row in (*hard, *easy)}) == 60

    def test_ties_go_by_position(self):
        scores = np.array([1.0, 2.0, 1.0, 1.0, 0.0])
        assert keep_examples(scores, 3, "hard").tolist() == [0, 1, 2]
        assert keep_examples(scores, 3, "easy").tolist() == [0, 2, 4]

    def test_wrong_labels_are_hard(self):
        x, y = blobs(60)
        wrong = y.copy()
        wrong[:6] = (wrong[:6] + 1) % 3
        data = Data(train=(x, wrong), validation=blobs(30, seed=1))
        kept = inputs_of(dieted(data, data_diet=0.2, data_diet_steps=150))
        assert sum((kept == row).all(1).any() for row in x[:6]) >= 5

    def test_the_same_seed_keeps_the_same_examples_and_another_one_others(self):
        torch.manual_seed(1)
        one = inputs_of(dieted())
        before = torch.random.get_rng_state()
        two = inputs_of(dieted())
        assert torch.equal(torch.random.get_rng_state(), before)
        assert np.array_equal(one, two)
        assert not np.array_equal(one, inputs_of(dieted(seed=1)))
        assert len({*network_seeds(0, 10), *network_seeds(1, 10)}) == 20

    def test_validation_and_test_examples_neither_decide_nor_change(self):
        x, y = blobs(30, seed=1)
        one = dieted(Data(train=blobs(60), validation=(x, y), test=(x, y)))
        two = dieted(Data(train=blobs(60), validation=(x * np.float32(1e30), (y + 1) % 3)))
        assert np.array_equal(inputs_of(one), inputs_of(two))
        assert isinstance(one.validation, Tensors) and isinstance(one.test, Tensors)
        assert np.array_equal(one.validation.inputs, x) and np.array_equal(one.test.inputs, x)

    def test_a_single_class_may_be_left(self, tmp_path):
        x, _ = blobs(60)
        labels = np.where(np.arange(60) < 54, 0, np.arange(60) % 3)
        ticket = find_ticket(
            tiny_model, Data(train=(x, labels), validation=blobs(30)), out=tmp_path, levels=1, steps=20, batch_size=16,
            tolerance=1.0, data_diet_keep="easy", **SETTINGS,
        )  # fmt: skip
        assert ticket.info["train_examples"] == 30

    def test_no_diet_changes_nothing(self):
        assert len(inputs_of(dieted(data_diet=None))) == 60

    def test_evolution_gets_the_diet_of_default_gradient_descent(self):
        from es.config import ESConfig

        assert np.array_equal(inputs_of(dieted(gd=ESConfig())), inputs_of(dieted(gd=GDConfig())))

    def test_grand_at_initialization_warns_and_names_the_norm_of_the_inputs(self):
        with pytest.warns(UserWarning, match=r"did not reproduce \(Kirsch 2023.*rank correlation here 0\.\d\d"):
            dieted(data_diet_score="grand", data_diet_steps=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dieted(data_diet_score="grand")
            dieted(data_diet_steps=0)

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"data_diet": 50}, BadValue, "data_diet must be more than 0 and less than 1"),
            ({"data_diet": 0.001}, BadValue, "leaves none of 60"),
            ({"data_diet_keep": "hrad"}, UnknownName, "did you mean 'hard'"),
            ({"data_diet_score": "eln2"}, UnknownName, "did you mean 'el2n'"),
            ({"data_diet_networks": 0}, BadValue, "data_diet_networks must be 1 or more"),
        ],
    )
    def test_wrong_settings_are_one_clear_line(self, settings, error, message):
        with pytest.raises(error, match=message):
            dieted(**settings)

    def test_data_that_cannot_be_scored_is_one_clear_line(self):
        x, y = blobs(60)
        with pytest.raises(DataError, match="one integer label"):
            dieted(Data(train=(x, x[:, :1]), validation=(x, x[:, :1])))
        loader = DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=16)
        with pytest.raises(DataError, match="DataLoader"):
            dieted(Data(train=loader, validation=loader))
        with pytest.raises(DataError, match="environment"):
            find_ticket(data="gymnax:CartPole-v1", trainer="es", data_diet=0.5)
        pair = ({"w": np.zeros((6, 3), np.float32)}, lambda params, inputs: inputs @ params["w"])
        with pytest.raises(BadValue, match="this model is in JAX: leave data_diet out"):
            dieted(model=pair)


def test_a_search_on_a_diet_is_another_run_and_says_how_many_examples_it_learned_from(tmp_path):
    common = {"levels": 1, "steps": 20, "batch_size": 16, "tolerance": 1.0, "replicates": 2, "out": tmp_path}
    data = Data(train=blobs(60), validation=blobs(30, seed=1))
    full, half = (find_ticket(tiny_model, data, **common, **diet) for diet in ({}, SETTINGS))
    assert (full.info["train_examples"], half.info["train_examples"]) == (60, 30)
    assert full.search is not None and half.search is not None
    assert full.search.run != half.search.run
    assert read_json(half.search.run / "config.json")["data_diet"] == 0.5
    one, two = RunDirectory(full.search.run), RunDirectory(half.search.run)
    assert len(inputs_of(reopen(half.search.run, Given(tiny_model, data))[1].ask.parts)) == 30
    # The same networks in the same order of everything random, on other examples.
    assert_same_arrays(one.read_rewound(1, 0), two.read_rewound(1, 0))
    assert one.read_history(1, 0) != two.read_history(1, 0)


def test_a_score_is_registered_by_a_name_of_its_own(monkeypatch):
    monkeypatch.setattr(DATA_SCORES, "_entries", {entry.name: entry for entry in DATA_SCORES})

    def last_first(models, inputs, targets, masks):
        """The later, the harder."""
        return np.arange(len(targets), dtype=np.float64)

    assert data_score("last-first", source="nobody")(last_first) is last_first
    assert DATA_SCORES["last-first"].value is last_first
    assert DATA_SCORES["last-first"].summary == "The later, the harder"
    with pytest.raises(BadValue, match="'el2n' is registered twice"):
        data_score("el2n", source="nobody")(last_first)
