"""A run opened again: its model, data and trainer, made as they were, for controls and analyses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lottery.runs.directory import RunDirectory
from lottery.runs.given import Given
from lottery.runs.records import read_run_config, split_seed
from lottery.runs.replicates import seeds_of
from lottery.search.frame.frame import Frame, frame_of
from lottery.search.preparing.telling_apart import FORMAT, identity_of
from lottery.search.recorded_trainer import recorded_trainer
from lottery.state.behaviour import agree
from lottery.state.machine.telling import say
from lottery.trainers.choosing import check_stored_functions, function_names
from pruning.disk.files import is_there
from pruning.errors import ConfigMismatch, FileFormatError, shown
from pruning.watch import Silent, Watch


def reopen(
    path: str | Path,
    given: Given | None = None,
    *,
    functions: Mapping[str, Any] | None = None,
    device: str | None = None,
    watch: Watch | None = None,
    trust: bool = False,
) -> tuple[RunDirectory, Frame]:
    """Return a run directory and the frame of the search that made it: whatever its criterion is, none is needed here.

    Args:
        path: the run directory.
        given: model, data, loss and metric of the search; model and data may be left out where they were names.
        functions: the settings of the search that were functions, by name: `optimizer`, `schedule`, `train`.
        device: where to train now; by default the trainer's own choice.
        watch: receives progress.
        trust: run a model that only the run's records name as `package.module:name`.

    Raises:
        Untrusted: a model that only the records name, and that is not one of ours.
        FileFormatError: not a run directory, or one without a finished level.
        BadValue: a model or data that has no name and was not given.
        ConfigMismatch: another model or other data than the run was made with.
    """
    run = RunDirectory(Path(path))
    stored, record = _stored(run)
    settings = {key: value for key, value in record["config"].items() if key not in ("model", "data")}
    given = (given or Given()).or_stored(record, run.path, trust)
    if (given.forward is None) != ("forward" not in stored):
        raise ConfigMismatch(
            f"{run.path} was made with{'' if given.forward is None else 'out'} a `forward` of its caller's own: "
            "give the same"
        )
    settings |= functions or {}
    check_stored_functions({key: settings[key] for key in settings.keys() - (functions or {})}, run.path, trust)
    if device is not None:
        settings["device"] = device
    settings["split_seed"] = split_seed(settings)
    frame = frame_of(given, settings, watch or Silent())
    _check_same(run, stored, frame, given)
    trainer = recorded_trainer(run.path, frame.setup)
    return run, replace(frame, setup=replace(frame.setup, trainer=trainer))


def stored_record(path: Path) -> dict[str, Any]:
    """Return the record of a run's dense level; raises `FileFormatError` where it is no run, or has no level yet."""
    return _stored(RunDirectory(path))[1]


def _check_same(run: RunDirectory, stored: Mapping[str, Any], frame: Frame, given: Given) -> None:
    """Raise `ConfigMismatch` where model, data, loss or metric are not those that a run was made with."""
    if stored.get("identity") != FORMAT:
        say(f"{run.path}: made by an earlier version; whether model and data are the same is not checked")
        return
    found = identity_of(frame)
    for kind, value in (("data", given.data), ("model", given.model)):
        if found.settings[f"{kind}_fingerprint"] != stored.get(f"{kind}_fingerprint"):
            hint = (
                "; a ticket that was trained again begins at the ticket, and is not reopened" if kind == "model" else ""
            )
            raise ConfigMismatch(f"{run.path} was made with another {kind} than this one ({shown(value)}){hint}")
    if found.settings["objective"] != stored.get("objective"):
        raise ConfigMismatch(f"{run.path} was made with another loss or metric ({stored['objective']})")
    if found.settings.get("forward") != stored.get("forward"):
        raise ConfigMismatch(f"{run.path} was made with another forward ({stored['forward']})")
    for kind in function_names():
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
