"""A run opened again: its model, data and trainer, made as they were, for controls and analyses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery.networks.objectives.metric import GivenMetric
from lottery.networks.objectives.objective import GivenLoss
from lottery.runs.directory import RunDirectory
from lottery.runs.records import read_run_config, split_seed
from lottery.runs.replicates import seeds_of
from lottery.search.preparing.preparing import Prepared, Request, prepare_search
from lottery.search.preparing.telling_apart import FORMAT
from lottery.settings.functions import FUNCTIONS, check_stored_functions
from lottery.settings.trust import check_stored, given_or_stored
from lottery.state.behaviour import agree
from lottery.state.machine.telling import say
from pruning.calls.calling import Forward
from pruning.criteria import ScoreFunction
from pruning.disk.files import is_there
from pruning.errors import ConfigMismatch, FileFormatError, shown
from pruning.watch import Silent, Watch


def reopen(
    path: str | Path,
    model: Any = None,
    data: Any = None,
    *,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    criterion: str | ScoreFunction | None = None,
    functions: Mapping[str, Any] | None = None,
    device: str | None = None,
    watch: Watch | None = None,
    trust: bool = False,
) -> tuple[RunDirectory, Prepared]:
    """Return a run directory and the search that made it, ready to train more in the same frame.

    Args:
        path: the run directory.
        model: what the search was given; may be left out where it was a name.
        data: likewise.
        loss: likewise.
        metric: likewise.
        forward: likewise.
        criterion: likewise, where it was a function; or its name, `package.module:function`.
        functions: what the search was given as functions among its settings, by name: `optimizer`, `schedule`, `train`.
        device: where to train now; by default the trainer's own choice.
        watch: is told of progress.
        trust: run a model or criterion that only the run's records name as `package.module:name`.

    Raises:
        Untrusted: a model or criterion that only the records name, and that is not one of ours.
        FileFormatError: not a run directory, or one without a finished level.
        BadValue: a model or data that has no name and was not given.
        ConfigMismatch: another model or other data than the run was made with.
    """
    run = RunDirectory(Path(path))
    stored, record = _stored(run)
    settings = {key: value for key, value in record["config"].items() if key not in ("model", "data")}
    chosen = {
        kind: given_or_stored(kind, value, record, run.path, trust)
        for kind, value in (("model", model), ("data", data))
    }
    if criterion is None:
        check_stored("criterion", settings.get("criterion", ""), run.path, trust)
    if (forward is None) != ("forward" not in stored):
        raise ConfigMismatch(
            f"{run.path} was made with{'' if forward is None else 'out'} a `forward` of its caller's own: give the same"
        )
    settings |= functions or {}
    check_stored_functions({key: settings[key] for key in settings.keys() - (functions or {})}, run.path, trust)
    if device is not None:
        settings["device"] = device
    settings["split_seed"] = split_seed(settings)
    request = Request(chosen["model"], chosen["data"], settings, loss, metric, criterion, forward=forward)
    prepared = prepare_search(request, watch or Silent())
    _check_same(run, stored, prepared, chosen)
    return run, prepared


def stored_record(path: Path) -> dict[str, Any]:
    """Return the record of a run's dense level; raises `FileFormatError` where it is no run, or has no level yet."""
    return _stored(RunDirectory(path))[1]


def _check_same(run: RunDirectory, stored: Mapping[str, Any], prepared: Prepared, chosen: Mapping[str, Any]) -> None:
    """Raise `ConfigMismatch` where model, data, loss or metric are not those that a run was made with."""
    found = prepared.identity
    if stored.get("identity") != FORMAT:
        say(f"{run.path}: made by an earlier version; whether model and data are the same is not checked")
        return
    for kind in ("data", "model"):
        if found.settings[f"{kind}_fingerprint"] != stored.get(f"{kind}_fingerprint"):
            hint = (
                "; a ticket that was trained again begins at the ticket, and is not reopened" if kind == "model" else ""
            )
            raise ConfigMismatch(f"{run.path} was made with another {kind} than this one ({shown(chosen[kind])}){hint}")
    if found.settings["objective"] != stored.get("objective"):
        raise ConfigMismatch(f"{run.path} was made with another loss or metric ({stored['objective']})")
    if found.settings.get("forward") != stored.get("forward"):
        raise ConfigMismatch(f"{run.path} was made with another forward ({stored['forward']})")
    for kind in FUNCTIONS:
        if found.settings.get(f"{kind}_code") != stored.get(f"{kind}_code"):
            raise ConfigMismatch(f"{run.path} was made with another function for {kind}")
    if found.settings["device"] == stored.get("device") and not agree(stored.get("behaviour") or {}, found.behaviour):
        raise ConfigMismatch(
            f"{run.path} was made with a model, a loss or a metric that gave something else before training: code that "
            "they call has changed"
        )


def _stored(run: RunDirectory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's `config.json` and the record of a finished dense level."""
    if is_there(run.path / "mask.safetensors"):
        raise FileFormatError(f"{run.path}: a ticket directory, not a run (its run may be {run.path.parent.parent})")
    if not is_there(run.path / "config.json") or not is_there(run.path / "environment.json"):
        raise FileFormatError(f"{run.path}: not a run directory (no config.json and environment.json)")
    stored = read_run_config(run.path)
    begun = [seed for seed in seeds_of(run) if run.has(seed, 0)]
    if not begun:
        raise FileFormatError(f"{run.path}: no level is finished yet")
    return stored, run.read_record(begun[0], 0)
