"""Tickets: found, saved, loaded, put into models; and files that nobody should trust."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lottery import Data, Ticket, find_ticket
from lottery.runs.reading import read_search
from pruning.errors import (
    BadValue,
    Diverged,
    FileFormatError,
    MaskMismatch,
    NothingToPrune,
    NoWinningTicket,
    UnknownName,
    UsageError,
)
from pruning.mask import Mask
from tests.lottery.helpers import as_an_earlier_version_wrote_it, assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SETTINGS = {"levels": 2, "steps": 24, "batch_size": 16, "tolerance": 1.0}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return find_ticket(tiny_model(5), DATA, out=tmp_path_factory.mktemp("runs"), **SETTINGS)


def test_a_ticket_says_what_it_is(found):
    text = str(found)
    assert "64.81 % of 72 weights" in text or "% of 72 weights" in text
    assert "validation accuracy" in text and "dense" in text and str(found.path) in text
    assert "3 levels, 1 replicate" in text
    assert found.search is not None and len(found.search.levels) == 3


def test_rewound_is_the_callers_initialization_masked_and_ready_to_train(found):
    model = tiny_model(5)
    rewound = found.rewound(tiny_model(99))
    for name, keep in found.mask.items():
        weight = rewound.get_parameter(name).detach().numpy()
        assert np.array_equal(weight[keep], model.get_parameter(name).detach().numpy()[keep])
        assert (weight[~keep] == 0).all()
    nn.functional.cross_entropy(rewound(torch.ones(4, 6)), torch.zeros(4, dtype=torch.long)).backward()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_a_rewound_model_stays_masked_in_any_plain_training_loop(found, optimizer):
    model = found.rewound(lambda seed: tiny_model(seed))
    options = {"momentum": 0.9} if optimizer in ("SGD", "RMSprop") else {}
    steps = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05, weight_decay=0.1, **options)
    x, y = (torch.from_numpy(a) for a in blobs(60))
    for _ in range(10):
        steps.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        steps.step()
    for name, keep in found.mask.items():
        weight = model.get_parameter(name).detach().numpy()
        assert (weight[~keep] == 0).all()
        assert (weight[keep] != found.params[name][keep]).all()


def test_trained_reaches_the_reported_metric(found):
    trained = found.trained(tiny_model(99)).eval()
    x, y = (torch.from_numpy(a) for a in blobs(30, seed=2))
    assert (trained(x).argmax(1) == y).float().mean().item() == pytest.approx(found.info["test"])


def test_the_callers_model_is_never_changed(tmp_path):
    model = tiny_model(5).eval()
    before = copy.deepcopy(model.state_dict())
    ticket = find_ticket(model, DATA, out=tmp_path, **SETTINGS)
    ticket.rewound(model)
    ticket.trained(model)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_save_and_load_give_the_same_bits(found, tmp_path):
    saved = found.save(tmp_path / "deep" / "ticket")
    loaded = Ticket.load(tmp_path / "deep" / "ticket")
    assert loaded.mask == found.mask == saved.mask
    assert_same_arrays(loaded.params, found.params)
    assert_same_arrays(loaded.trained_params, found.trained_params)
    assert loaded.info == found.info and loaded.path == tmp_path / "deep" / "ticket"
    loaded.save(tmp_path / "deep" / "ticket")
    assert "Lottery ticket" in (tmp_path / "deep" / "ticket" / "README.md").read_text()


def test_the_ticket_trains_in_jax_from_the_same_mask(found):
    """One mask for both worlds: a torch mask applied in JAX removes the same weights."""
    import jax.numpy as jnp

    masked = found.mask.apply({name: jnp.asarray(value) for name, value in found.params.items()})
    for name, keep in found.mask.items():
        assert np.array_equal(np.asarray(masked[name]), np.where(keep, found.params[name], 0))


def test_wrapped_models_are_understood(found):
    wrapped = nn.DataParallel(tiny_model(1))
    assert "0.weight" in dict(found.rewound(wrapped).named_parameters())
    compiled = torch.compile(tiny_model(1))
    assert "0.weight" in dict(found.rewound(compiled).named_parameters())
    assert found.rewound(tiny_model)


def test_a_model_already_pruned_by_torch_starts_from_its_mask(tmp_path):
    model = tiny_model(5)
    prune.random_unstructured(model[0], "weight", amount=20)  # pyright: ignore[reportIndexIssue]
    ticket = find_ticket(model, DATA, out=tmp_path, **SETTINGS)
    assert ticket.search is not None
    assert [level.kept for level in ticket.search.levels] == [52, 42, 33]
    assert ticket.search.levels[0].density == pytest.approx(52 / 72)
    assert prune.is_pruned(model)
    half = find_ticket(model, DATA, out=tmp_path, steps=24, batch_size=16, tolerance=1.0, sparsity=0.5)
    assert half.mask.kept == 36


def test_a_callable_that_makes_pruned_models_keeps_their_masks(tmp_path):
    def make():
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        prune.random_unstructured(model[0], "weight", amount=20)
        return model

    ticket = find_ticket(make, DATA, out=tmp_path, replicates=2, **SETTINGS)
    assert ticket.search is not None
    assert [level.kept for level in ticket.search.levels] == [52, 42, 33]


def test_a_pruned_bias_is_refused_in_words(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.random_unstructured(model[0], "bias", amount=2)
    with pytest.raises(BadValue, match=r"'0.bias' was pruned by torch.nn.utils.prune and is not prunable here"):
        find_ticket(model, DATA, out=tmp_path, **SETTINGS)


def test_a_ticket_without_trained_weights_says_so(found, tmp_path):
    found.save(tmp_path / "bare")
    bare = dataclasses.replace(found, trained_params=None).save(tmp_path / "bare")
    with pytest.raises(UsageError, match="no trained weights"):
        Ticket.load(bare.path or "").trained(tiny_model())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(6, 3), "no tensor '0.bias' .closest: bias"),
        (lambda: nn.Sequential(nn.Linear(6, 9), *tiny_model().children()), "no tensor"),
        (lambda: 3, "expected a torch.nn.Module"),
    ],
)
def test_a_model_that_does_not_fit_is_an_error(found, model, message):
    with pytest.raises(MaskMismatch, match=message):
        found.rewound(model)


class TestHostileDirectories:
    @pytest.fixture
    def path(self, found, tmp_path):
        found.save(tmp_path / "ticket")
        return tmp_path / "ticket"

    def test_a_missing_directory(self, tmp_path):
        with pytest.raises(FileFormatError, match="no such ticket"):
            Ticket.load(tmp_path / "nothing")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "mask.safetensors", "trained.safetensors"])
    def test_a_truncated_or_pickled_file(self, path, name):
        content = (path / name).read_bytes()
        for bad in (content[: len(content) // 2], b"", b"\x80\x04cbuiltins\nprint\n(S'pwned'\ntR."):
            (path / name).write_bytes(bad)
            with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
                Ticket.load(path)

    def test_a_run_directory_is_not_a_ticket(self, found):
        with pytest.raises(FileFormatError, match="a run directory, not a ticket"):
            Ticket.load(found.search.run)
        with pytest.raises(FileFormatError, match="a ticket directory, not a run"):
            read_search(found.path)

    @pytest.mark.parametrize("config", [[], {}, {"kind": "dataset"}, {"kind": "lottery-ticket"}])
    def test_a_foreign_config(self, path, config):
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(FileFormatError, match=r"config\.json"):
            Ticket.load(path)

    def test_files_of_different_tickets(self, path, tmp_path):
        other = find_ticket(nn.Linear(6, 3), DATA, out=tmp_path, **SETTINGS)
        assert other.path is not None
        shutil.copy(other.path / "trained.safetensors", path)
        with pytest.raises(FileFormatError, match="trained.safetensors: not what was written"):
            Ticket.load(path)
        as_an_earlier_version_wrote_it(path)
        with pytest.raises(FileFormatError, match="different tensors"):
            Ticket.load(path)

    def test_a_mask_that_is_not_of_these_weights(self, found, tmp_path):
        dataclasses.replace(found, mask=Mask({"weight": np.ones((3, 6))})).save(tmp_path / "put-together")
        with pytest.raises(MaskMismatch, match="no tensor 'weight' .closest: .*0.weight"):
            Ticket.load(tmp_path / "put-together")


class TestFindTicket:
    def test_no_winner_is_an_error_that_carries_the_search(self, tmp_path):
        with pytest.raises(NoWinningTicket, match="raise `tolerance` to accept more") as caught:
            find_ticket(nn.Linear(6, 3), DATA, densities=[0.2], steps=60, tolerance=0.0, metric=rank, out=tmp_path)
        assert len(caught.value.search.levels) == 2  # pyright: ignore

    def test_a_diverging_search_is_an_error(self, tmp_path):
        with pytest.raises(Diverged, match="every replicate diverged"):
            find_ticket(tiny_model(), DATA, optimizer="sgd", lr=1e38, steps=10, out=tmp_path)

    def test_a_model_with_nothing_to_prune(self, tmp_path):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(3))

            def forward(self, x):
                return x[:, :3] * self.scale

        with pytest.raises(NothingToPrune):
            find_ticket(Scale(), DATA, out=tmp_path)

    def test_a_criterion_may_be_a_function_and_another_body_is_another_run(self, tmp_path):
        def by(sign):
            def score(trained, job):
                return {name: sign * trained.params[name] for name in job.mask}

            return score

        one, two = (find_ticket(tiny_model(1), DATA, criterion=by(s), out=tmp_path, **SETTINGS) for s in (1, -1))
        assert one.mask != two.mask
        assert one.info["criterion"] == "score"

    def test_a_criterion_that_cannot_work_is_an_error_before_anything_is_trained(self, tmp_path):
        with pytest.raises(BadValue, match="criterion 'broken' cannot score this model .*shape"):
            find_ticket(tiny_model(1), DATA, criterion=broken, out=tmp_path, **SETTINGS)
        assert not list(tmp_path.iterdir())

    def test_replicates_need_a_callable(self, tmp_path):
        with pytest.raises(BadValue, match="a callable that makes the model from a seed"):
            find_ticket(tiny_model(), DATA, replicates=2, out=tmp_path)

    def test_unknown_settings_and_names(self, tmp_path):
        with pytest.raises(UnknownName, match="did you mean 'replicates'"):
            find_ticket(tiny_model(), DATA, replicate=2, out=tmp_path)  # pyright: ignore[reportCallIssue]
        with pytest.raises(UnknownName, match="did you mean 'magnitude'"):
            find_ticket(tiny_model(), DATA, criterion="magnitud", out=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_config_beats_recipe_and_keywords_beat_config(self, tmp_path):
        (tmp_path / "c.toml").write_text("steps = 20\nlr = 0.5\n")
        ticket = find_ticket(
            tiny_model(),
            DATA,
            recipe="frankle2019-lenet-quick",
            config=tmp_path / "c.toml",
            lr=0.01,
            levels=1,
            tolerance=1.0,
            replicates=1,
            out=tmp_path,
        )
        config = ticket.info["config"]
        assert (config["steps"], config["lr"], config["batch_size"], config["model"]) == (20, 0.01, 60, "Sequential")

    def test_other_data_or_another_initialization_is_another_run(self, tmp_path):
        runs = {
            find_ticket(model, data, out=tmp_path, **SETTINGS).search.run  # pyright: ignore
            for model in (tiny_model(1), tiny_model(2))
            for data in (DATA, Data(train=blobs(96, seed=9), validation=blobs(30)))
        }
        assert len(runs) == 4

    def test_another_network_of_the_same_weights_is_another_run(self, tmp_path):
        def network(activation, frozen=False):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 3))
            model[0].requires_grad_(not frozen)
            return model

        models = [network(nn.ReLU()), network(nn.Tanh()), network(nn.ReLU(), frozen=True)]
        runs = {find_ticket(model, DATA, out=tmp_path, **SETTINGS).search.run for model in models}  # pyright: ignore
        assert len(runs) == 3

    def test_the_same_call_trains_nothing_again(self, tmp_path):
        one = find_ticket(tiny_model(1), DATA, out=tmp_path, **SETTINGS)
        two = find_ticket(tiny_model(1), DATA, out=tmp_path, **SETTINGS)
        assert one.path == two.path
        assert one.search is not None and two.search is not None
        assert one.search.seconds == two.search.seconds

    def test_learning_from_a_callable_with_replicates_and_early_stop(self, tmp_path):
        ticket = find_ticket(tiny_model, DATA, replicates=3, measure_at="early-stop", out=tmp_path, **SETTINGS)
        assert ticket.search is not None
        for level in ticket.search.levels:
            assert len({r.seed for r in level.replicates}) == 3
            for replicate in level.replicates:
                assert replicate.early_stop is not None
                assert replicate.validation == replicate.early_stop.validation
                lowest = min(replicate.history, key=lambda point: point.validation_loss or 0)
                assert replicate.early_stop.step == lowest.step
                assert replicate.final_validation == replicate.history[-1].validation


def broken(trained, job):
    """Forgets an axis."""
    return {name: trained.params[name].sum(0) for name in job.mask}


def rank(outputs, targets):
    """Smaller networks are always worse."""
    return outputs.std()
