"""A stored result comes back for the same experiment and for no other; and when it does, it is said."""

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lottery import Data, find_ticket
from lottery.data.file_stamps import cached_digest, file_stamps
from lottery.data.parts import prepare
from lottery.networks.objectives.metric import Metric
from lottery.runs.directory import RunDirectory, open_run
from lottery.runs.given import Given
from lottery.runs.identity import Identity
from lottery.runs.reading import read_search
from lottery.runs.replicates import groups_of, join
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.state.behaviour import agree, described
from lottery.state.identity import identify, module_identity
from pruning.errors import ConfigMismatch, FileFormatError
from pruning.watch import Silent
from tests.lottery.helpers import blobs

X, Y = (torch.from_numpy(array) for array in blobs(60))
ROOT = Path(__file__).parents[2]
QUICK: dict[str, Any] = {"levels": 1, "steps": 4, "tolerance": 1.0, "quiet": True}


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


NET = net()


def identity(model: Any = NET, data: Any = (X, Y), loss: Any = None, metric: Any = None, **settings: Any) -> Identity:
    request = Request(Given(model, data, loss, metric), {"levels": 1, "steps": 4, **settings})
    return prepare_search(request, Silent()).identity


def same(one: Identity, other: Identity) -> bool:
    return one.settings == other.settings and agree(one.behaviour, other.behaviour)


class Labelled(Dataset[Any]):
    """Labels that are computed when an item is asked for."""

    def __init__(self, flipped: int | None = None):
        self.flipped = flipped

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return X[index], int(Y[index]) if index != self.flipped else (int(Y[index]) + 1) % 3


class Scaled:
    """A collate function whose setting is private."""

    def __init__(self, by: float):
        self._by = by

    def __call__(self, items):
        inputs, targets = default_collate(items)
        return inputs * self._by, targets


class Focal:
    """A loss whose setting is private."""

    def __init__(self, gamma: float):
        self._gamma = gamma

    def __call__(self, outputs, targets):
        one = F.cross_entropy(outputs, targets, reduction="none")
        return ((1 - torch.exp(-one)) ** self._gamma * one).mean()


def loaded(dataset: Any = None, **options: Any) -> Data:
    dataset = TensorDataset(X, Y) if dataset is None else dataset
    return Data(train=DataLoader(dataset, 10, **options), validation=(X[:20], Y[:20]))


class TestData:
    """Read whole, in the order in which training sees it."""

    @pytest.mark.parametrize(
        "other",
        [
            lambda: loaded(sampler=SubsetRandomSampler(range(30, 60))),
            lambda: loaded(sampler=WeightedRandomSampler([1e-6] * 59 + [1.0], 60)),
            lambda: loaded(Subset(TensorDataset(X, Y), range(50))),
            lambda: loaded(collate_fn=Scaled(0.5)),
            lambda: loaded(Labelled(flipped=41)),
            lambda: loaded(drop_last=True, batch_sampler=None, shuffle=True),
            lambda: Data(train=DataLoader(TensorDataset(X, Y), 10), validation=(X[:21], Y[:21])),
            lambda: Data(train=DataLoader(TensorDataset(X, Y), 10), validation=DataLoader(Labelled(flipped=3), 10)),
        ],
    )
    def test_another_sampler_item_label_or_collation_is_another_experiment(self, other):
        assert not same(identity(data=loaded()), identity(data=other()))

    @pytest.mark.parametrize("made", [loaded, lambda: loaded(shuffle=True), lambda: loaded(Labelled())])
    def test_the_same_loader_made_again_is_the_same(self, made):
        assert same(identity(data=made()), identity(data=made()))

    def test_folds_of_a_cross_validation_are_runs_of_their_own(self, tmp_path):
        def fold(rest, held):
            everything = TensorDataset(X, Y)
            return Data(
                train=DataLoader(everything, 10, sampler=SubsetRandomSampler(rest)),
                validation=DataLoader(everything, 10, sampler=SubsetRandomSampler(held)),
            )

        folds = [fold(range(40), range(40, 60)), fold(range(20, 60), range(20))]
        paths = {find_ticket(NET, data, out=tmp_path, **QUICK).path for data in folds}
        assert len(paths) == 2

    def test_reading_a_loader_leaves_all_random_state_alone(self):
        before = torch.random.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
        prepare(loaded(shuffle=True), 0).fingerprint()
        after = torch.random.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
        assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


class TestFilesOfData:
    """A pass over files is kept under their sizes and times."""

    class Images(Dataset[Any]):
        def __init__(self, folder: Path, count: int):
            self.samples = [(str(folder / f"{index}.txt"), index % 3) for index in range(count)]
            self.read = 0

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            self.read += 1
            path, label = self.samples[index]
            return torch.tensor([float(Path(path).read_text())]), label

    def made(self, folder: Path, count: int) -> Images:
        folder.mkdir(exist_ok=True)
        for index in range(count):
            if not (folder / f"{index}.txt").exists():
                (folder / f"{index}.txt").write_text(str(index))
        return self.Images(folder, count)

    def fingerprint(self, dataset: Images) -> str:
        dataset.read = 0
        return prepare(Data(train=DataLoader(dataset, 250), validation=(X[:5, :1], Y[:5])), 0).train.fingerprint()

    def test_unchanged_files_are_not_read_again_and_changed_ones_are(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        folder = tmp_path / "images"
        first = self.made(folder, 1000)
        known = self.fingerprint(first)
        assert first.read == 1000
        again = self.made(folder, 1000)
        assert self.fingerprint(again) == known and again.read == 0
        (folder / "7.txt").write_text("70000")
        changed = self.made(folder, 1000)
        assert self.fingerprint(changed) != known and changed.read == 1000

    def test_a_hash_of_files_is_read_once_and_one_of_numbers_every_time(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        read = iter(["first", "second", "third", "fourth"])
        files, numbers = DataLoader(self.made(tmp_path / "images", 1000)), DataLoader(TensorDataset(torch.arange(9)))
        assert [cached_digest(files, lambda: next(read)) for _ in range(2)] == ["first", "first"]
        assert [cached_digest(numbers, lambda: next(read)) for _ in range(2)] == ["second", "third"]

    def test_a_data_set_that_names_no_file_for_every_item_is_read(self, tmp_path):
        (tmp_path / "labels.csv").write_text("…")
        listed = self.made(tmp_path / "few", 10)
        assert file_stamps(listed) is None
        partly = Labelled()
        partly.table = str(tmp_path / "labels.csv")  # pyright: ignore[reportAttributeAccessIssue]
        assert file_stamps(partly) is None

    def test_whatever_lies_in_the_place_of_the_cache_is_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / "cache" / "lottery-tickets").mkdir(parents=True)
        cache = tmp_path / "cache" / "lottery-tickets" / "data.json"
        dataset = self.made(tmp_path / "images", 1000)
        fingerprints = set()
        for content in ("[1, 2]", '{"a": 3}', "{", ""):
            cache.write_text(content)
            fingerprints.add(self.fingerprint(dataset))
        assert len(fingerprints) == 1


def bound(thing: Any) -> Any:
    return thing.__call__


class TestCode:
    """Attributes, methods, globals and private settings are part of what a thing is."""

    def test_an_activation_or_a_configuration_on_the_module(self):
        class Settings:
            def __init__(self, scale):
                self._scale = scale

        class Net(nn.Module):
            def __init__(self, activation, settings=None):
                super().__init__()
                torch.manual_seed(0)
                self.fc, self.activation, self.settings = nn.Linear(6, 3), activation, settings

            def forward(self, x):
                return self.activation(self.fc(x))

        models = [Net(torch.relu), Net(torch.tanh), Net(torch.relu, Settings(1.0)), Net(torch.relu, Settings(2.0))]
        assert len({module_identity(model) for model in models}) == 4
        assert module_identity(Net(torch.relu, Settings(1.0))) == module_identity(models[2])

    def test_hooks_and_attributes_of_the_class(self):
        class Net(nn.Module):
            gain = 1.0

            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.fc = nn.Linear(6, 3)

            def forward(self, x):
                return self.gain * self.fc(x)

        plain, hooked = Net(), Net()
        hooked.fc.register_forward_hook(lambda *given: given[-1] + 1.0)
        names = {module_identity(plain), module_identity(hooked)}
        Net.gain = 3.0
        assert len({*names, module_identity(Net())}) == 3

    @pytest.mark.parametrize("private", [Scaled, Focal])
    def test_private_attributes_of_callables_and_of_what_their_methods_are_bound_to(self, private):
        assert identify(private(1.0)) == identify(private(1.0)) != identify(private(2.0))
        assert identify(bound(private(1.0))) != identify(bound(private(2.0)))
        assert identify(functools.partial(private(1.0))) != identify(functools.partial(private(2.0)))

    def test_globals_of_a_cell_that_is_run_again(self):
        space: dict[str, Any] = {"F": F, "__name__": "__main__"}
        cell = "SCALE = {}\ndef scaled(x): return x * SCALE\ndef loss(o, t): return F.cross_entropy(scaled(o), t)"
        found = []
        for value in (1.0, 1.0, 2.0):
            exec(cell.format(value), space)
            found.append(identify(space["loss"]))
        assert found[0] == found[1] != found[2]

    def test_a_metric_s_closure_counts(self):
        def above(threshold):
            return Metric("above", lambda outputs, targets: (outputs[:, 0] > threshold).float().mean())

        assert not same(identity(metric=above(0.0)), identity(metric=above(0.1)))
        assert same(identity(metric=above(0.1)), identity(metric=above(0.1)))

    def test_generators_count_by_their_state(self):
        assert identify(random.Random(1)) == identify(random.Random(1)) != identify(random.Random(2))
        made = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
        assert identify(made[0]) == identify(made[1]) != identify(made[2])
        assert identify(np.random.default_rng(1)) != identify(np.random.default_rng(2))

    def test_what_a_jax_function_closes_over(self):
        class Policy:
            def __init__(self, gain):
                self._gain = gain

            def apply(self, params, x):
                return params["w"] @ x * self._gain

        def noisy(key):
            return lambda params, x: params["w"] @ x + jax.random.normal(key)

        assert identify(Policy(1.0).apply) == identify(Policy(1.0).apply) != identify(Policy(2.0).apply)
        keys = [identify(noisy(jax.random.key(seed))) for seed in (0, 0, 1)]
        assert keys[0] == keys[1] != keys[2]
        old = [identify(jax.jit(noisy(jax.random.PRNGKey(seed)))) for seed in (0, 0, 1)]
        assert old[0] == old[1] != old[2]

    def test_methods_and_helper_modules_that_are_edited_between_two_runs(self, tmp_path):
        (tmp_path / "main.py").write_text(
            "import torch, nets\nfrom pruning.watch import Silent\n"
            "from lottery.runs.given import Given\n"
            "from lottery.search.preparing.preparing import Request, prepare_search\n"
            "data = torch.arange(60.).reshape(20, 3), torch.arange(20) % 2\n"
            "found = prepare_search(Request(Given(nets.Net(), data), {'steps': 2, 'levels': 1}), Silent()).identity\n"
            "print(sorted(found.settings.items()))\n"
        )
        net = (
            "import torch, helpers\nfrom torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n"
            "        super().__init__(); torch.manual_seed(0); self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)\n"
            "    def features(self, x):\n        return torch.{}(self.a(x)) * helpers.GAIN\n"
            "    def forward(self, x):\n        return self.b(self.features(x))\n"
        )
        printed = []
        for method, gain in (("relu", 1.0), ("relu", 1.0), ("tanh", 1.0), ("relu", 2.0)):
            (tmp_path / "nets.py").write_text(net.format(method))
            (tmp_path / "helpers.py").write_text(f"GAIN = {gain}\n")
            command = [sys.executable, "-B", "main.py"]
            environment = {
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
                "PATH": "",
                "OMP_NUM_THREADS": "1",
                "HOME": str(tmp_path),
            }
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment)
            printed.append(done.stdout)
        assert printed[0] == printed[1] and len(set(printed)) == 3


class TestBehaviour:
    """What no reading of code sees is seen in what it does."""

    def test_a_loss_that_reads_a_file(self, tmp_path):
        path = tmp_path / "scale.txt"

        def loss(outputs, targets):
            return F.cross_entropy(outputs * float(path.read_text()), targets)

        found = []
        for scale in ("1", "1", "2"):
            path.write_text(scale)
            found.append(identity(loss=loss))
        assert same(found[0], found[1]) and not same(found[0], found[2])
        assert found[0].settings == found[2].settings

    def test_two_experiments_of_one_name_lie_beside_each_other(self, tmp_path):
        paths = []
        for value in (1.0, 2.0, 1.0000001, 2.0):
            with open_run(tmp_path, "a", Identity({"x": 1}, {"loss": [value]}), force=False) as run:
                paths.append(run.path.name)
        assert paths[0] == paths[2] != paths[1] == paths[3] == f"{paths[0]}-2"

    def test_rounding_is_the_same_and_nan_is_nan(self):
        assert agree({"a": [1.0, None]}, {"a": [1.0 + 1e-6, float("nan")]})
        assert not agree({"a": [1.0, None]}, {"a": [1.0, 0.0]})
        values = np.random.default_rng(0).standard_normal(100)
        assert described([values]) == described([values]) != described([values[::-1].copy()])
        assert not agree({"a": described([values])}, {"a": described([values[::-1].copy()])})

    def test_evolution_sees_it_too(self):
        def scaled(by):
            return lambda outputs, targets: F.cross_entropy(outputs * by, targets)

        settings = {"trainer": "es", "generations": 2, "population": 4}
        found = [
            prepare_search(Request(Given(NET, (X, Y), scaled(by)), {"levels": 1, **settings}), Silent()).identity
            for by in (1.0, 2.0)
        ]
        assert found[0].behaviour and not agree(found[0].behaviour, found[1].behaviour)


class TestWhatCannotBeTold:
    """A stored run is then not reused without being asked for."""

    def counting(self):
        calls = 0

        def loss(outputs, targets):
            nonlocal calls
            calls += 1
            return F.cross_entropy(outputs, targets) * calls

        return loss

    def test_a_loss_with_a_state_is_refused_resumed_or_started_over(self, tmp_path):
        first = find_ticket(NET, (X, Y), loss=self.counting(), out=tmp_path, **QUICK)
        with pytest.raises(ConfigMismatch, match="gives something else each time it is called.*resume=True"):
            find_ticket(NET, (X, Y), loss=self.counting(), out=tmp_path, **QUICK)
        resumed = find_ticket(NET, (X, Y), loss=self.counting(), out=tmp_path, resume=True, **QUICK)
        assert resumed.path == first.path
        find_ticket(NET, (X, Y), loss=self.counting(), out=tmp_path, force=True, **QUICK)

    def test_a_stream(self, tmp_path):
        source = itertools.count()

        class Stream(Dataset[Any]):
            def __len__(self):
                return 20

            def __getitem__(self, index):
                return torch.full((6,), float(next(source))), index % 3

        found = identity(data=Data(train=DataLoader(Stream(), 10), validation=(X, Y)))
        assert found.unsure == ("of the training part its DataLoader gives something else each time it is read",)

    def test_a_maker_with_a_generator_of_its_own(self):
        generator = torch.Generator().manual_seed(0)

        def make(seed):
            model = net(seed)
            with torch.no_grad():
                model[0].weight.normal_(generator=generator)  # pyright: ignore
            return model

        assert "another network each time" in identity(make).unsure[0]

    def test_a_maker_that_reads_other_weights_by_now(self, tmp_path, monkeypatch):
        weights = {0: 0.0, 1: 1.0}

        def make(seed):
            model = net(seed)
            with torch.no_grad():
                model[0].weight[0, 0] = weights[seed]  # pyright: ignore
            return model

        find_ticket(make, (X, Y), replicates=2, out=tmp_path, **QUICK)
        monkeypatch.setitem(weights, 1, 5.0)
        with pytest.raises(ConfigMismatch, match="began with other weights than seed 1 gives now"):
            find_ticket(make, (X, Y), replicates=2, out=tmp_path, **QUICK)


class TestReplicates:
    """More seeds add to a run."""

    def trained(self, run: Path) -> dict[str, int]:
        return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in run.glob("seed-*/level-*/config.json")}

    def test_five_after_three_trains_two_and_says_so(self, tmp_path, capsys):
        three = find_ticket(net, (X, Y), replicates=3, out=tmp_path, **QUICK).search
        assert three is not None
        before = self.trained(three.run)
        assert "stored" not in capsys.readouterr().err
        five = find_ticket(net, (X, Y), replicates=5, out=tmp_path, **QUICK).search
        assert five is not None and five.run == three.run
        after = self.trained(five.run)
        assert {name: after[name] for name in before} == before and len(after) == len(before) + 4
        assert [r.seed for r in five.levels[1].replicates] == [0, 1, 2, 3, 4]
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "6 of 10 trainings are stored" in said and "force=True" in said

    def test_a_complete_result_is_said_to_be_stored(self, tmp_path, capsys):
        first = find_ticket(net, (X, Y), out=tmp_path, **QUICK)
        capsys.readouterr()
        again = find_ticket(net, (X, Y), out=tmp_path, **QUICK)
        said = capsys.readouterr().err
        assert again.path == first.path and said.count("\n") == 1
        assert str(again.search.run) in said and "a stored result, made 20" in said  # pyright: ignore

    def test_seeds_of_several_calls_are_one_search(self, tmp_path):
        one = find_ticket(net, (X, Y), out=tmp_path, **QUICK).search
        other = find_ticket(net, (X, Y), seed=4, out=tmp_path, **QUICK).search
        assert one is not None and other is not None and one.run == other.run
        assert [r.seed for r in other.levels[0].replicates] == [4]
        whole = read_search(one.run)
        assert [r.seed for r in whole.levels[1].replicates] == [0, 4]
        assert (whole.config["seed"], whole.config["replicates"]) == (0, 2)

    def test_a_replicate_is_the_same_whichever_call_trained_it(self, tmp_path):
        apart = find_ticket(net, (X, Y), seed=1, out=tmp_path / "apart", **QUICK)
        together = find_ticket(net, (X, Y), replicates=2, out=tmp_path / "together", **QUICK).search
        assert together is not None
        stored = RunDirectory(together.run).read_trained(1, 1).params
        assert apart.trained_params is not None
        assert all(np.allclose(apart.trained_params[name], stored[name], atol=1e-6) for name in stored)

    def test_another_seed_of_a_module_instance_is_a_run_of_its_own(self, tmp_path):
        runs = {find_ticket(NET, (X, Y), seed=seed, out=tmp_path, **QUICK).search.run for seed in (0, 1)}  # pyright: ignore
        assert len(runs) == 2

    def test_groups_stay_as_they_were_begun(self, tmp_path):
        run = RunDirectory(tmp_path)
        assert join(run, [0, 1, 2]) == ((0, 1, 2),)
        assert join(run, [1, 2, 3]) == ((0, 1, 2), (3,))
        (tmp_path / "seed-9").mkdir()
        assert groups_of(run) == ((0, 1, 2), (3,), (9,))
        (tmp_path / "replicates.json").write_text('{"together": [["a"]]}')
        with pytest.raises(FileFormatError, match="replicates.json"):
            groups_of(run)

    def test_a_replicate_that_was_cut_off_hides_none_that_is_whole(self, tmp_path):
        search = find_ticket(net, (X, Y), replicates=2, out=tmp_path, **QUICK).search
        assert search is not None
        find_ticket(net, (X, Y), seed=2, out=tmp_path, **QUICK)
        for path in (search.run / "seed-2" / "level-01").iterdir():
            path.unlink()
        whole = read_search(search.run)
        assert len(whole.levels) == 2 and [r.seed for r in whole.levels[1].replicates] == [0, 1]
        assert whole.stopped == "not finished: seed 2"
