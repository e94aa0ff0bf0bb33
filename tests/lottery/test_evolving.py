"""Evolution in a search: the same promises, models of every kind, and tickets that change their trainer."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, Ticket, find_ticket, train_ticket
from lottery.cli.app import run
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_replicate
from lottery.settings.config import SearchConfig
from lottery.settings.ladder import ladder
from pruning.disk.files import read_tensors
from pruning.errors import BadValue, DataError, Diverged, FileFormatError, MaskMismatch, NothingToPrune, UnknownName
from pruning.mask import Mask
from pruning.torch_modules import prunable
from tests.lottery.helpers import assert_promises, assert_same_arrays, blobs, removed
from tests.lottery.test_resume import ENVIRONMENT, bits

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY = {"trainer": "es", "generations": 6, "population": 8, "batch_size": 32, "levels": 2, "tolerance": 1.0}
ES = ["--trainer", "es", "--generations", "6", "--population", "8", "--set", "tolerance=1.0"]


def net(seed: int = 0) -> nn.Module:
    """6-8-3 with a batch norm, whose statistics stay frozen."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def jax_pair(seed: int = 0):
    """The same shape of network in plain JAX, a nested pytree."""
    rng = np.random.Generator(np.random.PCG64(seed))
    params = {
        "hidden": {"kernel": rng.standard_normal((6, 8), np.float32), "bias": np.zeros(8, np.float32)},
        "output": [rng.standard_normal((8, 3), np.float32) / 3, np.zeros(3, np.float32)],
    }

    def apply(tree, x):
        return jnp.tanh(x @ tree["hidden"]["kernel"] + tree["hidden"]["bias"]) @ tree["output"][0] + tree["output"][1]

    return params, apply


def search(tmp_path, model: Any = net, data: Any = DATA, **settings):
    found = find_ticket(model, data, out=tmp_path, **(TINY | settings)).search
    assert found is not None
    return found


class TestPromises:
    @pytest.mark.parametrize(("criterion", "scope", "rewind"), [("snr", "global", "0"), ("magnitude", "layer", "3")])
    def test_every_search_keeps_them(self, tmp_path, criterion, scope, rewind):
        found = search(tmp_path, criterion=criterion, scope=scope, rewind=rewind, replicates=2, mean_decay=0.01)
        run = RunDirectory(found.run)
        sizes = {name: int(np.prod(shape)) for name, shape in prunable(net()).items()}
        targets = ladder(SearchConfig(scope=scope, levels=2), sizes)
        for seed, level in itertools.product((0, 1), range(3)):
            points = run.read_trained(seed, 0).snapshots[3] if rewind == "3" else run.read_rewound(seed, 0)
            assert_promises(run, seed, level, targets[level], points)

    def test_the_same_search_gives_the_same_bits(self, tmp_path):
        one, two = (RunDirectory(search(tmp_path / n, criterion="snr", replicates=2).run) for n in "ab")
        assert one.path.name == two.path.name
        for seed, level in itertools.product((0, 1), range(3)):
            assert one.read_mask(seed, level) == two.read_mask(seed, level)
            assert_same_arrays(one.read_trained(seed, level).params, two.read_trained(seed, level).params)
            assert one.read_history(seed, level) == two.read_history(seed, level)

    def test_test_data_never_influences_a_choice(self, tmp_path):
        x, y = blobs(30, seed=2)
        other = Data(train=DATA.train, validation=DATA.validation, test=(x, (y + 1) % 3))
        one, two = (RunDirectory(search(tmp_path / n, data=d).run) for n, d in (("a", DATA), ("b", other)))
        assert_same_arrays(one.read_trained(0, 2).params, two.read_trained(0, 2).params)
        assert one.read_record(0, 2)["test"] != two.read_record(0, 2)["test"]

    def test_a_finished_search_trains_nothing_and_leaves_no_checkpoint(self, tmp_path):
        first = search(tmp_path)
        assert not list(first.run.glob("checkpoint*"))
        began = time.perf_counter()
        again = search(tmp_path)
        assert again.levels == first.levels
        assert time.perf_counter() - began < 20


class TestOneMaskForBothWorlds:
    def test_an_evolved_network_has_the_same_loss_in_torch(self, tmp_path):
        found = search(tmp_path, criterion="snr")
        ticket = Ticket.load(found.levels[2].replicates[0].path)
        model = ticket.trained(net).eval()
        x, y = (torch.as_tensor(a) for a in blobs(30, seed=1))
        with torch.no_grad():
            loss = F.cross_entropy(model(x), y).item()
        assert loss == pytest.approx(found.levels[2].replicates[0].history[-1].validation_loss, abs=1e-5)

    def test_a_ticket_found_by_gradient_descent_is_evolved_and_the_other_way_round(self, tmp_path):
        by_gd = find_ticket(net, DATA, levels=2, steps=20, tolerance=1.0, out=tmp_path)
        by_es = Ticket.load(search(tmp_path).levels[2].replicates[0].path)
        settings = {"generations": 6, "population": 8, "batch_size": 32}
        evolved = train_ticket(by_gd, net, DATA, settings={"trainer": "es", **settings}, out=tmp_path)
        descended = train_ticket(by_es, net, DATA, settings={"trainer": "gd", "steps": 20}, out=tmp_path)
        for found, ticket in ((evolved, by_gd), (descended, by_es)):
            run = RunDirectory(found.run)
            assert run.read_mask(0, 0) == ticket.mask
            assert_same_arrays(run.read_rewound(0, 0), dict(ticket.params))
            trained = run.read_trained(0, 0).params
            assert (removed(ticket.mask, trained) == 0).all()
            assert not np.array_equal(trained["0.weight"], ticket.mask.apply(ticket.params)["0.weight"])

    def test_a_ticket_does_not_fit_another_model(self, tmp_path):
        ticket = Ticket.load(search(tmp_path, levels=1).levels[1].replicates[0].path)
        with pytest.raises(MaskMismatch, match="shape"):
            train_ticket(
                ticket, lambda: nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)), DATA
            )

    def test_training_again_keeps_the_split_that_the_mask_was_learned_on(self, tmp_path):
        whole = Data(train=blobs(120), test=blobs(30, seed=2))
        ticket = Ticket.load(search(tmp_path, data=whole, levels=1, seed=3, split_seed=4).levels[1].replicates[0].path)
        again = train_ticket(ticket, net, whole, settings={"seed": 7}, out=tmp_path)
        assert (again.config["split_seed"], again.config["seed"]) == (4, 7)
        assert [r.seed for r in again.levels[0].replicates] == [7]

    def test_training_again_does_not_prune(self, tmp_path):
        ticket = Ticket.load(search(tmp_path, levels=1).levels[1].replicates[0].path)
        with pytest.raises(BadValue, match="levels prunes, and training a ticket again does not"):
            train_ticket(ticket, net, DATA, settings={"levels": 3})
        with pytest.raises(BadValue, match="its data has no name; say which with data="):
            train_ticket(ticket, net)


class TestModels:
    def test_a_jax_pair(self, tmp_path):
        found = search(tmp_path, jax_pair, criterion="snr", replicates=2)
        mask = RunDirectory(found.run).read_mask(1, 2)
        assert set(mask) == {"hidden.kernel", "output.0"}
        assert mask.metadata["framework"] == "jax"
        ticket = Ticket.load(found.levels[2].replicates[1].path)
        params, apply = ticket.rewound(jax_pair(1))
        assert np.array_equal(params["hidden"]["kernel"], jax_pair(1)[0]["hidden"]["kernel"] * mask["hidden.kernel"])
        trained, _ = ticket.trained(jax_pair(0))
        x, y = blobs(30, seed=1)
        hits = (np.asarray(apply(trained, x)).argmax(1) == y).mean()
        assert hits == pytest.approx(ticket.info["validation"])
        again = train_ticket(ticket, jax_pair, DATA, settings={"strategy": "pgpe"}, out=tmp_path)
        assert RunDirectory(again.run).read_mask(0, 0) == mask

    def test_tickets_of_one_jax_network_are_trained_apart(self, tmp_path):
        """Regression: a run was known by the network's weights and not by its mask."""
        found = search(tmp_path, jax_pair)
        tickets = [Ticket.load(found.levels[n].replicates[0].path) for n in (1, 2)]
        again = [train_ticket(ticket, jax_pair, DATA, out=tmp_path) for ticket in tickets]
        assert [one.levels[0].kept for one in again] == [ticket.mask.kept for ticket in tickets]

    def test_an_equinox_module_with_names_that_look_like_patterns(self, tmp_path):
        eqx = pytest.importorskip("equinox")

        def make(seed):
            module = eqx.nn.MLP(6, 3, 8, 1, key=jax.random.key(seed))
            tree = {"net[0]": module, "net0": jnp.ones((3, 3))}
            return tree, lambda held, x: jax.vmap(held["net[0]"])(x) @ held["net0"]

        found = search(tmp_path, make)
        names = {"net[0].layers.0.weight", "net[0].layers.1.weight", "net0"}
        ticket = Ticket.load(found.levels[2].replicates[0].path)
        assert set(ticket.mask) == names
        assert RunDirectory(train_ticket(ticket, make, DATA, out=tmp_path).run).read_mask(0, 0) == ticket.mask

    def test_a_model_of_another_precision(self, tmp_path):
        found = search(tmp_path, lambda: net().double(), levels=1)
        assert RunDirectory(found.run).read_trained(0, 1).params["0.weight"].dtype == np.float64

    def test_one_pair_has_one_initialization(self, tmp_path):
        search(tmp_path, jax_pair(3))
        with pytest.raises(BadValue, match="2 replicates need a callable"):
            search(tmp_path, jax_pair(3), replicates=2)

    def test_a_jax_pair_cannot_descend(self, tmp_path):
        with pytest.raises(BadValue, match="this model is in JAX: use trainer 'es'"):
            find_ticket(jax_pair, DATA, out=tmp_path)

    def test_integer_only_parameters_leave_nothing_to_prune(self, tmp_path):
        with pytest.raises(NothingToPrune):
            search(tmp_path, ({"w": np.ones((6, 3), np.int32)}, lambda tree, x: x @ tree["w"]))

    def test_a_stochastic_layer_in_training_mode(self, tmp_path, capsys):
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        search(tmp_path, model)
        assert "evaluation mode: 1 (Dropout) draw no random numbers there" in capsys.readouterr().err
        assert model.training
        model.eval()[1].train()
        with pytest.raises(BadValue, match="1 \\(Dropout\\) was left in training mode"):
            search(tmp_path, model)

    def test_what_jax_has_not_is_named(self, tmp_path):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(6, 3)

            def forward(self, x):
                return torch.special.airy_ai(self.fc(x))

        with pytest.raises(BadValue, match="airy_ai"):
            search(tmp_path, Odd())


class TestData:
    def test_a_loader_is_read_once(self, tmp_path):
        x, y = (torch.as_tensor(a) for a in blobs(96))
        loader = DataLoader(TensorDataset(x, y), 16)
        found = search(tmp_path, data=Data(train=loader, validation=blobs(30, seed=1)), levels=1)
        assert found.levels[1].test is None

    def test_the_order_of_a_shuffling_loader_follows_from_the_seed(self, tmp_path):
        """Regression: it followed from torch's global generator."""
        x, y = (torch.as_tensor(a) for a in blobs(96))
        runs = []
        for n in range(2):
            torch.manual_seed(n)
            loader = DataLoader(TensorDataset(x, y), 16, shuffle=True)
            data = Data(train=loader, validation=blobs(30, seed=1))
            runs.append(RunDirectory(search(tmp_path / str(n), data=data, levels=1).run))
        assert_same_arrays(runs[0].read_trained(0, 1).params, runs[1].read_trained(0, 1).params)

    def test_labels_of_a_loader_are_checked(self, tmp_path):
        x, y = (torch.as_tensor(a) for a in blobs(96))
        loader = DataLoader(TensorDataset(x, y - 1), 16)
        with pytest.raises(DataError, match="training labels out of range: the smallest is -1"):
            search(tmp_path, data=Data(train=loader, validation=blobs(30, seed=1)))

    def test_regression_and_an_own_metric(self, tmp_path):
        x, y = blobs(96)
        data = Data(train=(x, y.astype(np.float32)), validation=(x[:30], y[:30].astype(np.float32)))

        def worst(outputs, targets):
            return (outputs.squeeze(1) - targets).abs().max()

        def one(seed=0):
            return nn.Linear(6, 1)

        found = search(tmp_path, one, data, levels=1, metric=worst, tolerance=100.0)
        assert found.metric == "worst"
        assert search(tmp_path, one, data, levels=1, tolerance=100.0).metric == "mse"

    @pytest.mark.parametrize("labels", [np.arange(96) % 5, np.arange(96) % 3 - 1])
    def test_labels_that_the_outputs_cannot_name(self, tmp_path, labels):
        with pytest.raises(DataError, match="labels out of range"):
            search(tmp_path, data=Data(train=(blobs(96)[0], labels)))

    def test_a_model_that_does_not_fit(self, tmp_path):
        with pytest.raises((DataError, BadValue), match="mat1 and mat2"):
            search(tmp_path, nn.Linear(5, 3))


class TestControl:
    def test_a_search_in_an_environment(self, tmp_path):
        found = search(
            tmp_path,
            None,
            "gymnax:CartPole-v1",
            criterion="snr",
            levels=1,
            episodes=2,
            episode_steps=20,
            tolerance=500.0,
        )
        assert found.metric == "reward" and not found.is_fraction and found.higher_is_better
        reward = found.levels[1].test
        assert reward is not None and 0 < reward <= 20
        ticket = Ticket.load(found.levels[1].replicates[0].path)
        assert ticket.trained_params is not None and ticket.trained_params["observations.count"] > 0
        assert ticket.params["observations.count"] == 0  # rewound with the weights
        again = train_ticket(ticket, settings={"strategy": "pgpe"}, out=tmp_path)
        assert again.config["data"] == "gymnax:CartPole-v1" and again.config["episodes"] == 2

    def test_gradients_need_examples(self, tmp_path):
        with pytest.raises(BadValue, match="gymnax:CartPole-v1 is an environment: use trainer 'es'"):
            find_ticket(None, "gymnax:CartPole-v1", out=tmp_path)

    def test_a_policy_must_fit_its_environment(self, tmp_path):
        with pytest.raises(DataError, match="takes 2 outputs for an observation, and the model gives \\[3\\]"):
            search(tmp_path, lambda: nn.Linear(4, 3), "gymnax:CartPole-v1")
        assert not list(tmp_path.iterdir())

    def test_the_reward_is_the_metric(self, tmp_path):
        with pytest.raises(BadValue, match="brings its own measure, the reward"):
            search(tmp_path, None, "gymnax:CartPole-v1", loss=F.cross_entropy)


class TestStrategies:
    def test_a_scalar_strategy_is_refused_for_snr_before_anything_is_written(self, tmp_path):
        with pytest.raises(BadValue, match=r"criterion 'snr': strategy 'open-es' samples with one .* snes"):
            search(tmp_path, criterion="snr", strategy="open-es")
        assert not list(tmp_path.iterdir())
        search(tmp_path, criterion="magnitude", strategy="open-es")

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"strategy": "sness"}, UnknownName, "did you mean 'snes'"),
            ({"strategy_params": {"temprature": 3}}, UnknownName, "did you mean 'temperature'"),
            ({"strategy": "pgpe", "population": 7}, BadValue, "pairs its members and needs an even population"),
            ({"sigma": 0}, BadValue, "sigma must be more than 0"),
            ({"steps": 3}, UnknownName, "unknown setting 'steps'"),
            ({"precision": "double"}, UnknownName, "unknown precision"),
            ({"device": "cuda:9"}, ValueError, "device 'cuda:9'"),
            ({"mean_decay": 1.0}, BadValue, "mean_decay must be less than 1, not 1.0"),
        ],
    )
    def test_wrong_settings(self, tmp_path, settings, error, message):
        with pytest.raises(error, match=message):
            search(tmp_path, **settings)
        assert not list(tmp_path.iterdir())

    def test_a_population_without_a_finite_loss(self, tmp_path):
        def broken(outputs, targets):
            return (outputs * float("nan")).sum()

        with pytest.raises(Diverged, match="no member of the population had a finite loss in generation 1"):
            search(tmp_path, loss=broken)


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))

    def test_transfer_both_ways(self, capsys):
        assert run(["prune", *ES, "--criterion", "snr", "--levels", "1", "--quiet"]) == 0
        evolved = capsys.readouterr().out.strip()
        assert run(["prune", "--levels", "1", "--steps", "30", "--set", "tolerance=1.0", "--quiet"]) == 0
        descended = capsys.readouterr().out.strip()
        assert run(["train", evolved, "--trainer", "gd", "--steps", "30", "--json", "--quiet"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["levels"][0]["kept"] == 5171 and found["from"] == evolved
        assert run(["train", descended, *ES]) == 0
        out = capsys.readouterr().out
        assert "Trained with es (snes) on digits: 80.00 % of the weights" in out
        assert "Found with gd on digits" in out
        path = next(line for line in out.splitlines() if line.startswith("Ticket: ")).removeprefix("Ticket: ")
        assert Mask.load(Path(path) / "mask.safetensors") == Mask.load(Path(descended) / "mask.safetensors")
        assert run(["train", evolved, "--strategy", "pgpe", "--generations", "4", "--quiet"]) == 0
        record = json.loads((Path(capsys.readouterr().out.strip()) / "config.json").read_text())
        assert (record["config"]["strategy"], record["config"]["population"]) == ("pgpe", 8)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["prune", "--trainer", "es", "--strategy", "sep_cma_es"], "did you mean 'sep-cma-es'"),
            (["prune", "--trainer", "es", "--data", "gymnax:CartPol-v1"], "did you mean 'CartPole-v1'"),
            (["prune", "--data", "gymnax:CartPole-v1"], "use trainer 'es'"),
            (["prune", "--trainer", "es", "--strategy", "cma-es", "--set", "population=64"], "GiB"),
            (["train", "nothing"], "nothing: no such ticket directory"),
        ],
    )
    def test_wrong_commands(self, capsys, arguments, message):
        assert run(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err and len(captured.err.splitlines()) == 1

    def test_strategies_and_environments_are_listed(self, capsys):
        assert run(["list", "strategies", "--json"]) == 0
        items = json.loads(capsys.readouterr().out)["items"]
        assert {"snes", "sep-cma-es", "pgpe"} <= {item["name"] for item in items}
        assert all(item["summary"] and item["source"] for item in items)

    def test_an_environment_that_is_not_installed(self, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "gymnax", None)
        assert run(["prune", "--trainer", "es", "--data", "gymnax:CartPole-v1"]) == 2
        assert "pip install 'lottery-tickets[gymnax]'" in capsys.readouterr().err


COMMAND = [sys.executable, "-m", "lottery", "prune", "--trainer", "es", "--criterion", "snr", "--generations", "150"]
COMMAND += ["--population", "16", "--levels", "1", "--replicates", "2", "--set", "checkpoint_seconds=0", "--json"]


def _generation(path):
    """How far a checkpoint of level 1 is; 0 for one of level 0, or one that is gone again."""
    try:
        arrays, _ = read_tensors(path)
    except FileFormatError:
        return 0
    dims = arrays["state/.strategy.mean"].shape[-1]
    return int(arrays["state/.generation"][0]) if dims < 6000 else 0


@pytest.mark.timeout(900)  # three searches, each with its own compilations, on whatever cores are left
def test_killed_within_a_level_it_goes_on_from_its_checkpoint(tmp_path):
    def start(folder):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(
            [*COMMAND, "--quiet"],
            cwd=folder,
            # programs as users get them: their bits are what is promised
            env={**ENVIRONMENT, **os.environ, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"], "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = start(tmp_path / "b")
    # Within level 1: what is kept there must outlive the reading of level 0 (regression). However slow the machine is,
    # a process that is not there yet is waited for.
    while killed.poll() is None:
        first = list((tmp_path / "b").glob("runs/digits*/seed-1/level-00"))
        if first and any(_generation(p) > 0 for p in (tmp_path / "b").glob("runs/digits*/checkpoint-*.safetensors")):
            break
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    _, err = killed.communicate()
    assert not list((tmp_path / "b").glob("runs/digits*/seed-1/level-01")), "it was too fast to be killed"
    assert max(map(_generation, (tmp_path / "b").glob("runs/digits*/checkpoint-*.safetensors")), default=0) > 0, err
    undisturbed, resumed = start(tmp_path / "a"), start(tmp_path / "b")
    out, err = undisturbed.communicate()
    assert undisturbed.returncode == 0, err
    again, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert json.loads(again)["levels"] == json.loads(out)["levels"]
    assert bits(tmp_path / "b") == bits(tmp_path / "a")
    assert not list((tmp_path / "b").glob("runs/digits*/checkpoint-*"))


def test_a_replicate_that_is_missing_beside_a_finished_one_is_taken_from_the_last_checkpoint(tmp_path, monkeypatch):
    """Killed between the two directories of a level that was evolved as one stack: the same bits all the same."""
    import lottery.search.levels.progress

    whole = search(tmp_path / "a", replicates=2, levels=1)
    with monkeypatch.context() as killed:
        killed.setattr(lottery.search.levels.progress, "clear_checkpoints", lambda folder: None)
        cut = search(tmp_path / "b", replicates=2, levels=1)
    for path in (cut.run / "seed-1" / "level-01").iterdir():
        path.unlink()
    (cut.run / "seed-1" / "level-01").rmdir()
    search(tmp_path / "b", replicates=2, levels=1)
    one, other = RunDirectory(whole.run), RunDirectory(cut.run)
    assert_same_arrays(one.read_trained(1, 1).params, other.read_trained(1, 1).params)
    assert read_replicate(one, 1, 1).history == read_replicate(other, 1, 1).history
