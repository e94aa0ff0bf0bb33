"""A start drawn under a mask, with the report on it: what `lottery init` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery.networks.initializers.first import FIRST
from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.networks.sources.choosing import init_for, model_source
from lottery.networks.sources.repairing import repaired_start, tensors_of
from lottery.runs.given import Given
from lottery.runs.ticket import Ticket
from lottery.search.frame.beginning import scheme_of
from lottery.search.frame.fitting import able, learned_from
from lottery.search.frame.frame import Frame, frame_of
from lottery.search.frame.resolving import parts_of
from lottery.search.frame.seeds import job_seed, mask_seed, weights_seed
from lottery.search.levels.plan import plan_of
from lottery.search.levels.storing import described, of_mask
from lottery.search.preparing.preparing import drawing_of
from lottery.settings.config import SearchConfig
from lottery.settings.fields import spoken
from lottery.settings.schemes import initializer_named, repair_named
from lottery.state.tensors import digest
from lottery.studies.starting.looking import lens_on
from lottery.studies.starting.report import StartReport, report_on
from pruning.calls.calling import Forward
from pruning.calls.users_code import users_code
from pruning.criteria import Criterion
from pruning.errors import BadValue
from pruning.jobs import Budget, Job, Params, Trained
from pruning.mask import Mask
from pruning.watch import Silent

EXAMPLES = 64


@dataclass(frozen=True, eq=False)
class Started:
    """A start.

    Attributes:
        ticket: mask and weights, ready to be saved and trained; nothing of it is trained.
        report: what the start says of the training to come.
    """

    ticket: Ticket
    report: StartReport

    def __str__(self) -> str:
        """Return the report as plain text."""
        return str(self.report)


@dataclass(frozen=True)
class Asked:
    """Which start is wanted.

    Attributes:
        init: how weights are drawn: a scheme or its name; None for the model's own, or the ticket's.
        init_params: settings of the scheme.
        mask: what is kept; None for what `density` says.
        density: the fraction that is kept, by criterion and scope of the settings; None for all.
        repair: the name of a repair, or None.
        repair_params: settings of the repair.
        examples: how many examples the report looks at.
    """

    init: Any = None
    init_params: Mapping[str, Any] | None = None
    mask: Mask | None = None
    density: float | None = None
    repair: str | None = None
    repair_params: Mapping[str, Any] | None = None
    examples: int = EXAMPLES


def start(
    model: Any = None,
    data: Any = "digits",
    *,
    init: Any = None,
    init_params: Mapping[str, Any] | None = None,
    mask: Mask | str | Path | None = None,
    density: float | None = None,
    repair: str | None = None,
    repair_params: Mapping[str, Any] | None = None,
    examples: int = EXAMPLES,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    **settings: Any,
) -> Started:
    """Draw the start of a sparse network, and report layer by layer whether it can train. Nothing is trained.

    Args:
        model: as `find_ticket` takes it; or a `Ticket`, whose weights at the rewind point are looked at, or drawn anew
            under its mask where `init` is given.
        data: as for `find_ticket`.
        init: an initializer (`lottery list initializers`), a function `(weight, rng)`, or None.
        init_params: settings of the initializer.
        mask: a mask, a mask file or a ticket's folder; by default drawn at `density`.
        density: the fraction of the prunable weights to keep; by default all.
        repair: a repair of the weights under the mask (`lottery list repairs`).
        repair_params: settings of the repair.
        examples: how many examples the report looks at.
        loss: as for `find_ticket`.
        metric: as for `find_ticket`.
        forward: as for `find_ticket`.
        **settings: of a search: `criterion` (by default `random`), `scope`, `seed`, `prunable`, `skip`, …

    Raises:
        UsageError: a wrong name or value, a scheme that cannot serve a layer, a mask that does not fit.

    >>> print(start("mlp", init="unit-scaled", density=0.1, scope="erk").report.verdict.trainable)
    True
    """
    given_mask = _read_mask(mask) if isinstance(mask, str | Path) else mask
    if given_mask is not None and density is not None:
        raise BadValue("give a mask or a density, not both")
    if density is not None and density == 0:
        raise BadValue("density must be more than 0: at 0 nothing is kept")
    density = None if density == 1 else density
    _check_named(init, init_params, repair, repair_params)
    asked = Asked(init, init_params, given_mask, density, repair, repair_params, examples)
    if isinstance(model, Ticket):
        return _of_ticket(model, Given(None, data, loss, metric, forward), asked, settings)
    chosen = {"criterion": "random", **settings}
    chosen |= {"densities": (density,)} if density is not None else {"levels": 0}
    chosen.setdefault("trainer", _trainer_for(model, data, forward))
    frame = frame_of(Given(model, data, loss, metric, forward), chosen, Silent())
    seed = frame.config.seed
    dense = frame.dense[seed]
    fitted = _drawn_mask(frame, density) if given_mask is None else given_mask.fit(dense.shapes())
    return _started(frame, asked, dict(frame.initial[seed]), fitted)


def _check_named(init: Any, init_params: Any, repair: Any, repair_params: Any) -> None:
    for kind, name, given in (("init", init, init_params), ("repair", repair, repair_params)):
        if given and name is None:
            raise BadValue(
                f"{kind}_params are settings of {kind}, and none is named: {', '.join(given)}; give {kind} too"
            )


def of_ticket(
    ticket: Ticket, model: Any = None, data: Any = None, *, trust: bool = False, asked: Asked | None = None
) -> Started:
    """As `start`, for a stored ticket whose model and data its record names.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        BadValue: a model or data that has no name and was not given.
    """
    where = ticket.path or "this ticket"
    if asked is not None:
        _check_named(asked.init, asked.init_params, asked.repair, asked.repair_params)
    given = Given(model, data).or_stored(ticket.info, where, trust, ticket.named)
    return _of_ticket(ticket, given, asked or Asked(), {})


def report_of(frame: Frame, seed: int, weights: Params, mask: Mask) -> StartReport:
    """Return the report on weights of a search under a mask."""
    init = init_for(frame.ask.source, frame.ask.parts, "model")
    tensors = tensors_of(frame.ask.source, init, seed, mask)
    return report_on(tensors, weights, lens_on(frame, init, weights, mask, EXAMPLES), knows_mask=True)


def _of_ticket(ticket: Ticket, given: Given, asked: Asked, settings: Mapping[str, Any]) -> Started:
    if asked.mask is not None or asked.density is not None:
        raise BadValue("a ticket has its own mask: leave mask and density out")
    if given.model is None:
        given = given.or_stored(ticket.info, ticket.path or "this ticket", False, ticket.named)
    chosen = {"seed": ticket.info["seed"], **settings, "levels": 0, "prunable": tuple(ticket.mask)}
    return _started(frame_of(given, chosen, Silent(), ticket), asked, dict(ticket.params), ticket.mask)


def _trainer_for(model: Any, data: Any, forward: Forward | None) -> str:
    """Return a trainer that takes this model and these data: nothing is trained, and its settings do not matter."""
    parts = parts_of(data, SearchConfig(), forward)
    fitting = able(learned_from(parts), model_source(model, parts).framework)
    return SearchConfig.trainer if SearchConfig.trainer in fitting or not fitting else fitting[0]


def _read_mask(path: str | Path) -> Mask:
    path = Path(path)
    return Ticket.load(path).mask if path.is_dir() else Mask.load(path)


def _drawn_mask(frame: Frame, density: float | None) -> Mask:
    """Return the mask that the criterion draws at the start, as a search would that scores the rewind point."""
    seed = frame.config.seed
    dense, initial = frame.dense[seed], frame.initial[seed]
    if density is None:
        return dense
    drawing = replace(drawing_of(frame), at="rewind")
    lacking = drawing.criterion.needs - drawing.prober.provides
    if lacking:
        raise BadValue(
            f"criterion {drawing.criterion.name!r} needs {', '.join(sorted(lacking))} of a training, and nothing is "
            "trained here; use random, magnitude, snip, grasp or synflow"
        )
    job = Job(initial, dense, job_seed(mask_seed(frame.config, seed), 0), Budget(0, 0))
    _check_ranks(drawing.criterion, job)
    return drawing.draw(Trained(initial, []), job, initial, plan_of(frame, drawing).targets[1])


def _check_ranks(criterion: Criterion, job: Job) -> None:
    """Refuse a criterion that looks at what training changed: it would keep the first weights of the first tensors."""
    if criterion.needs:
        return
    with users_code(f"the criterion {criterion.name!r}"):
        scores = criterion.score(Trained(job.params, []), job)
    values = np.concatenate([np.ravel(np.asarray(each)) for each in scores.values()])
    if len(values) > 1 and values.min() == values.max():
        raise BadValue(
            f"criterion {criterion.name!r} gives all weights the same score where nothing is trained: use random, "
            "magnitude, snip, grasp or synflow"
        )


def _started(frame: Frame, asked: Asked, params: dict[str, Any], mask: Mask) -> Started:
    source, parts, seed = frame.ask.source, frame.ask.parts, weights_seed(frame.config, frame.config.seed)
    scheme = scheme_of(frame.config)
    if asked.init is not None:
        scheme = initializer_named(asked.init, asked.init_params)
    init = init_for(source, parts, scheme)
    notes: list[str] = []
    weights: Params = params
    if init.changes:
        drawn = source.drawn(seed, mask, init)
        weights, mask = drawn.params, drawn.mask
        notes += [f"{name!r} keeps the model's own start: {why}" for name, why in drawn.left.items() if name in mask]
        notes += _at_zero(weights, mask) if scheme.chooses_mask else []
    if asked.repair is not None:
        how = repair_named(asked.repair, asked.repair_params)
        weights, mended = repaired_start(source, init, parts, seed, (weights, mask), how)
        notes += [f"{asked.repair} left {name!r} as it was: {why}" for name, why in mended.left.items()]
    tensors = tensors_of(source, init, seed, mask)
    aside = [name for name in mask if name not in {tensor.name for tensor in tensors}]
    notes += [f"what {name!r} does in the network is not known: it is left out here" for name in aside]
    lens = lens_on(frame, init, weights, mask, asked.examples)
    knows = asked.repair is not None or (init.changes and scheme.name not in FIRST)
    tried = {scheme.name, asked.repair or ""}
    report = report_on(tensors, weights, lens, knows_mask=knows, tried=tried, notes=notes)
    return Started(_ticket(frame, asked, scheme.name, weights, mask), report)


def _at_zero(weights: Params, mask: Mask) -> list[str]:
    """Say how many entries a scheme trains from 0, to keep as many as were asked for."""
    zero = {name: int((weights[name][keep] == 0).sum()) for name, keep in mask.items()}
    count = sum(zero.values())
    return [f"{count:,} of {mask.kept:,} trained weights start at 0, to keep exactly this many"] if count else []


def _ticket(frame: Frame, asked: Asked, init: str, weights: Params, mask: Mask) -> Ticket:
    seed, facts = frame.config.seed, frame.facts
    level, sha = int(mask.density < 1), digest(dict(weights))
    named = described(facts, mask, seed, level, sha)
    init = init if asked.init is None else spoken(asked.init)
    drawn = {"init": init, "init_params": dict(asked.init_params or {}), "repair": asked.repair}
    recorded = facts.as_json()
    info = {
        **of_mask(named, seed, level),
        "validation": None,
        "test": None,
        "init_sha256": sha,
        **recorded,
        "config": {**recorded["config"], "init": init},
        "start": {**drawn, "repair_params": dict(asked.repair_params or {})},
    }
    return Ticket(named, weights, None, info)
