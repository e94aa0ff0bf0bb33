"""From what people ask for to a search that is ready to run: settings, data, model, trainer, plan."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.data.datasets import load_data
from lottery.data.parts import Parts, Tensors, prepare
from lottery.data.unseen import Unseen
from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.networks.sources.choosing import model_source
from lottery.networks.sources.redrawing import check_initializer, warn_same_replicates
from lottery.networks.sources.source import ModelSource, Start
from lottery.runs.identity import Identity
from lottery.search.data_scores import DATA_SCORES
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.early_bird import check_early_bird
from lottery.search.levels.plan import Plan
from lottery.search.preparing.coverage import Coverage, coverage, warn_not_covered
from lottery.search.preparing.diet import on_diet
from lottery.search.preparing.planning import plan_of
from lottery.search.preparing.probing import prober_for, refusals
from lottery.search.preparing.smoothing import smoothed
from lottery.search.preparing.telling_apart import identity_of
from lottery.search.preparing.using import uses_for
from lottery.search.probes import TorchProber
from lottery.settings.config import SearchConfig
from lottery.settings.fields import build, check_names
from lottery.state.by_seed import BySeed
from lottery.trainers import TRAINERS, Ask, Setup
from pruning.calls.calling import Forward
from pruning.calls.users_code import one_line, users_code
from pruning.criteria import Criterion, ScoreFunction, get_criterion
from pruning.errors import BadValue, LotteryError, RunError, shown
from pruning.jobs import Budget, Job, Params, Prober, Trained
from pruning.mask import Mask
from pruning.patterns import get_pattern
from pruning.selection import select
from pruning.uses.uses import Uses
from pruning.watch import Watch

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.runs.ticket import Ticket


@dataclass(frozen=True)
class Request:
    """What a caller asks for.

    Attributes:
        model: a module, a JAX model, a callable, a name, `package.module:callable`, or None for the data's default.
        data: whatever `load_data` understands, or an environment's name.
        settings: flat settings of the search and of its trainer.
        loss: the caller's own loss, or None.
        metric: the caller's own metric, or None for the one that the settings name.
        criterion: the caller's own scoring function or its name, or None for the one that the settings name.
        out: the folder of all runs.
        force: start over.
        resume: go on with a stored run that nothing can tell apart from another experiment's.
        ticket: where training begins, instead of at the model's own initialization.
        forward: the caller's own way to hand a batch to the model, or None.
    """

    model: Any
    data: Any
    settings: Mapping[str, Any]
    loss: GivenLoss | None = None
    metric: GivenMetric | None = None
    criterion: str | ScoreFunction | None = None
    out: Path = Path("runs")
    force: bool = False
    resume: bool = False
    ticket: Ticket | None = None
    forward: Forward | None = None


@dataclass(frozen=True)
class Prepared:
    """A search that is ready to run.

    Attributes:
        plan: everything that decides it.
        setup: the trainer, and what it measures.
        ask: model, data, loss and metric, as the trainer was given them.
        initial: initial weights of each replicate, by seed; made when they are asked for.
        identity: what tells its run from others.
        name: the readable part of the run's name.
        coverage: what its masks cover.
    """

    plan: Plan
    setup: Setup
    ask: Ask
    initial: Mapping[int, Params]
    identity: Identity
    name: str
    coverage: Coverage

    @property
    def test_examples(self) -> int | None:
        """Size of the test part, where known."""
        parts = self.ask.parts
        return len(parts.test) if isinstance(parts, Parts) and isinstance(parts.test, Tensors) else None


def prepare_search(request: Request, watch: Watch) -> Prepared:
    """Resolve and check everything that a request names; nothing is written, and nothing trained but for a data diet.

    Args:
        request: what is asked for.
        watch: is told of the trainer's progress.

    Raises:
        UsageError: something in the request is wrong.
    """
    config, trainer_config = resolve(request.settings)
    parts = parts_of(request.data, config, request.forward)
    source = model_source(request.model, parts, config.init)
    if request.ticket is not None:
        source = source.starting_at(Start(request.ticket.params, request.ticket.mask))
    if request.forward is not None and not isinstance(source, ModelSource):
        raise BadValue(
            "forward calls PyTorch modules, and this model is in JAX: let its `apply` take the batch, as "
            "(params, lambda params, batch: …)"
        )
    if config.replicates > 1 and not source.varies:
        raise BadValue(
            f"{config.replicates} replicates need a callable that makes the model from a seed; "
            "a module instance has one initialization only"
        )
    metric = config.metric if request.metric is None else request.metric
    ask = Ask(source, parts, trainer_config, request.loss, metric, watch, config.seed, config.split_seed)
    ask = on_diet(smoothed(ask), config)
    parts = ask.parts
    setup = TRAINERS[config.trainer].value.setup(ask)
    with users_code(f"importing the criterion {config.criterion!r}"):
        criterion = get_criterion(request.criterion or config.criterion)
    prober = prober_for(ask, config, criterion.needs)
    _check_needs(criterion, setup, prober)
    model = parts.default_model if request.model is None else request.model  # one without a length is not false
    given = {"model": model, "data": request.data}
    uses = uses_for(ask, config)
    warn_not_covered(ask, config, source.prunable(config.seed, config.prunable, (), uses), uses)
    drawing = _drawing(config, criterion, prober, uses)
    check_early_bird(config, drawing)
    plan = plan_of(config, trainer_config, drawing, source, parts, setup, given, uses)
    covers = coverage(ask, list(plan.dense[config.seed]), uses)
    plan = replace(plan, about={**plan.about, "coverage": covers.as_json()})
    if setup.late_start is not None and (plan.rewind.to_step or plan.rewind.start):
        raise BadValue(setup.late_start)
    if config.early_bird is not None and "moves" in plan.about["config"]:
        _check_start(plan)
    initial = BySeed(source.initial_state)
    check_initializer(source, config.init, config.seed, plan.dense[config.seed])
    if request.ticket is None:
        warn_same_replicates({seed: initial[seed] for seed in config.seeds}, plan.dense[config.seed])
    _try_criterion(plan.drawing, initial[config.seed], plan.dense[config.seed])
    identity = identity_of(config, plan, setup, criterion, ask, initial, uses)
    name = f"{parts.name}-{source.name}-{config.trainer}-{config.criterion}"
    return Prepared(plan, setup, ask, initial, identity, name, covers)


def resolve(settings: Mapping[str, Any]) -> tuple[SearchConfig, Any]:
    """Return the search's and the trainer's configuration; raises `UsageError` for what is wrong.

    >>> resolve({"levels": 3, "lr": 0.1})[1].lr
    0.1
    """
    # A loop of the caller's own says by itself what trains.
    trainer = settings.get("trainer", "function" if "train" in settings else SearchConfig.trainer)
    settings = {**settings, "trainer": trainer}
    if not isinstance(trainer, str):
        raise BadValue(f"trainer must be a name, not {shown(trainer)}")
    kind = TRAINERS[trainer].value
    check_names(settings, SearchConfig, kind.config)
    config, trainer_config = build(SearchConfig, settings), build(kind.config, settings)
    DATA_SCORES[config.data_diet_score]  # a wrong name is said also where there is no diet
    if config.data_diet is not None and config.trainer == "function":
        raise BadValue("data_diet chooses training examples, and train brings its own: leave data_diet out")
    moves = getattr(trainer_config, "moves", "none")
    if moves != "none" and config.pattern != "unstructured":
        raise BadValue(f"moves {moves!r} exchanges single weights, which breaks pattern {config.pattern!r}")
    if moves != "none" and config.measure_at != "final":
        raise BadValue(
            f"moves {moves!r} changes the mask until the last step, and the weights at the early-stop step are under "
            "another mask than the ticket's: use measure_at 'final'"
        )
    return config, trainer_config


def parts_of(data: Any, config: SearchConfig, forward: Forward | None = None) -> Parts | Episodes | Fitness | Unseen:
    """Return checked parts of a data set, an environment, a fitness function, or nothing for a loop of your own."""
    if data is None and config.trainer == "function":
        return Unseen()
    if not isinstance(data, str | Path) and (task := _task(data)) is not None:
        if forward is not None:
            raise BadValue(f"{task.name} is no data set of which batches are handed to the model: leave forward out")
        return task
    if isinstance(data, str) and ":" in data:
        from es.tasks.environments import is_environment
        from lottery.data.episodes import load_episodes

        if is_environment(data):
            if forward is not None:
                raise BadValue(
                    f"{data} is an environment, whose observations are handed to the model: leave forward out"
                )
            return load_episodes(data)
    return prepare(load_data(data), config.split_seed, config.validation_size, forward)


def _task(data: Any) -> Episodes | Fitness | None:
    """Return an environment or a fitness function of the caller's; None for data."""
    from es.tasks.environments import is_environment_object
    from lottery.data.fitness import Fitness

    if isinstance(data, Fitness):
        return data
    if is_environment_object(data):
        from lottery.data.episodes import given_episodes

        return given_episodes(data)
    return Fitness(data) if isinstance(data, types.FunctionType | functools.partial) or _is_jitted(data) else None


def _is_jitted(thing: Any) -> bool:
    return callable(thing) and callable(getattr(thing, "lower", None)) and hasattr(thing, "__wrapped__")


def default_data(settings: Mapping[str, Any]) -> str | None:
    """Return the data of a search that names none: a loop of the caller's own brings its own.

    >>> default_data({}), default_data({"train": max})
    ('digits', None)
    """
    return None if "train" in settings else SearchConfig.data


def _check_needs(criterion: Criterion, setup: Setup, prober: Prober) -> None:
    """Raise `BadValue` with the reason why what the criterion needs cannot be had."""
    for need in sorted(criterion.needs - setup.trainer.provides - prober.provides):
        reasons = {**setup.refusals, **refusals(prober)}
        if need in reasons:
            raise BadValue(f"criterion {criterion.name!r}: {reasons[need]}")
        raise BadValue(f"criterion {criterion.name!r} needs {need!r}, which neither the trainer nor a probe gives")


def _drawing(config: SearchConfig, criterion: Criterion, prober: Prober, uses: Uses) -> Drawing:
    return Drawing(
        criterion=criterion,
        prober=prober,
        at=config.score_at or criterion.at,
        rounds=config.score_rounds or criterion.rounds,
        candidates=config.candidates,
        guard=config.guard,
        pattern=get_pattern(config.pattern, config.pattern_params).on(uses.axes),
        rows=uses.rows,
    )


def _check_start(plan: Plan) -> None:
    """Raise `BadValue` where level 0 is sparse and its mask moves on after the mask of level 1 was drawn."""
    if plan.about["config"]["moves"] != "none" and any(mask.kept < mask.total for mask in plan.dense.values()):
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
