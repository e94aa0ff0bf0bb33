"""Training a ticket again: with another trainer or strategy, on other data, from another seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.results.levels import Search
from lottery.runs.given import Given
from lottery.runs.records import split_seed
from lottery.runs.ticket import Ticket
from lottery.search.levels.progress import Display
from lottery.search.preparing.preparing import Request
from lottery.search.running import run_search
from lottery.settings.config import SearchConfig
from lottery.trainers.choosing import check_stored_functions, layer, trainer_kind
from pruning.calls.calling import Forward
from pruning.errors import BadValue
from pruning.settings.setting import settings_of

# What a ticket was found with that also says how it is trained again.
_KEPT = ("validation_size", "measure_at", "tolerance", "seed", "metric")
# What decides which examples it was trained on; it means nothing on other data.
_DIET = ("data_diet", "data_diet_score", "data_diet_steps", "data_diet_networks", "data_diet_keep")


def train_ticket(
    ticket: Ticket,
    model: Any = None,
    data: Any = None,
    *,
    settings: Mapping[str, Any] | None = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    out: str | Path = "runs",
    force: bool = False,
    resume: bool = False,
    trust: bool = False,
    display: Display | None = None,
) -> Search:
    """Train a ticket from its rewind weights, under its mask, and return what came out: a search of one level.

    Args:
        ticket: the ticket to train.
        model: the architecture, as `find_ticket` takes it; by default the one that the ticket was found in.
        data: as for `find_ticket`; by default the data that the ticket was found with.
        settings: those that differ from how the ticket was found: `trainer`, `strategy`, `steps`, `replicates`, …
            Settings of the ticket's own trainer are kept where the trainer stays the same.
        loss: as for `find_ticket`.
        metric: as for `find_ticket`.
        forward: as for `find_ticket`.
        out: the folder in which runs are kept.
        force: start over.
        resume: go on with a stored run though nothing tells whether it is of the same experiment.
        trust: run a model that only the ticket's record names as `package.module:callable`.
        display: shows progress.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        BadValue: a setting of pruning, or a ticket that does not say what model or data it belongs to.
        MaskMismatch: a model that the ticket does not fit.
    """
    settings = dict(settings or {})
    pruning = sorted({"levels", "sparsity", "densities", "prune_rate", "rewind", "criterion"} & settings.keys())
    if pruning:
        raise BadValue(f"{pruning[0]} prunes, and training a ticket again does not: leave it out")
    where = ticket.path or "this ticket"
    same_data = data is None or (isinstance(data, str) and data == ticket.info.get("given", {}).get("data"))
    given = Given(model, data, loss, metric, forward).or_stored(ticket.info, where, trust, ticket.named)
    named = {key: value for key, value in (("model", given.model), ("data", given.data)) if isinstance(value, str)}
    inherited = _inherited(ticket, settings, same_data)
    check_stored_functions({key: inherited[key] for key in inherited.keys() - settings}, where, trust)
    merged = layer(inherited, settings, named, {"levels": 0, "prunable": tuple(ticket.mask)})
    request = Request(given, merged, out=Path(out), force=force, resume=resume, ticket=ticket)
    return run_search(request, display or Display(False, None))


def _inherited(ticket: Ticket, settings: Mapping[str, Any], same_data: bool) -> dict[str, Any]:
    """Return the settings that the ticket was trained with and that still apply."""
    found: Mapping[str, Any] = ticket.info.get("config", {})
    trainer = settings.get("trainer", found.get("trainer", SearchConfig.trainer))
    inherited = {"trainer": trainer, **{key: found[key] for key in _KEPT if found.get(key) is not None}}
    # The mask was learned on this split: another one would make a choice on what it was learned from.
    if same_data:
        inherited |= {key: found[key] for key in _DIET if found.get(key) is not None}
    inherited["split_seed"] = split_seed(found)
    if trainer != found.get("trainer"):
        return inherited
    kind = trainer_kind(str(trainer))
    # What belongs to a criterion or a machine says nothing of how the ticket is trained.
    fields = settings_of(kind.config).keys() - kind.scoring - kind.no_result
    return inherited | {key: found[key] for key in fields if found.get(key) is not None}
