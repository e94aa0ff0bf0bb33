"""What a caller hands over of an experiment, and what is found again of a stored one where they hand over nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.runs.records import read_run_config
from lottery.settings.trust import given_or_stored
from pruning.calls.calling import Forward


@dataclass(frozen=True)
class Given:
    """What a caller hands over and no file can hold.

    Attributes:
        model: a module, a JAX model, a callable, a name, `package.module:callable`, or None for the data's default.
        data: whatever `load_data` understands, or an environment.
        loss: the caller's own loss, or None.
        metric: the caller's own metric, or None for the one that the settings name.
        forward: the caller's own way to hand a batch to the model, or None.
    """

    model: Any = None
    data: Any = None
    loss: GivenLoss | None = None
    metric: GivenMetric | None = None
    forward: Forward | None = None

    def or_stored(self, record: Mapping[str, Any], where: object, trust: bool, named: Collection[str] = ()) -> Given:
        """Return the same, with the model and the data that a stored record names where the caller gave none.

        Args:
            record: the record of a ticket or a level.
            where: the ticket or run, for messages.
            trust: run a model that only the record names as `package.module:callable`.
            named: names that the caller has already given in this process.

        Raises:
            BadValue: a model or data that has no name and was not given.
            Untrusted: a model that only the record names, and that is not one of ours.

        >>> Given(data=[1]).or_stored({"given": {"model": "mlp"}}, "ticket", False).model
        'mlp'
        """
        model = given_or_stored("model", self.model, record, where, trust, named)
        return replace(self, model=model, data=given_or_stored("data", self.data, record, where, trust, named))


def run_of(ticket: Path | None) -> Path | None:
    """Return the run directory that a ticket directory lies in; None for one that was saved elsewhere, or nowhere."""
    above = ticket.resolve().parents if ticket is not None else ()
    return next((folder for folder in above if (folder / "environment.json").exists()), None)


def run_config_of(ticket: Path | None) -> dict[str, Any] | None:
    """Return the configuration of the run that a ticket lies in, or None for one that was saved elsewhere."""
    run = run_of(ticket)
    return read_run_config(run) if run is not None else None
