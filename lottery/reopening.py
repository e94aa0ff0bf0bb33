"""A run opened again: its model, data and trainer, made as they were, for controls and analyses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery.objective import BatchFunction, Metric
from lottery.preparing import Prepared, Request, prepare_search
from lottery.run_directory import RunDirectory
from pruning.criteria import ScoreFunction
from pruning.errors import BadValue, ConfigMismatch, FileFormatError
from pruning.files import read_json
from pruning.watch import Silent, Watch


def reopen(
    path: str | Path,
    model: Any = None,
    data: Any = None,
    *,
    loss: BatchFunction | None = None,
    metric: Metric | BatchFunction | None = None,
    criterion: ScoreFunction | None = None,
    device: str | None = None,
    watch: Watch | None = None,
) -> tuple[RunDirectory, Prepared]:
    """Return a run directory and the search that made it, ready to train more in the same frame.

    Args:
        path: the run directory.
        model: what the search was given; may be left out where it was a name.
        data: likewise.
        loss: likewise.
        metric: likewise.
        criterion: likewise, where it was a function.
        device: where to train now; by default the trainer's own choice.
        watch: is told of progress.

    Raises:
        FileFormatError: not a run directory, or one without a finished level.
        BadValue: a model or data that has no name and was not given.
        ConfigMismatch: another model or other data than the run was made with.
    """
    run = RunDirectory(Path(path))
    stored, record = _stored(run)
    settings = {key: value for key, value in record["config"].items() if key not in ("model", "data")}
    given: Mapping[str, str] = record.get("given", {})
    chosen = {"model": model, "data": data}
    for kind, value in chosen.items():
        if value is None and kind not in given:
            raise BadValue(f"{run.path}: its {kind} has no name; say which with {kind}=… (--{kind})")
        chosen[kind] = given[kind] if value is None else value
    if device is not None:
        settings["device"] = device
    request = Request(chosen["model"], chosen["data"], settings, loss, metric, criterion)
    prepared = prepare_search(request, watch or Silent())
    for kind in ("data", "model"):
        if prepared.identity[f"{kind}_fingerprint"] != stored.get(f"{kind}_fingerprint"):
            hint = (
                "; a ticket that was trained again begins at the ticket, and is not reopened" if kind == "model" else ""
            )
            raise ConfigMismatch(f"{run.path} was made with another {kind} than this one ({chosen[kind]!r}){hint}")
    if prepared.identity["objective"] != stored.get("objective"):
        raise ConfigMismatch(f"{run.path} was made with another loss or metric ({stored['objective']})")
    return run, prepared


def _stored(run: RunDirectory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's `config.json` and the record of a finished dense level."""
    if (run.path / "mask.safetensors").exists():
        raise FileFormatError(f"{run.path}: a ticket directory, not a run (its run may be {run.path.parent.parent})")
    if not (run.path / "config.json").exists() or not (run.path / "environment.json").exists():
        raise FileFormatError(f"{run.path}: not a run directory (no config.json and environment.json)")
    stored = read_json(run.path / "config.json")
    if not isinstance(stored, dict):
        raise FileFormatError(f"{run.path / 'config.json'}: not a run's configuration")
    seed = stored.get("seed", 0)
    if not run.has(seed, 0):
        raise FileFormatError(f"{run.path}: no level is finished yet")
    return stored, run.read_record(seed, 0)
