"""A search from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence

from lottery.results.levels import Level, Search, replicated
from lottery.results.summary import as_json
from lottery.results.winning import choose_winner, matching_tolerance
from lottery.runs.checkpoints import has_checkpoint
from lottery.runs.directory import RunDirectory, open_run
from lottery.runs.reading import read_search, run_seconds
from lottery.runs.replicates import depth, join, seeds_of
from lottery.search.frame.frame import Frame
from lottery.search.levels.engine import search_levels
from lottery.search.levels.missing import Replicates
from lottery.search.levels.plan import SearchPlan
from lottery.search.levels.progress import Display, Recorder
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.search.recorded_trainer import recorded_trainer
from lottery.state.machine.callers_settings import own_settings
from lottery.state.machine.telling import say, say_stored, seeds_follow
from pruning.disk.files import write_json


@own_settings()
def run_search(request: Request, display: Display) -> Search:
    """Run a search from beginning to end, or from where an earlier attempt stopped.

    Raises:
        UsageError: something in the request is wrong; nothing was trained.
        RunError: the run failed; finished levels are on disk.
    """
    recorder = Recorder(display)
    ready = prepare_search(request, recorder)
    plan, frame = ready.plan, ready.frame
    with open_run(request.out, frame.name, ready.identity, force=request.force, resume=request.resume) as run:
        recorder.record_to(run)
        display.introduce(str(frame.facts.coverage))
        trainer = recorded_trainer(run.path, frame.setup)
        replicates = _replicates(plan, run)
        prunable = plan.dense[plan.config.seed].total
        with display.searching(len(plan.targets), frame.facts.metric, frame.test_examples, prunable):
            levels = search_levels(plan, trainer, frame.initial, run, recorder, replicates)
        search = _conclude(frame, run, levels, len(plan.targets))
        if search.winner is not None:
            display.won(search.levels[search.winner.level], search.levels[0])
        return search


def _replicates(plan: SearchPlan, run: RunDirectory) -> Replicates:
    """Add the seeds that are asked for to the run, and tell how many of their trainings are stored already."""
    seeds, levels = plan.config.seeds, len(plan.targets)
    groups = join(run, seeds)
    depths = {seed: depth(run, seed) for seed in seeds}
    stored = [run.level_path(seed, level) for seed, (count, _) in depths.items() for level in range(count)]
    wanted = sum(count if diverged else levels for count, diverged in depths.values())
    levels_of = {seed: levels if diverged else count for seed, (count, diverged) in depths.items()}
    follows = seeds_follow(levels_of, levels, has_checkpoint(run.path))
    again = "force=True or --force"
    say_stored(run.path, stored, wanted, again, follows)
    if not stored and has_checkpoint(run.path):
        say(f"{run.path}: resumed, no training is complete; {follows} ({again} starts over)")
    return Replicates(seeds, groups)


def _conclude(frame: Frame, run: RunDirectory, levels: Sequence[Level], planned: int) -> Search:
    facts, metric = frame.facts, frame.facts.metric
    tolerance = matching_tolerance(levels[0], frame.config.tolerance, metric.is_fraction, facts.validation_examples)
    winner, reason = choose_winner(levels, tolerance.value, metric.higher_is_better)
    stopped = None
    if len(levels) < planned:
        stopped = f"every replicate had diverged by level {levels[-1].level} of {planned - 1}"
    search = Search(
        run=run.path,
        levels=tuple(levels),
        winner=winner,
        reason=reason,
        stopped=stopped,
        tolerance=tolerance,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        is_fraction=metric.is_fraction,
        test_examples=frame.test_examples,
        seconds=run_seconds(run, levels),
        device=frame.setup.device,
        config=replicated(facts.config, levels[0]),
        coverage=facts.coverage.as_json(),
    )
    _summarize(search, run)
    if set(frame.config.seeds) < set(seeds_of(run)):
        # Other calls made other replicates of the same search: the summary and the figure are of all.
        _summarize(read_search(run.path), run)
    return search


def _summarize(search: Search, run: RunDirectory) -> None:
    from lottery.results.figure import density_figure, save_figure

    described = {**as_json(search), "test_examples": search.test_examples, "config": search.config}
    write_json(run.path / "summary.json", described)
    save_figure(density_figure(search), run.path / "density.png")
