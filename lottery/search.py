"""A search from beginning to end."""

from __future__ import annotations

from collections.abc import Sequence

from lottery.engine import Plan, run_seconds, search_levels
from lottery.environment import environment
from lottery.preparing import Request, prepare_search
from lottery.progress import Display, Recorder
from lottery.results import Level, Search
from lottery.run_directory import RunDirectory, open_run
from lottery.summary import as_json
from lottery.trainers import Setup
from lottery.winning import choose_winner, matching_tolerance
from pruning.files import write_json


def run_search(request: Request, display: Display) -> Search:
    """Run a search from beginning to end, or from where an earlier attempt stopped.

    Raises:
        UsageError: something in the request is wrong; nothing was trained.
        RunError: the run failed; finished levels are on disk.
    """
    recorder = Recorder(display)
    ready = prepare_search(request, recorder)
    plan, setup = ready.plan, ready.setup
    with open_run(request.out, ready.name, ready.identity, request.force) as run:
        recorder.record_to(run)
        if not (run.path / "environment.json").exists():
            write_json(run.path / "environment.json", environment(setup.device))
        with display.searching(len(plan.targets), setup.metric, ready.test_examples):
            levels = search_levels(plan, setup.trainer, ready.initial, run, recorder)
        return _conclude(plan, run, levels, setup, ready.test_examples)


def _conclude(plan: Plan, run: RunDirectory, levels: Sequence[Level], setup: Setup, examples: int | None) -> Search:
    from lottery.figure import density_figure, save_figure

    metric = setup.metric
    tolerance = matching_tolerance(levels[0], plan.config.tolerance, metric.is_fraction)
    winner, reason = choose_winner(levels, tolerance.value, metric.higher_is_better)
    stopped = None
    if len(levels) < len(plan.targets):
        stopped = f"every replicate had diverged by level {levels[-1].level} of {len(plan.targets) - 1}"
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
        test_examples=examples,
        seconds=run_seconds(run, levels),
        device=setup.device,
        config=plan.about["config"],
    )
    write_json(run.path / "summary.json", {**as_json(search), "test_examples": examples, "config": search.config})
    save_figure(density_figure(search), run.path / "density.png")
    return search
