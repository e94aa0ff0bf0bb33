"""What the JSON files of tickets and runs must hold, in one place: wrong inner types are an error with the file's name.

A newer version may write more entries; those pass, and nobody here reads them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottery.results.levels import EarlyStop
from lottery.state.json_kinds import Check, fraction, list_of, number, optional, table, table_of, text, truth, whole
from pruning.disk.files import is_there, read_json
from pruning.errors import FileFormatError
from pruning.jobs import Evaluation

FORMAT = 1
KIND = "lottery-ticket"

_SEED = whole(most=2**32 - 1)
_MEASURED = {"validation": optional(number), "test": optional(number)}


def _fields(of: type, kinds: Mapping[str, Check]) -> Check:
    """Return a check of an object that a dataclass can be made of; what is not named is a number or null."""
    checks = {field.name: kinds.get(field.name, optional(number)) for field in dataclasses.fields(of)}
    without_default = {
        field.name
        for field in dataclasses.fields(of)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    inner = table({name: checks[name] for name in checks if name in without_default}, checks)

    def check(where: str, value: Any) -> None:
        inner(where, value)
        unknown = [name for name in value if name not in checks]
        if unknown:
            raise ValueError(f"{where or 'it'} has an entry {unknown[0]!r} that nobody knows")

    return check


_SETTINGS = table(
    {},
    {
        **dict.fromkeys(("model", "data", "trainer", "criterion", "scope", "rewind", "measure_at", "init"), text),
        "strategy": optional(text),
        "seed": _SEED,
        "split_seed": optional(whole()),
        **dict.fromkeys(("seed_weights", "seed_mask", "seed_data"), optional(_SEED)),
        **dict.fromkeys(("validation_size", "tolerance", "data_diet"), optional(number)),
    },
)
_METRIC = {"name": text, "higher_is_better": truth, "is_fraction": truth}

# What every ticket says, also one that somebody put together and saved.
_TICKET = {
    "level": whole(),
    "seed": _SEED,
    "density": fraction,
    "sparsity": fraction,
    "kept": whole(),
    "prunable": whole(1),
    "layers": table_of(fraction),
    "validation": optional(number),
    "test": optional(number),
    "metric": table({"name": text}, _METRIC),
}
# What a level of a run says beside.
_LEVEL = {
    "metric": table(_METRIC),
    "final": table(_MEASURED),
    "early_stop": optional(_fields(EarlyStop, {"step": whole()})),
    "steps": whole(),
    "diverged": optional(text),
    "seconds": number,
    "init_sha256": text,
    "config": _SETTINGS,
}
_MORE = {
    "format": whole(1, FORMAT),
    **dict.fromkeys(("model", "data", "trainer", "criterion", "scope", "rewind", "measure_at"), text),
    **dict.fromkeys(("framework", "layout"), text),
    "train_examples": optional(whole()),
    "validation_examples": optional(whole()),
    "sizes": table({"input_shape": list_of(whole()), "outputs": whole()}),
    "delivered": optional(table({"at": text, "step": optional(whole())})),
    "given": table_of(text),
    "dense": optional(table({}, _MEASURED)),
    "early_bird_step": optional(whole()),
    "coverage": table(
        {}, {"parameters": fraction, "multiply_adds": optional(fraction), "left": table_of(fraction), "unseen": text}
    ),
    "transfer": table({}, {"identity": text}),
    "drawn_by": table({"init": text}),
}
_CHECK_TICKET = table(_TICKET, {**_MORE, **{name: check for name, check in _LEVEL.items() if name not in _TICKET}})
_CHECK_LEVEL = table({**_TICKET, **_LEVEL}, _MORE)
_CHECK_HISTORY = list_of(_fields(Evaluation, {"step": whole()}))
_CHECK_ENVIRONMENT = table({"device": text})
_CHECK_SUMMARY = table({}, {"stopped": optional(text), "test_examples": optional(whole())})
_CHECK_RUN = table({}, {"seed": _SEED, "data_fingerprint": text, "model_fingerprint": text})


def check_ticket(path: Path, record: Any) -> dict[str, Any]:
    """Return the record of a ticket; raises `FileFormatError` with the first entry that is not what it must be.

    >>> check_ticket(Path("config.json"), {"kind": "a letter"})
    Traceback (most recent call last):
    pruning.errors.FileFormatError: config.json: does not describe a lottery ticket
    """
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise FileFormatError(f"{path}: does not describe a lottery ticket")
    _checked(path, record, _CHECK_TICKET)
    if record["kept"] > record["prunable"]:
        raise FileFormatError(f"{path}: kept is {record['kept']:,}, more than the {record['prunable']:,} prunable")
    return record


def check_level(path: Path, record: dict[str, Any], seed: int, level: int) -> dict[str, Any]:
    """Return the record of one level of a run; raises `FileFormatError` for any other file or another level."""
    _checked(path, record, _CHECK_LEVEL)
    if (record["seed"], record["level"]) != (seed, level):
        raise FileFormatError(f"{path}: of seed {record['seed']}, level {record['level']}, which is not where it lies")
    if not record["layers"]:
        raise FileFormatError(f"{path}: layers names no tensor")
    return record


def check_history(path: Path, rows: Any) -> list[Evaluation]:
    """Return the evaluations that a `history.json` holds.

    >>> point = dict(step=9, train_loss=0.5, validation_loss=0.6, validation=0.9, test_loss=None, test=None)
    >>> check_history(Path("history.json"), [point])[0].validation
    0.9
    """
    return [Evaluation(**row) for row in _checked(path, rows, _CHECK_HISTORY)]


def read_environment(run: Path) -> dict[str, Any]:
    """Return a run's `environment.json`."""
    return _read(run / "environment.json", _CHECK_ENVIRONMENT)


def read_summary(run: Path) -> dict[str, Any]:
    """Return a run's `summary.json`, or nothing where the run is not finished.

    >>> read_summary(tmp)
    {}
    >>> _ = (tmp / "summary.json").write_text("[]")
    >>> read_summary(tmp)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.FileFormatError: ...
    """
    path = run / "summary.json"
    return _read(path, _CHECK_SUMMARY) if is_there(path) else {}


def read_run_config(run: Path) -> dict[str, Any]:
    """Return a run's `config.json`: its settings and fingerprints."""
    return _read(run / "config.json", _CHECK_RUN)


def weights_seed(record: Mapping[str, Any]) -> int:
    """Return the seed of a ticket's first weights, from its record.

    >>> weights_seed({"seed": 2}), weights_seed({"seed": 2, "config": {"seed_weights": 7}})
    (2, 7)
    """
    found = record.get("config", {}).get("seed_weights")
    return record["seed"] if found is None else found


def split_seed(config: Mapping[str, Any]) -> int:
    """Return the seed of the validation split in stored settings; earlier versions split by the seed.

    >>> split_seed({"seed": 3, "split_seed": None}), split_seed({"seed": 3, "split_seed": 0})
    (3, 0)
    """
    found = config.get("split_seed")
    return config.get("seed", 0) if found is None else found


def _read(path: Path, check: Check) -> Any:
    return _checked(path, read_json(path), check)


def _checked(path: Path, value: Any, check: Check) -> Any:
    try:
        check("", value)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from error
    return value
