"""Instability analysis: copies of one ticket that differ in their SGD noise only, and the barrier between them.

RUN/instability/copy-C/seed-S/level-LL/     one ticket directory each, complete or absent
               summary.json                 what was found last

A subnetwork is matching only where it is stable: where the error barrier between its copies is less than 2 %
(Frankle et al. 2020, sections 2 and 4, arXiv 1912.05671).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Search
from lottery.runs.directory import RunDirectory, locked
from lottery.runs.given import Given
from lottery.runs.reading import read_search
from lottery.search.frame.frame import Frame
from lottery.search.levels.progress import Display, StepCounter
from lottery.search.levels.storing import Outcome, store
from lottery.state.counts import check_count
from lottery.state.machine.callers_settings import own_settings
from lottery.state.machine.telling import say_stored, what_follows
from lottery.studies.completing import own_budget, require_still_masks, train_missing
from lottery.studies.instability.report import LevelStability, Stability, stability_json
from lottery.studies.measures.connectivity import POINTS, line_between, part_of
from lottery.studies.reopening import reopen
from lottery.studies.view import TorchView, torch_view
from pruning.calls.calling import Forward
from pruning.disk.files import write_json
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Params

_IN_JAX = (
    "train the copies with train_ticket(ticket, model, data, settings={'seed': …}) and measure the networks between "
    "their ticket.trained(model) by yourself"
)


@dataclass(frozen=True)
class _CopiedRun:
    """A run whose tickets are trained again as copies.

    Attributes:
        run: its directory.
        frame: the model, data and trainer of the run.
        counter: counts steps, for the progress bar.
    """

    run: RunDirectory
    frame: Frame
    counter: StepCounter

    def copy(self, number: int) -> RunDirectory:
        """Return the directory of the copies with this number."""
        return RunDirectory(self.run.path / "instability" / f"copy-{number}")


@own_settings()
def instability(
    run: str | Path,
    model: Any = None,
    data: Any = None,
    *,
    levels: Sequence[int] | None = None,
    replicates: Sequence[int] | None = None,
    copies: int = 3,
    points: int = POINTS,
    parts: Sequence[str] | None = None,
    examples: int | None = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    functions: Mapping[str, Any] | None = None,
    device: str | None = None,
    trust: bool = False,
    display: Display | None = None,
) -> Stability:
    """Train copies of a run's tickets that differ in their noise only, and measure the barriers between them.

    The noise is the order of the data, dropout, the perturbations of evolution: all that follows from a job's seed.
    Every copy starts at its ticket's rewind point and trains as the search did, under the same mask. The dense
    network starts at the rewind point too: at step k, where survivors are rewound to step k. What is already there is
    read and not trained again.

    Args:
        run: the run directory.
        model: the model of the search; may be left out where it was a name.
        data: the data of the search; may be left out where they were a name.
        levels: which; by default the dense one, the winning ticket's and the last.
        replicates: seeds of the replicates; by default all.
        copies: the number of copies of every ticket; 2 or more.
        points: on every line between two copies.
        parts: the parts of the data; by default `test`, or `validation` where there is no test part.
        examples: the most examples of a part; by default all.
        loss: the loss that the search was given.
        metric: the metric that the search was given.
        forward: the `forward` that the search was given.
        functions: settings of the search that were functions, by name: `{"optimizer": make}`.
        device: where to train now.
        trust: run a model that only the run's records name as `package.module:callable`.
        display: shows progress.

    Raises:
        Untrusted: a model that only the records name, and that is not one of ours.
        BadValue: fewer than two copies or points, no example, a level or a replicate that the run does not have, an
            environment.
        RunBusy: another process is training copies of this run.
    """
    check_count("copies", copies, 2)
    check_count("points", points, 2, "both ends count")
    if examples is not None:
        check_count("examples", examples)
    counter = StepCounter(display or Display(False, None))
    given = Given(model, data, loss, metric, forward)
    directory, frame = reopen(run, given, functions=functions, device=device, watch=counter, trust=trust)
    require_still_masks(frame)
    view = torch_view(frame, "lottery instability measures", _IN_JAX)
    if parts is None:
        parts = ("test" if view.parts.test is not None else "validation",)
    for part in parts:
        part_of(view.parts, part)  # what is wrong is said before anything is trained
    search = read_search(directory.path)
    bench = _CopiedRun(directory, frame, counter)
    asked = {level: _alive(search, level, replicates) for level in _levels(search, levels)}
    found = []
    with locked(directory.path / "instability", "instability"), counter.display.training(len(asked)):
        every = [(number, seed, level) for number in range(copies) for level in asked for seed in asked[level]]
        folders = {which: bench.copy(which[0]).level_path(*which[1:]) for which in every}
        stored = {which: folder for which, folder in folders.items() if (folder / "config.json").exists()}
        missing = [which for which in every if which not in stored]
        follows = what_follows((f"copy {number}", seed, level) for number, seed, level in missing)
        say_stored(
            directory.path / "instability",
            list(stored.values()),
            len(every),
            "deleting the folder of a copy",
            follows,
            "nothing was trained, the barriers are measured again",
        )
        for level, seeds in asked.items():
            _train(bench, level, seeds, copies)
            barriers = [_barriers(bench, view, seed, level, copies, points, parts, examples) for seed in seeds]
            found.append(
                LevelStability(
                    level=level,
                    density=search.levels[level].density,
                    seeds=tuple(seeds),
                    error={part: np.array([b[part][0] for b in barriers]) for part in parts},
                    loss={part: np.array([b[part][1] for b in barriers]) for part in parts},
                )
            )
            counter.display.passed()
        result = Stability(directory.path, tuple(found), view.objective.metric.measure, copies, points)
        write_json(directory.path / "instability" / "summary.json", stability_json(result))
    return result


def copy_seed(seed: int, level: int, copy: int) -> int:
    """Return the seed of a copy's training: other than the level's own and than every other copy's.

    >>> copy_seed(0, 1, 0) == copy_seed(0, 1, 0), copy_seed(0, 1, 0) == copy_seed(0, 1, 1)
    (True, False)
    """
    # The level's own training uses [seed, level]; one more number gives another stream.
    return int(np.random.SeedSequence([seed, level, copy + 1]).generate_state(1, np.uint32)[0])


def _levels(search: Search, asked: Sequence[int] | None) -> list[int]:
    last = max(level.level for level in search.levels if level.alive)
    if asked is None:
        return sorted({0, last} | ({search.winner.level} if search.winner else set()))
    for level in asked:
        if not 0 <= level <= last:
            raise BadValue(f"level {level}: {search.run} has levels 0 to {last}")
    return sorted(set(asked))


def _alive(search: Search, level: int, replicates: Sequence[int] | None) -> list[int]:
    alive = [replicate.seed for replicate in search.levels[level].alive]
    for seed in replicates or ():
        if seed not in alive:
            known = ", ".join(map(str, alive))
            raise BadValue(f"replicate {seed}: level {level} of {search.run} has trained replicates {known}")
    return alive if replicates is None else sorted(set(replicates))


def _train(bench: _CopiedRun, level: int, seeds: Sequence[int], copies: int) -> None:
    """Train the missing copies of one level; the trainer gets all of them at once."""
    jobs = {(seed, number): _job(bench, seed, level, number) for seed in seeds for number in range(copies)}
    missing = [(seed, number) for seed, number in jobs if not bench.copy(number).has(seed, level)]
    for which, trained, seconds in train_missing(bench.frame, jobs, missing, bench.counter, level):
        seed, number = which
        record = bench.run.read_record(seed, level)
        outcome = Outcome(jobs[which], trained, seed, level, record["init_sha256"], seconds)
        dense = bench.run.read_record(seed, 0) if level else None
        store(bench.frame.facts, bench.copy(number), outcome, dense, {"copy": number, "job_seed": jobs[which].seed})


def _job(bench: _CopiedRun, seed: int, level: int, number: int) -> Job:
    params, budget = _start(bench, seed, level)
    return Job(params, bench.run.read_mask(seed, level), copy_seed(seed, level, number), budget)


def _start(bench: _CopiedRun, seed: int, level: int) -> tuple[Params, Budget]:
    """Return the rewind point of a level, and from which step to which it trains."""
    rewind, total = bench.frame.rewind, bench.frame.setup.total_steps
    if level == 0 and rewind.to_step is None:
        return bench.run.read_rewound(seed, 0), Budget(0, total)
    if level == 0 and rewind.to_step:
        return bench.run.read_trained(seed, 0).snapshots[rewind.to_step], rewind.budget()
    return bench.run.read_rewound(seed, level), own_budget(bench.frame, bench.run, seed, level)


def _barriers(
    bench: _CopiedRun,
    view: TorchView,
    seed: int,
    level: int,
    copies: int,
    points: int,
    parts: Sequence[str],
    examples: int | None,
) -> dict[str, NDArray[np.float64]]:
    """Return error and loss barriers [2, pairs] by part; NaN for a pair with a diverged copy."""
    where = [bench.copy(number) for number in range(copies)]
    alive = [run.read_record(seed, level)["diverged"] is None for run in where]
    ends = [run.read_delivered(seed, level) if ok else None for run, ok in zip(where, alive, strict=True)]
    masks = [run.read_mask(seed, level) for run in where]
    rows: dict[str, list[tuple[float, float]]] = {part: [] for part in parts}
    for i, j in itertools.combinations(range(copies), 2):
        a, b = ends[i], ends[j]
        if a is None or b is None:
            line = None
        else:
            line = line_between(
                view, a, b, masks=(masks[i], masks[j]), points=points, parts=tuple(parts), examples=examples
            )
        for part in parts:
            curve = line.curves[part] if line is not None else None
            rows[part].append((curve.barrier, curve.loss_barrier) if curve is not None else (np.nan, np.nan))
    return {part: np.array(values).T for part, values in rows.items()}
