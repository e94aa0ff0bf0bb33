"""Controls of a search: trained as its levels were, stored beside them, read back in the same statistical frame.

RUN/ablations/<kind>/repeat-R/seed-S/level-LL/     one ticket directory each, complete or absent
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Search
from lottery.runs.directory import RunDirectory, locked
from lottery.runs.given import Given
from lottery.runs.reading import read_search
from lottery.search.frame.frame import Frame
from lottery.search.frame.rewind import Rewind, parse_rewind
from lottery.search.frame.seeds import data_seed, job_seed, mask_seed
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.early_bird import at_stable_mask
from lottery.search.levels.progress import Display, StepCounter
from lottery.search.levels.storing import Outcome, store
from lottery.search.preparing.preparing import drawing_of
from lottery.settings.trust import check_stored
from lottery.state.counts import check_count
from lottery.state.machine.callers_settings import own_settings
from lottery.state.machine.telling import say_stored, what_follows
from lottery.studies.ablation.controls import ABLATIONS, Point, Subject
from lottery.studies.ablation.drawing_afresh import Fresh, fresh_for, label_of, said_of, scheme_for
from lottery.studies.ablation.stored import Ablated, read_ablation
from lottery.studies.completing import own_budget, require_still_masks, train_missing
from lottery.studies.reopening import reopen
from pruning.calls.calling import Forward
from pruning.criteria import Criterion, ScoreFunction, Scores
from pruning.errors import BadValue, ConfigMismatch
from pruning.initializers import Initializer
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask


@dataclass(frozen=True)
class AblationRequest:
    """What to ablate.

    Attributes:
        kinds: names of ablations.
        levels: which levels; by default all pruned ones.
        repeats: how often every ticket is ablated, with other random choices each time.
        rewind: the other rewind point of the kind `rewind`: `0`, a step or an epoch.
        scheme: the initializer of the kinds that draw weights; None for the way of the search.
    """

    kinds: Sequence[str]
    levels: Sequence[int] | None = None
    repeats: int = 1
    rewind: str | None = None
    scheme: Initializer | None = None

    def __post_init__(self) -> None:
        if not self.kinds:
            raise BadValue("name at least one ablation (lottery list ablations)")
        for kind in self.kinds:
            ABLATIONS[kind]
        check_count("repeats", self.repeats)
        if ("rewind" in self.kinds) != (self.rewind is not None):
            raise BadValue("the ablation 'rewind' and the other rewind point (0, 500, 2ep) go together: give both")

    def folder(self, kind: str) -> str:
        """Return the name under which a kind is stored."""
        if self.scheme is not None:
            return f"{kind}-{label_of(self.scheme)}"
        return f"{kind}-{self.rewind}" if kind == "rewind" else kind


@own_settings()
def ablate(
    run: str | Path,
    kinds: str | Sequence[str],
    *,
    levels: Sequence[int] | None = None,
    repeats: int = 1,
    rewind: str | None = None,
    init: str | Callable[..., Any] = "model",
    init_params: Mapping[str, Any] | None = None,
    model: Any = None,
    data: Any = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    criterion: str | ScoreFunction | None = None,
    functions: Mapping[str, Any] | None = None,
    device: str | None = None,
    trust: bool = False,
    display: Display | None = None,
) -> list[Ablated]:
    """Train controls of a search's tickets; each breaks one thing and keeps everything else, the data order too.

    What is already there is read and not trained again.

    Args:
        run: a run directory.
        kinds: names of ablations (`lottery list ablations`).
        levels: which levels; by default every pruned one.
        repeats: how often every ticket is ablated.
        rewind: the other rewind point, for the kind `rewind`.
        init: for the kinds `reinit` and `sign-reinit`: the initializer that draws the fresh weights, under the ticket's
            mask. By default they are drawn as the search drew its own. Either is stored beside the other.
        init_params: settings of that initializer.
        model: the model of the search; may be left out where it was a name.
        data: the data of the search; may be left out where they were a name.
        loss: the loss that the search was given, if any.
        metric: the metric that the search was given, if any.
        forward: the `forward` that the search was given, if any.
        criterion: the criterion of the search, where it was a function; or its name.
        functions: settings of the search that were functions, by name: `{"optimizer": make}`.
        device: where to train now.
        trust: run a model or criterion that only the run's records name as `package.module:name`.
        display: shows progress.

    Raises:
        UnknownName: a kind or an initializer that is not registered.
        Untrusted: a model or criterion that only the records name, and that is not one of ours.
        BadValue: a level that the run has not finished, or a control that this run cannot have.
        ConfigMismatch: another model or other data than the search was made with.

    One level of controls is handed to the trainer in one piece, so that it can train them stacked.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    request = AblationRequest(kinds, levels, repeats, rewind, scheme_for(kinds, init, init_params))
    counter = StepCounter(display or Display(False, None))
    given = Given(model, data, loss, metric, forward)
    directory, frame = reopen(run, given, functions=functions, device=device, watch=counter, trust=trust)
    if criterion is None:
        check_stored("criterion", frame.config.criterion, directory.path, trust)
    require_still_masks(frame)
    search = read_search(directory.path)
    numbers = _levels(search, request.levels)
    elsewhere = functools.cache(functools.partial(_elsewhere, frame, request.rewind or ""))
    fresh = fresh_for(frame, request.scheme)
    bench = _AblatedRun(directory, frame, drawing_of(frame, criterion), request, elsewhere, fresh)
    seeds_of = {number: [replicate.seed for replicate in search.levels[number].alive] for number in numbers}
    with locked(directory.path, "ablations"), counter.display.training(len(numbers)):
        _say_stored(bench, seeds_of)
        for number, seeds in seeds_of.items():
            _train_level(bench, number, seeds, counter)
            counter.display.passed()
    return [read_ablation(directory.path, request.folder(kind), numbers) for kind in request.kinds]


def _levels(search: Search, wanted: Sequence[int] | None) -> list[int]:
    finished = [level.level for level in search.levels if level.alive]
    if wanted is None and finished == [0]:
        raise BadValue(f"{search.run}: no pruned level is finished; name level 0, or search with more levels")
    if wanted is None:
        return [number for number in finished if number]
    missing = sorted(set(wanted) - set(finished))
    if missing:
        raise BadValue(f"{search.run}: there is no level {missing[0]}; it has levels 0 to {finished[-1]}")
    return sorted(set(wanted))


@dataclass(frozen=True)
class _AblatedRun:
    """What all controls of a call share."""

    run: RunDirectory
    frame: Frame
    drawing: Drawing
    request: AblationRequest
    elsewhere: Callable[[int], Point]
    fresh: Fresh

    def directory(self, kind: str, repeat: int) -> RunDirectory:
        return RunDirectory(self.run.path / "ablations" / self.request.folder(kind) / f"repeat-{repeat}")


def _say_stored(bench: _AblatedRun, seeds_of: Mapping[int, Sequence[int]]) -> None:
    every = [(number, seed) for number, seeds in seeds_of.items() for seed in seeds]
    folders = {
        (bench.request.folder(kind), repeat, seed, number): bench.directory(kind, repeat).level_path(seed, number)
        for kind, repeat, (number, seed) in itertools.product(bench.request.kinds, range(bench.request.repeats), every)
    }
    stored = {which: folder for which, folder in folders.items() if (folder / "config.json").exists()}
    missing = [which for which in folders if which not in stored]
    follows = what_follows((kind, seed, level) for kind, _, seed, level in missing)
    again = "deleting the folder of a kind"
    say_stored(bench.run.path / "ablations", list(stored.values()), len(folders), again, follows)


def _train_level(bench: _AblatedRun, number: int, seeds: Sequence[int], counter: StepCounter) -> None:
    """Train the controls of one level that are missing, all in one piece, and store each as it is done."""
    run, request = bench.run, bench.request
    masks = {seed: run.read_mask(seed, number) for seed in seeds}
    every = list(itertools.product(request.kinds, range(request.repeats), seeds))
    missing = [which for which in every if not bench.directory(*which[:2]).has(which[2], number)]
    said = said_of(request.scheme)
    for kind, repeat, seed in set(every) - set(missing):
        _check_drawn(bench.directory(kind, repeat), seed, number, said)
    if not missing:
        return
    jobs = {which: _job(bench, which[0], _subject(bench, (*which, number), masks)) for which in every}
    for which, trained, seconds in train_missing(bench.frame, jobs, missing, counter, number):
        kind, repeat, seed = which
        dense = run.read_record(seed, 0)
        outcome = Outcome(jobs[which], trained, seed, number, dense["init_sha256"], seconds)
        facts = {"ablation": request.folder(kind), "repeat": repeat, **said}
        store(bench.frame.facts, bench.directory(kind, repeat), outcome, dense, facts)


def _check_drawn(stored: RunDirectory, seed: int, level: int, said: Mapping[str, Any]) -> None:
    """Raise `ConfigMismatch` where a stored control was drawn by another initializer of the same name."""
    if said and stored.read_record(seed, level).get("drawn_by") != said["drawn_by"]:
        raise ConfigMismatch(
            f"{stored.level_path(seed, level)} was drawn by another init than {said['drawn_by']['init']!r} is now: "
            f"delete the folder {stored.path.parent} to draw it anew"
        )


def _job(bench: _AblatedRun, kind: str, subject: Subject) -> Job:
    control = ABLATIONS[kind].value(subject)
    budget = own_budget(bench.frame, bench.run, subject.seed, subject.level)
    if control.start is not None:
        budget = Budget(control.start, budget.stop)
    # The ticket's own seed: the order of the data stays, and the difference is the control's alone.
    own = job_seed(data_seed(bench.frame.config, subject.seed), subject.level)
    return Job(control.params, control.mask, own, budget)


def _subject(bench: _AblatedRun, which: tuple[str, int, int, int], masks: Mapping[int, Mask]) -> Subject:
    kind, repeat, seed, level = which
    run, drawing = bench.run, bench.drawing
    return Subject(
        seed=seed,
        level=level,
        mask=masks[seed],
        params=run.read_rewound(seed, level),
        fresh=lambda: bench.fresh(seed, repeat, masks[seed]),
        redraw=lambda: _redraw(bench, seed, level, masks[seed]),
        elsewhere=lambda: bench.elsewhere(seed),
        pattern=drawing.pattern,
        rows=drawing.guarded,
        others={other: mask for other, mask in masks.items() if other != seed},
        rng=np.random.default_rng([mask_seed(bench.frame.config, seed), level, repeat, zlib.crc32(kind.encode())]),
    )


def _redraw(bench: _AblatedRun, seed: int, level: int, mask: Mask) -> Mask:
    """Return the mask that the dense network's scores, turned upside down, give with the same counts."""
    run, drawing = bench.run, bench.drawing
    criterion = drawing.criterion
    if "std" in criterion.needs and run.read_trained(seed, 0).std is None:
        raise BadValue(f"{run.path}: level 0 holds no standard deviations to invert")
    # Where survivors go back to one point, that point is what the search scored, or compared with.
    rewound = run.read_rewound(seed, level if bench.frame.rewind.to_step is not None else 0)
    dense = Job(rewound, run.read_mask(seed, 0), job_seed(mask_seed(bench.frame.config, seed), 0), Budget(0, 0))
    turned = replace(drawing, criterion=_inverted(criterion), rounds=1)
    trained = at_stable_mask(run.read_trained(seed, 0), run.read_record(seed, 0))
    return turned.draw(trained, dense, dense.params, mask.counts())


def _inverted(criterion: Criterion) -> Criterion:
    def score(trained: Trained, job: Job) -> Scores:
        return {name: -value for name, value in criterion.score(trained, job).items()}

    return replace(criterion, score=score)


def _elsewhere(frame: Frame, text: str, seed: int) -> Point:
    """Return the dense network at another step: trained again up to there, by the same rules."""
    setup = frame.setup
    point: Rewind = parse_rewind(text, setup.total_steps, setup.steps_per_epoch)
    if point.to_step is None:
        raise BadValue(f"the ablation 'rewind' goes to a step of the dense training (0, 500, 2ep), not {text!r}")
    if point.to_step == 0:
        return Point(frame.initial[seed], 0)
    budget = Budget(0, point.to_step, (point.to_step,))
    job = Job(frame.initial[seed], frame.dense[seed], job_seed(data_seed(frame.config, seed), 0), budget)
    (trained,) = setup.trainer.train([job], frozenset())
    return Point(trained.snapshots[point.to_step], point.to_step)
