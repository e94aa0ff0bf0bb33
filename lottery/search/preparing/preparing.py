"""From a request to a search that is ready to run: the frame, how masks are drawn, how many weights stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.runs.given import Given
from lottery.runs.identity import Identity
from lottery.search.frame.frame import Frame, frame_of
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.early_bird import check_early_bird
from lottery.search.levels.plan import SearchPlan, plan_of
from lottery.search.preparing.probing import prober_for, refusals
from lottery.search.preparing.telling_apart import identity_of
from lottery.search.probes import TorchProber
from lottery.trainers.choosing import trainer_kind
from pruning.calls.users_code import one_line, users_code
from pruning.criteria import Criterion, ScoreFunction, get_criterion
from pruning.errors import BadValue, LotteryError, RunError
from pruning.jobs import Budget, Job, Params, Prober, Trained
from pruning.mask import Mask
from pruning.selection import select
from pruning.watch import Watch

if TYPE_CHECKING:
    from lottery.runs.ticket import Ticket


@dataclass(frozen=True)
class Request:
    """A search as a caller asks for it.

    Attributes:
        given: model, data, loss, metric.
        settings: flat settings of the search and of its trainer.
        criterion: the caller's own scoring function or its name, or None for the one that the settings name.
        out: the folder of all runs.
        force: start over.
        resume: go on with a stored run that nothing can tell apart from another experiment's.
        ticket: where training begins, instead of at the model's own initialization.
    """

    given: Given
    settings: Mapping[str, Any]
    criterion: str | ScoreFunction | None = None
    out: Path = Path("runs")
    force: bool = False
    resume: bool = False
    ticket: Ticket | None = None


@dataclass(frozen=True)
class Prepared:
    """A search that is ready to run.

    Attributes:
        frame: the model, the data and the trainer.
        plan: everything that decides it.
        identity: tells its run from other runs.
    """

    frame: Frame
    plan: SearchPlan
    identity: Identity


def prepare_search(request: Request, watch: Watch) -> Prepared:
    """Resolve and check everything that a request names; nothing is written, and only a data diet trains anything.

    Args:
        request: model, data and settings.
        watch: receives the trainer's progress.

    Raises:
        UsageError: something in the request is wrong.
    """
    frame = frame_of(request.given, request.settings, watch, request.ticket)
    drawing = drawing_of(frame, request.criterion)
    check_early_bird(frame.config, drawing)
    plan = plan_of(frame, drawing)
    _check_moves(frame)
    _try_criterion(drawing, frame.initial[frame.config.seed], frame.dense[frame.config.seed])
    return Prepared(frame, plan, identity_of(frame, drawing.criterion))


def drawing_of(frame: Frame, criterion: str | ScoreFunction | None = None) -> Drawing:
    """Return how the masks of a search are drawn.

    Args:
        frame: the frame of the search.
        criterion: the caller's own, or None for the one that the settings name.

    Raises:
        BadValue: a criterion that needs what neither the trainer nor a probe gives.
    """
    config = frame.config
    with users_code(f"importing the criterion {config.criterion!r}"):
        found = get_criterion(criterion or config.criterion)
    prober = prober_for(frame.ask, config, found.needs)
    _check_needs(found, frame, prober)
    return Drawing(
        criterion=found,
        prober=prober,
        at=config.score_at or found.at,
        rounds=config.score_rounds or found.rounds,
        candidates=config.candidates,
        guard=config.guard,
        pattern=frame.pattern,
        rows=frame.uses.rows,
    )


def _check_needs(criterion: Criterion, frame: Frame, prober: Prober) -> None:
    """Raise `BadValue` where something that the criterion needs is not available, with the reason."""
    for need in sorted(criterion.needs - frame.setup.trainer.provides - prober.provides):
        reasons = {**frame.setup.refusals, **refusals(prober)}
        if need in reasons:
            raise BadValue(f"criterion {criterion.name!r}: {reasons[need]}")
        raise BadValue(f"criterion {criterion.name!r} needs {need!r}, which neither the trainer nor a probe gives")


def _check_moves(frame: Frame) -> None:
    """Raise `BadValue` where level 0 is sparse and its mask moves on after the mask of level 1 was drawn."""
    moves = trainer_kind(frame.config.trainer).moves(frame.ask.config)
    if frame.config.early_bird is not None and moves and any(mask.kept < mask.total for mask in frame.dense.values()):
        raise BadValue("early_bird and moves need a dense network at level 0; leave one of the two out")


def _try_criterion(drawing: Drawing, params: Params, mask: Mask) -> None:
    """Score the initial weights, so that a criterion that cannot work is an error before anything is trained."""
    criterion, prober, job = drawing.criterion, drawing.prober, Job(params, mask, 0, Budget(0, 0))
    if criterion.needs - prober.provides:
        return
    try:
        # A glance is enough to see whether the probes work on this model.
        brief = replace(prober, examples=8, steps=1) if isinstance(prober, TorchProber) else prober
        evidence = brief.look(job, mask.density, criterion.needs) if criterion.needs else {}
        scores = criterion.score(Trained(params, history=[], evidence=evidence), job)
        select(scores, mask, mask.kept, guard=0)
    except LotteryError as error:
        raise BadValue(f"criterion {criterion.name!r} cannot score this model ({error})") from error
    except (Exception, SystemExit) as error:  # a caller's function may raise anything
        kind = RunError if isinstance(error, SystemExit) else BadValue
        raise kind(f"criterion {criterion.name!r} cannot score this model ({one_line(error)})") from error
