"""The engine, with a trainer that only pretends: what is asked for, what is stored, what is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery.networks.objectives.metric import Measure
from lottery.results.winning import choose_winner
from lottery.runs.directory import RunDirectory, open_run
from lottery.runs.identity import Identity
from lottery.runs.reading import read_search
from lottery.search.frame.beginning import AS_REWOUND
from lottery.search.frame.coverage import Coverage
from lottery.search.frame.facts import Facts
from lottery.search.frame.rewind import parse_rewind
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.engine import search_levels
from lottery.search.levels.plan import SearchPlan
from lottery.search.probes import NoProber
from lottery.settings.config import SearchConfig
from lottery.settings.ladder import ladder
from pruning.criteria import Criterion, get_criterion
from pruning.disk.files import write_json
from pruning.errors import BadValue, Diverged, FileFormatError, RunBusy
from pruning.jobs import Budget
from pruning.mask import Mask
from tests.lottery.helpers import FakeTrainer, Quiet, assert_same_arrays

INITIAL = {seed: {"w": np.full((10, 10), 1.0 + seed, np.float32), "bias": np.zeros(3, np.float32)} for seed in range(5)}


def plan(rewind: str = "0", criterion: Any = "magnitude", **settings: Any) -> SearchPlan:
    config = SearchConfig(**({"levels": 3, "replicates": 2, "rewind": rewind} | settings))
    facts = Facts(
        **dict.fromkeys(("model", "data", "trainer", "criterion", "scope", "measure_at"), "x"),
        train_examples=None,
        validation_examples=None,
        framework="torch",
        layout="any",
        given={},
        source={},
        rewind=rewind,
        metric=Measure("accuracy", is_fraction=True),
        config={},
        coverage=Coverage(1.0, None, {}),
    )
    found = get_criterion(criterion) if isinstance(criterion, str) else criterion
    dense = dict.fromkeys(range(5), Mask.dense({"w": (10, 10)}))
    drawing = Drawing(found, NoProber("nobody looks"), config.score_at or found.at, 1, config.candidates, config.guard)
    return SearchPlan(
        config, drawing, ladder(config, {"w": 100}), dense, parse_rewind(rewind, 100, 10), AS_REWOUND, 100, facts
    )


def test_jobs_of_a_search_that_rewinds_to_the_start(tmp_path):
    trainer = FakeTrainer()
    levels = search_levels(plan(), trainer, INITIAL, RunDirectory(tmp_path), Quiet())
    assert [level.kept for level in levels] == [100, 80, 64, 51]
    assert len(trainer.jobs) == 8
    assert len({job.seed for job in trainer.jobs}) == 8
    assert [job.budget for job in trainer.jobs] == [Budget(0, 100)] * 8
    for index, job in enumerate(trainer.jobs):
        assert_same_arrays(job.params, INITIAL[index % 2])


@pytest.mark.parametrize(
    ("rewind", "first", "later"),
    [
        ("30", Budget(0, 100, (30,)), Budget(30, 100)),
        ("2ep", Budget(0, 100, (20,)), Budget(20, 100)),
        ("lr", Budget(0, 100), Budget(0, 100)),
        ("none", Budget(0, 100), Budget(100, 200)),
    ],
)
def test_budgets_of_every_rewind_point(tmp_path, rewind, first, later):
    trainer = FakeTrainer()
    search_levels(plan(rewind, replicates=1), trainer, INITIAL, RunDirectory(tmp_path), Quiet())
    assert [job.budget for job in trainer.jobs] == [first, later, later, later]


def test_a_finished_search_trains_nothing_and_half_a_search_only_the_rest(tmp_path):
    run = RunDirectory(tmp_path)
    whole = search_levels(plan(), FakeTrainer(), INITIAL, run, Quiet())
    idle = FakeTrainer()
    again = search_levels(plan(), idle, INITIAL, run, Quiet())
    assert idle.jobs == [] and again == whole
    import shutil

    shutil.rmtree(run.level_path(0, 3))
    shutil.rmtree(run.level_path(1, 3))
    shutil.rmtree(run.level_path(1, 2))
    rest = FakeTrainer()
    resumed = search_levels(plan(), rest, INITIAL, run, Quiet())
    assert len(rest.jobs) == 3
    assert [[(r.kept, r.layers, r.validation) for r in level.replicates] for level in resumed] == [
        [(r.kept, r.layers, r.validation) for r in level.replicates] for level in whole
    ]


def test_a_replicate_that_diverges_is_reported_and_the_others_finish(tmp_path):
    run = RunDirectory(tmp_path)
    trainer = FakeTrainer(diverging=frozenset({3}))  # level 1, seed 1
    levels = search_levels(plan(), trainer, INITIAL, run, Quiet())
    assert [[r.seed for r in level.replicates] for level in levels] == [[0, 1], [0, 1], [0], [0]]
    assert levels[1].replicates[1].diverged == "the loss is not finite"
    assert [r.seed for r in levels[1].alive] == [0]
    assert not (run.level_path(1, 1) / "trained.safetensors").exists()
    assert "diverged" in (run.level_path(1, 1) / "README.md").read_text()


def test_a_search_ends_where_every_replicate_diverged(tmp_path):
    with pytest.raises(Diverged, match="level 0: every replicate diverged \\(seed 0: the loss"):
        search_levels(plan(), FakeTrainer(diverging=frozenset({0, 1})), INITIAL, RunDirectory(tmp_path), Quiet())


def test_a_search_whose_last_replicate_diverges_late_keeps_what_it_found(tmp_path):
    trainer = FakeTrainer(diverging=frozenset({2, 4}))  # level 1, seed 0 and level 2, seed 1
    levels = search_levels(plan(), trainer, INITIAL, RunDirectory(tmp_path), Quiet())
    assert [[r.seed for r in level.alive] for level in levels] == [[0, 1], [1], []]


def test_a_criterion_gets_what_it_needs_or_an_error(tmp_path):
    needy = Criterion("needy", lambda trained, job: {"w": trained.std["w"]}, frozenset({"std"}))  # pyright: ignore
    with pytest.raises(BadValue, match="'needy' needs std, which trainer 'gd' does not provide"):
        search_levels(plan(criterion=needy), FakeTrainer(), INITIAL, RunDirectory(tmp_path), Quiet())


def test_what_a_criterion_needs_survives_a_restart(tmp_path):
    import dataclasses
    import shutil

    class WithStd(FakeTrainer):
        def train(self, jobs, needs):
            assert needs == {"std"}
            for trained in super().train(jobs, needs):
                yield dataclasses.replace(trained, std={"w": np.abs(trained.params["w"]) + 1})

    needy = Criterion("needy", lambda trained, job: {"w": trained.std["w"]}, frozenset({"std"}))  # pyright: ignore
    run = RunDirectory(tmp_path)
    search_levels(plan(criterion=needy), WithStd(provides=frozenset({"std"})), INITIAL, run, Quiet())
    mask = run.read_mask(0, 3)
    shutil.rmtree(run.level_path(0, 3))
    search_levels(plan(criterion=needy), WithStd(provides=frozenset({"std"})), INITIAL, run, Quiet())
    assert run.read_mask(0, 3) == mask


def test_rewind_weights_are_stored_once_where_the_disk_can(tmp_path):
    run = RunDirectory(tmp_path)
    search_levels(plan(), FakeTrainer(), INITIAL, run, Quiet())
    inodes = {(run.level_path(0, level) / "model.safetensors").stat().st_ino for level in (1, 2, 3)}
    assert len(inodes) == 1


def test_winner_by_the_engines_levels(tmp_path):
    trainer = FakeTrainer(accuracy={100: 0.90, 80: 0.95, 64: 0.899, 51: 0.5})
    levels = search_levels(plan(), trainer, INITIAL, RunDirectory(tmp_path), Quiet())
    winner, _ = choose_winner(levels, 0.005, True)
    assert winner is not None and winner.level == 2


def opened(out: Path, name: str, settings: dict[str, Any], force: bool):
    return open_run(out, name, Identity(settings), force=force)


class TestRunDirectory:
    def test_the_same_configuration_opens_the_same_run(self, tmp_path):
        with opened(tmp_path, "a b/c", {"x": 1}, False) as one:
            pass
        with (
            opened(tmp_path, "a b/c", {"x": 1}, False) as two,
            opened(tmp_path, "a", {"x": 2}, False) as three,
        ):
            assert one == two != three
        assert one.path.name.startswith("a-b-c-")

    def test_force_starts_over(self, tmp_path):
        with opened(tmp_path, "a", {}, False) as run:
            (run.path / "seed-0").mkdir()
        with opened(tmp_path, "a", {}, True) as run:
            assert not (run.path / "seed-0").exists()

    def test_a_directory_of_another_configuration_is_refused(self, tmp_path):
        from pruning.errors import ConfigMismatch

        with opened(tmp_path, "a", {"x": 1}, False) as run:
            write_json(run.path / "config.json", {"x": 2})
        with (
            pytest.raises(ConfigMismatch, match="another configuration"),
            opened(tmp_path, "a", {"x": 1}, False),
        ):
            pass

    def test_two_processes_cannot_work_on_one_run(self, tmp_path):
        import filelock

        with opened(tmp_path, "a", {}, False) as run:
            name = run.path.name
        with (
            filelock.FileLock(tmp_path / f".{name}.lock"),
            pytest.raises(RunBusy, match="another process"),
            opened(tmp_path, "a", {}, False),
        ):
            pass

    def test_leftovers_of_a_killed_process_are_tidied(self, tmp_path):
        with opened(tmp_path, "a", {}, False) as run:
            run.append_metrics({"seed": 0, "level": 0, "step": 1})
            run.append_metrics({"seed": 0, "level": 1, "step": 1})
            with open(run.path / "metrics.jsonl", "a") as file:
                file.write('{"seed": 0, "lev')
            run.level_path(0, 0).mkdir(parents=True)
            write_json(run.level_path(0, 0) / "config.json", {})
            (run.path / "seed-0" / ".level-01.tmp").mkdir()
            (run.path / "seed-0" / ".level-01.tmp" / ".mask.safetensors.1.tmp").touch()
            (run.path / ".summary.json.1.tmp").touch()
        with opened(tmp_path, "a", {}, False) as run:
            assert (run.path / "metrics.jsonl").read_text() == '{"seed": 0, "level": 0, "step": 1}\n'
            assert not list(run.path.glob("**/.*.tmp"))

    def test_an_unfinished_run_can_be_read(self, tmp_path):
        with pytest.raises(FileFormatError, match="not a run directory"):
            read_search(tmp_path)
        write_json(tmp_path / "config.json", {"tolerance": None})
        write_json(tmp_path / "environment.json", {"device": "cpu"})
        with pytest.raises(FileFormatError, match="no level is finished"):
            read_search(tmp_path)
        trainer = FakeTrainer(accuracy={100: 0.9, 80: 0.1})
        search_levels(plan(levels=1), trainer, INITIAL, RunDirectory(tmp_path), Quiet())
        found = read_search(tmp_path)
        assert len(found.levels) == 2 and found.winner is None
        assert found.stopped == "not finished: level 1 is the last on disk"


@pytest.mark.parametrize("rewind", ["0", "30", "lr"])
@pytest.mark.parametrize(("draw_from", "read"), [("previous", [0, 1, 2]), ("dense", [0, 0, 0])])
def test_every_level_reads_one_training_from_disk_and_draws_from_that(tmp_path, monkeypatch, rewind, draw_from, read):
    seen: list[int] = []
    whole = RunDirectory.read_trained

    def noticed(run, seed, level):
        seen.append(level)
        return whole(run, seed, level)

    monkeypatch.setattr(RunDirectory, "read_trained", noticed)
    settings = plan(rewind, draw_from=draw_from, replicates=1)
    search_levels(settings, FakeTrainer(), INITIAL, RunDirectory(tmp_path), Quiet())
    assert seen == read
