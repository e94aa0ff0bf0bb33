"""The plan of a search: everything that decides it, resolved; and a search at work on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lottery.runs.directory import RunDirectory
from lottery.search.frame.beginning import Beginning, beginning_of
from lottery.search.frame.facts import Facts
from lottery.search.frame.frame import Frame
from lottery.search.frame.rewind import Rewind
from lottery.search.levels.drawing import Drawing
from lottery.settings.config import SearchConfig
from lottery.settings.ladder import ladder
from pruning.jobs import Params, Trainer
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.scopes import SCOPES
from pruning.selection import check_targets


@dataclass(frozen=True)
class SearchPlan:
    """Everything that decides a search, resolved.

    Attributes:
        config: the search's configuration.
        drawing: how masks are drawn.
        targets: how many weights each level keeps, level 0 first.
        dense: the mask of level 0, by replicate seed.
        rewind: where survivors go back to.
        beginning: what happens to weights and mask between there and the training.
        total_steps: steps of a whole training.
        facts: the facts that every ticket records.
    """

    config: SearchConfig
    drawing: Drawing
    targets: Sequence[Target]
    dense: Mapping[int, Mask]
    rewind: Rewind
    beginning: Beginning
    total_steps: int
    facts: Facts


@dataclass(frozen=True)
class Work:
    """A search at work.

    Attributes:
        plan: the plan of the search.
        trainer: turns jobs into trained weights.
        initial: initial weights of each replicate, by seed.
        run: where levels are stored.
    """

    plan: SearchPlan
    trainer: Trainer
    initial: Mapping[int, Params]
    run: RunDirectory


def plan_of(frame: Frame, drawing: Drawing) -> SearchPlan:
    """Return the plan of a search; raises `UsageError` for a schedule that this network cannot have."""
    config, dense = frame.config, frame.dense
    first = dense[config.seed]
    targets = ladder(config, first.counts(), first.shapes(), frame.uses if SCOPES[config.scope].value.follows else None)
    for mask in dense.values():
        candidates = Mask.dense(mask.shapes()) if config.candidates == "all" else mask
        check_targets(targets, candidates, config.guard, frame.pattern)
    beginning = beginning_of(config, frame.ask, frame.pattern, len(targets) - 1)
    return SearchPlan(config, drawing, targets, dense, frame.rewind, beginning, frame.setup.total_steps, frame.facts)
