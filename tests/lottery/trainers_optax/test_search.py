"""Whole searches: rewind points, the same bits again, studies of a run, the command line."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import flax.linen as linen
import jax
import numpy as np
import optax
import pytest

from lottery import Ticket, ablate, find_ticket, train_ticket
from lottery.cli.app import run
from lottery.runs.directory import RunDirectory
from lottery.settings.config import SearchConfig
from lottery.settings.ladder import ladder
from pruning.errors import BadValue
from tests.lottery.helpers import assert_promises, assert_same_arrays, removed
from tests.lottery.trainers_optax.helpers import DATA, perceptron

FAST: dict[str, Any] = {"trainer": "optax", "steps": 12, "batch_size": 16, "eval_every": 6, "tolerance": 1.0}
LEVELS = 2


def search(out: Any, model: Any = perceptron, **settings: Any) -> RunDirectory:
    settings = {**FAST, "levels": LEVELS, "quiet": True, **settings}
    found = find_ticket(model, DATA, out=out, **settings).search
    assert found is not None
    return RunDirectory(found.run)


@pytest.mark.parametrize(
    ("rewind", "settings"),
    [
        ("0", {}),
        ("5", {}),
        ("1ep", {"scope": "layer"}),
        ("lr", {"criterion": "snr"}),
        ("none", {"criterion": "random"}),
    ],
)
def test_every_search_keeps_the_promises(tmp_path, rewind, settings):
    settings = {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", **settings}
    run = search(tmp_path, rewind=rewind, replicates=2, **settings)
    shapes = {"first.kernel": (6, 8), "second.kernel": (8, 3)}
    config = SearchConfig(levels=LEVELS, scope=settings.get("scope", "global"))
    targets = ladder(config, {name: int(np.prod(shape)) for name, shape in shapes.items()}, shapes)
    for seed, level in itertools.product((0, 1), range(LEVELS + 1)):
        first, before = run.read_trained(seed, 0), run.read_trained(seed, max(level - 1, 0))
        points = {"0": run.read_rewound(seed, 0), "5": first.snapshots.get(5), "1ep": first.snapshots.get(6)}
        assert_promises(run, seed, level, targets[level], points.get(rewind, before.params))


def test_the_same_search_gives_the_same_bits_and_one_that_was_cut_off_too(tmp_path):
    settings = {"rewind": "5", "replicates": 2}
    one, two = (search(tmp_path / name, **settings) for name in ("a", "b"))
    assert one.path.name == two.path.name
    expected = {(s, level): one.read_trained(s, level).params for s in (0, 1) for level in range(LEVELS + 1)}
    for (seed, level), params in expected.items():
        assert_same_arrays(two.read_trained(seed, level).params, params)
        assert two.read_history(seed, level) == one.read_history(seed, level)
    # one of two stacked replicates was stored when it was killed
    for gone in (two.level_path(1, 1), two.level_path(0, 2), two.level_path(1, 2), two.path / "summary.json"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    again = search(tmp_path / "b", **settings)
    for (seed, level), params in expected.items():
        assert_same_arrays(again.read_trained(seed, level).params, params)


class Flax(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(3)(linen.relu(linen.Dense(8)(x)))


def test_a_flax_network_is_trained_pruned_and_evolved(tmp_path):
    ticket = find_ticket(Flax(), DATA, out=tmp_path, levels=1, lr=0.05, **FAST)
    assert ticket.info["validation"] > 0.8 and list(ticket.mask) == ["Dense_0.kernel", "Dense_1.kernel"]
    settings = {"trainer": "es", "generations": 2, "population": 4}
    assert ticket.path is not None
    evolved = train_ticket(Ticket.load(ticket.path), Flax(), DATA, settings=settings, out=tmp_path)
    run = RunDirectory(evolved.run)
    assert run.read_mask(0, 0) == ticket.mask
    assert (removed(ticket.mask, run.read_trained(0, 0).params) == 0).all()


def test_studies_of_a_run_train_as_it_was_trained(tmp_path):
    mine = ("mine", optax.adam(0.01))
    run = search(tmp_path, levels=1, optimizer=mine)
    with pytest.raises(BadValue, match="optimizer was a function of the caller's own \\(mine\\), which no file holds"):
        ablate(run.path, "random-mask", levels=[1], model=perceptron, data=DATA)
    (control,) = ablate(run.path, "random-mask", levels=[1], model=perceptron, data=DATA, functions={"optimizer": mine})
    assert control.levels[0].replicates[0].validation is not None


def test_two_objects_of_one_name_are_two_experiments(tmp_path):
    first = search(tmp_path, levels=1, optimizer=("mine", optax.adam(0.01)))
    assert search(tmp_path, levels=1, optimizer=("mine", optax.adam(0.01))).path == first.path
    assert json.loads((first.path / "config.json").read_text())["optimizer"] == "given: mine"
    assert search(tmp_path, levels=1, optimizer=("mine", optax.adam(0.5))).path != first.path


def test_a_replicate_that_fails_ends_with_its_reason(tmp_path):
    def maker(seed: int) -> Any:
        params, apply = perceptron(seed)
        return (jax.tree.map(lambda leaf: leaf * (1e20 if seed else 1), params), apply)

    run = search(tmp_path, maker, replicates=2, levels=1)
    assert "not finite" in run.read_record(1, 0)["diverged"]
    assert run.read_record(0, 0)["diverged"] is None and not run.has(1, 1) and run.has(0, 1)


def test_the_command_line(tmp_path, capsys):
    command = ["prune", "--trainer", "optax", "--levels", "1", "--steps", "40", "--optimizer", "lion", "--lr", "0.003"]
    command += ["--set", "schedule=cosine_decay", "--set", "tolerance=0.5", "--out", str(tmp_path), "--json", "--quiet"]
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["winning"]["level"] == 1 and found["levels"][0]["replicates"][0]["steps"] == 40
    assert run([*command, "--optimizer", "loin"]) == 2
    assert "unknown optimizer 'loin': did you mean 'lion'" in capsys.readouterr().err
