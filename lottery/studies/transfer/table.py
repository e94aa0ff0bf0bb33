"""Transfer tables: the tickets of every run, trained as every run trains, beside its own tickets and random ones.

OUT/<target's run>/from-<source's run>-level-LL/seed-S/level-LL/    one ticket directory each, complete or absent
                   random/seed-S/level-LL/
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Level
from lottery.results.statistics import Estimate, by_seed, level_estimate, paired_difference, pairs
from lottery.runs.directory import RunDirectory, locked
from lottery.runs.given import Given
from lottery.runs.reading import read_replicate
from lottery.runs.records import split_seed
from lottery.search.frame.facts import Facts
from lottery.search.frame.frame import Frame
from lottery.search.frame.seeds import data_seed, job_seed, mask_seed
from lottery.search.levels.progress import Display, StepCounter
from lottery.search.levels.storing import Outcome, store
from lottery.settings.config import SearchConfig
from lottery.settings.fields import build
from lottery.state.identity import short_hash
from lottery.state.machine.callers_settings import own_settings
from lottery.state.machine.telling import say_stored, what_follows
from lottery.state.tensors import digest
from lottery.studies.completing import own_budget, require_still_masks, train_missing
from lottery.studies.random_masks import drawn_at_random
from lottery.studies.reopening import reopen
from lottery.studies.transfer.members import Member, choose_members, common_seeds
from lottery.trainers.choosing import functions_for
from pruning.alive_rows import require_rows
from pruning.calls.calling import Forward
from pruning.errors import BadValue, ConfigMismatch
from pruning.jobs import Job
from pruning.mask import Mask

# How a random mask was "found".
_RANDOM = SearchConfig(criterion="random", scope="layer")


@dataclass(frozen=True)
class Entry:
    """Tickets of one run, trained as one run trains.

    Attributes:
        source: position of the run that found the tickets, or None for random masks at the target's rewind weights.
        target: position of the run whose way of training it is.
        level: the trainings, one for each seed.
        estimate: their mean metric with its interval; None where all diverged.
        against_own: entry minus the target's own tickets, paired by seed; None for these themselves.
        against_random: entry minus random masks, paired by seed; None for these themselves.
    """

    source: int | None
    target: int
    level: Level
    estimate: Estimate | None
    against_own: Estimate | None
    against_random: Estimate | None


@dataclass(frozen=True)
class TransferTable:
    """Which tickets train where.

    Attributes:
        members: the runs.
        tickets: `tickets[source][target]`; on the diagonal what the run itself had measured.
        random: `random[target]`: random masks with the counts that the target's own tickets have in every tensor.
        out: the folder of the trainings.
    """

    members: tuple[Member, ...]
    tickets: tuple[tuple[Entry, ...], ...]
    random: tuple[Entry, ...]
    out: Path


@own_settings()
def transfer(
    runs: Sequence[str | Path],
    density: float | None = None,
    level: int | None = None,
    *,
    model: Any = None,
    data: Sequence[Any] | None = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    functions: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
    device: str | None = None,
    out: str | Path = "runs/transfer",
    trust: bool = False,
    display: Display | None = None,
) -> TransferTable:
    """Train the tickets of every run as every other run trains, and random ones; what is already there is read.

    An entry is the source's mask at the source's rewind weights in the target's frame: its trainer, settings and data,
    the budget of its levels, and for every replicate the seed that its own ticket was trained with. The ticket of a
    replicate seed is trained under the same seed.

    Args:
        runs: two or more run directories of one architecture.
        density: the density of the tickets: each run's pruned level that is nearest to it, by ratio.
        level: the level of the tickets in every run, instead. By default the lowest density that all of the runs reach.
        model: the model of the searches; may be left out where it was a name.
        data: the data of the searches, one for each run; may be left out where they were a name.
        loss: the loss that the searches were given, if any.
        metric: the metric that the searches were given, if any.
        forward: the `forward` that the searches were given, if any.
        functions: settings of the searches that were functions, by name: `{"optimizer": make}`; one mapping of which
            each run takes what it was made with, or one for each run.
        device: where to train now.
        out: the folder in which the trainings are kept.
        trust: run a model that only the runs' records name as `package.module:callable`.
        display: shows progress.

    Raises:
        Untrusted: a model that only the records name, and that is not one of ours.
        BadValue: fewer than two runs, other architectures, a level that is not there, or no replicate seed in common.
        ConfigMismatch: another model or other data than a run was made with, or a training of another ticket in `out`.

    Source: Lange & Sprekeler 2023, section 5 (arXiv 2306.00045); Morcos et al. 2019 (arXiv 1906.02773).
    """
    if density is not None and level is not None:
        raise BadValue("give density or level, not both")
    if data is not None and len(data) != len(runs):
        raise BadValue(f"data must name one data set for each of the {len(runs)} runs, not {len(data)}")
    if functions is not None and not isinstance(functions, Mapping) and len(functions) != len(runs):
        raise BadValue(f"functions must be one mapping, or one for each of the {len(runs)} runs, not {len(functions)}")
    members = choose_members([Path(run) for run in runs], density, level)
    out, counter = Path(out), StepCounter(display or Display(False, None))
    with locked(out, "transfer"), counter.display.training(len(members) ** 2):
        _say_stored(members, out)
        for target in range(len(members)):
            search = members[target].search
            of_run = functions if functions is None or isinstance(functions, Mapping) else functions[target]
            given = Given(model, data[target] if data else None, loss, metric, forward)
            own = functions_for(of_run, search.config)
            _, frame = reopen(search.run, given, functions=own, device=device, watch=counter, trust=trust)
            require_still_masks(frame)
            for source, seeds in _sources(members, target):
                _train(_TargetRun(members, target, frame, out), source, seeds, counter)
                counter.display.passed()
    return _read(members, out)


@dataclass(frozen=True)
class _TargetRun:
    """The target run, in whose way tickets of all runs are trained, and what these trainings share."""

    members: tuple[Member, ...]
    target: int
    frame: Frame
    out: Path

    @property
    def own(self) -> Member:
        return self.members[self.target]


def _folder(members: Sequence[Member], source: int | None, target: int, out: Path) -> RunDirectory:
    """Return where the tickets of a source are kept that were trained in a target's way."""
    name = "random"
    if source is not None:
        name = f"from-{members[source].search.run.resolve().name}-level-{members[source].level.level:02d}"
    return RunDirectory(out / members[target].search.run.resolve().name / name)


def _sources(members: Sequence[Member], target: int) -> list[tuple[int | None, list[int]]]:
    """Return what is trained in a target's way: every other run, and None for random masks, each with its seeds."""
    others = [
        (number, common_seeds(member, members[target])) for number, member in enumerate(members) if number != target
    ]
    return [*others, (None, common_seeds(members[target], members[target]))]


def _say_stored(members: tuple[Member, ...], out: Path) -> None:
    every = {
        (target, source, seed): _folder(members, source, target, out).level_path(seed, members[target].level.level)
        for target in range(len(members))
        for source, seeds in _sources(members, target)
        for seed in seeds
    }
    stored = {which: folder for which, folder in every.items() if (folder / "config.json").exists()}
    missing = [
        (f"{'random masks' if source is None else members[source].label} as {members[target].label}", seed, level)
        for (target, source, seed) in every
        for level in [members[target].level.level]
        if (target, source, seed) not in stored
    ]
    say_stored(out, list(stored.values()), len(every), "deleting a folder in it", what_follows(missing))


def _train(bench: _TargetRun, source: int | None, seeds: Sequence[int], counter: StepCounter) -> None:
    """Train in one piece what is missing of one entry, and store each training as it is done.

    An entry is a piece of its own, so that no other run in the table has a part in its rounding.
    """
    own, number = bench.own, bench.own.level.level
    giver = own if source is None else bench.members[source]
    folder = _folder(bench.members, source, bench.target, bench.out)
    jobs = {seed: _job(bench, source, seed) for seed in seeds}
    names = {seed: _identity(own.run, number, job) for seed, job in jobs.items()}
    missing = [seed for seed in seeds if not folder.has(seed, number)]
    for seed in set(seeds) - set(missing):
        if folder.read_record(seed, number).get("transfer", {}).get("identity") != names[seed]:
            raise ConfigMismatch(f"{folder.level_path(seed, number)} is of another ticket or run; use another --out")
    found = _RANDOM if source is None else _found_by(giver)
    about = {
        "source": "random" if source is None else giver.search.run.name,
        "source_level": giver.level.level,
        "target": own.search.run.name,
    }
    for seed, trained, seconds in train_missing(bench.frame, jobs, missing, counter, number):
        record = giver.run.read_record(seed, 0)
        outcome = Outcome(jobs[seed], trained, seed, number, record["init_sha256"], seconds)
        dense = own.run.read_record(seed, 0)
        store(
            _facts(bench.frame.facts, found), folder, outcome, dense, {"transfer": {**about, "identity": names[seed]}}
        )


def _job(bench: _TargetRun, source: int | None, seed: int) -> Job:
    """Return the training of one ticket in the target's way: as the target's own ticket of that seed was trained."""
    giver = bench.own if source is None else bench.members[source]
    mask = giver.run.read_mask(seed, giver.level.level)
    if source is None:
        mask = _random_mask(mask, seed, giver.level.level, bench.frame)
    params = giver.run.read_rewound(seed, giver.level.level)
    own = bench.own
    budget = own_budget(bench.frame, own.run, seed, own.level.level)
    return Job(params, mask, job_seed(data_seed(bench.frame.config, seed), own.level.level), budget)


def _random_mask(mask: Mask, seed: int, level: int, frame: Frame) -> Mask:
    rng = np.random.default_rng([mask_seed(frame.config, seed), level, zlib.crc32(b"transfer")])
    scores = {name: rng.random(keep.shape) for name, keep in mask.items()}
    drawn = drawn_at_random(scores, mask.counts(), frame.rows, frame.pattern)
    require_rows(mask, drawn, frame.rows)
    return drawn


def _identity(target: RunDirectory, level: int, job: Job) -> str:
    config = (target.path / "config.json").read_text(encoding="utf-8")
    return short_hash([config, str(level), digest(job.params), digest(dict(job.mask))], length=64)


def _found_by(member: Member) -> SearchConfig:
    """Return the settings of the search that found a member's ticket."""
    config = member.search.config
    # How it trained is not asked: that may have been a function, which no file holds.
    return build(SearchConfig, {**config, "split_seed": split_seed(config)})


def _facts(facts: Facts, found: SearchConfig) -> Facts:
    """Return what a target's tickets record, with the criterion and scope that a ticket was found by."""
    how = {"criterion": found.criterion, "scope": found.scope}
    return replace(facts, **how, config={**facts.config, **how})


def _read(members: tuple[Member, ...], out: Path) -> TransferTable:
    def entry(source: int | None, target: int) -> Entry:
        own, level = members[target], stored[source, target]
        random = stored[None, target]
        return Entry(
            source,
            target,
            level,
            level_estimate(level, own.search.is_fraction, own.search.test_examples),
            None if source == target else paired_difference(*pairs(by_seed(level), by_seed(own.level))),
            None if source is None else paired_difference(*pairs(by_seed(level), by_seed(random))),
        )

    stored: dict[tuple[int | None, int], Level] = {}
    for target, member in enumerate(members):
        stored[target, target] = member.level
        for source, seeds in _sources(members, target):
            folder, number = _folder(members, source, target, out), member.level.level
            stored[source, target] = Level(number, tuple(read_replicate(folder, seed, number) for seed in seeds))
    every = range(len(members))
    return TransferTable(
        members,
        tuple(tuple(entry(source, target) for target in every) for source in every),
        tuple(entry(None, target) for target in every),
        out,
    )
