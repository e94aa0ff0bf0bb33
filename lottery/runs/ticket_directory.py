"""A ticket directory: what its files are called, and how they are written with their hashes and read against them.

`config.json` is written last. Its `files` holds the SHA-256 of every other file, its `record_sha256` the hash of its
own content. Two things are left out: `README.md`, which is for people and may be rewritten, and the record's `given`,
which says where model and data are found and may be corrected by hand where these have moved. This finds damage and
mixtures, not forgery: who can write the files can write their hashes. A ticket of an earlier version has neither entry,
and is read without.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.runs.records import KIND, check_history, check_ticket
from pruning.disk.files import check_sha256, finite_json, is_there, read_bytes, read_json, read_tensors, write_json
from pruning.errors import FileFormatError
from pruning.jobs import Evaluation, Params
from pruning.mask import Mask

RECORD, CARD, HISTORY, MASK = "config.json", "README.md", "history.json", "mask.safetensors"
_SEAL = ("files", "record_sha256")
_OURS = re.compile(r"(model|mask|trained|best|last|std|step-\d+)\.safetensors|history\.json")
_SNAPSHOT = re.compile(r"step-(0|[1-9][0-9]{0,17})\.safetensors")


@dataclass(frozen=True)
class TicketDirectory:
    """A ticket directory whose record was read and checked; its other files are checked as they are read.

    Attributes:
        path: the folder.
        record: its `config.json`, without the hashes.
        hashes: the SHA-256 of every file, by name; None for a ticket of an earlier version, which has none.
        remedy: what the user can do where a file has changed since it was written.
    """

    path: Path
    record: dict[str, Any]
    hashes: Mapping[str, str] | None
    remedy: str

    def tensors(self, name: str) -> Params:
        """Return the arrays of `<name>.safetensors`; raises `FileFormatError` for a file that was not written so."""
        file = f"{name}.safetensors"
        with _saying(self.remedy):
            return read_tensors(self.path / file, self._expected(file))[0]

    def has(self, name: str) -> bool:
        """Say whether the ticket has a `<name>.safetensors`: by its record, where that lists its files."""
        file = f"{name}.safetensors"
        return is_there(self.path / file) if self.hashes is None else file in self.hashes

    def mask(self) -> Mask:
        """Return the mask; raises `FileFormatError` for one that is not this ticket's."""
        with _saying(self.remedy):
            mask = Mask.load(self.path / MASK, expected=self._expected(MASK))
            counts, said = (mask.kept, mask.total), (self.record["kept"], self.record["prunable"])
            # Where the hash was compared it is the file that was written, whatever its writer said about it.
            if self.hashes is None and counts != said:
                raise FileFormatError(
                    f"{self.path / MASK}: keeps {counts[0]:,} of {counts[1]:,} weights, and config.json says "
                    f"{said[0]:,} of {said[1]:,}: the mask of another ticket"
                )
            return mask

    def history(self) -> list[Evaluation]:
        """Return the evaluations of the training."""
        path = self.path / HISTORY
        with _saying(self.remedy):
            return check_history(path, read_json(path, self._expected(HISTORY)))

    def snapshots(self) -> dict[int, Params]:
        """Return the weights that were kept on the way, by step."""
        names = _names(self.path) if self.hashes is None else sorted(self.hashes)
        found = (match for name in names if (match := _SNAPSHOT.fullmatch(name)))
        return {int(match[1]): self.tensors(match[0].removesuffix(".safetensors")) for match in found}

    def check(self) -> None:
        """Compare every file with its hash; raises `FileFormatError` for the first one that differs."""
        with _saying(self.remedy):
            for name, expected in (self.hashes or {}).items():
                check_sha256(self.path / name, read_bytes(self.path / name), expected)

    def _expected(self, name: str) -> str | None:
        return None if self.hashes is None else self.hashes.get(name)


@contextmanager
def _saying(remedy: str) -> Iterator[None]:
    """Add what to do to the message of a file that is not what was written."""
    try:
        yield
    except FileFormatError as error:
        raise FileFormatError(f"{error}; {remedy}") from error


def open_ticket(folder: Path, remedy: str = "get a whole copy of this ticket") -> TicketDirectory:
    """Return a ticket directory with its record checked.

    Args:
        folder: the directory.
        remedy: what the user can do where a file has changed since it was written; for the end of a message.

    Raises:
        FileFormatError: a record that is damaged or none, a file that it does not list, or one that is missing.
    """
    path = folder / RECORD
    with _saying(remedy):
        found = read_json(path)
        if not isinstance(found, dict):
            raise FileFormatError(f"{path}: does not describe a lottery ticket")
        record = {key: value for key, value in found.items() if key not in _SEAL}
        hashes = _checked_seal(folder, found, record) if found.keys() & set(_SEAL) else None
        return TicketDirectory(folder, check_ticket(path, record), hashes, remedy)


def _checked_seal(folder: Path, found: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes in a record that is as it was written, in a folder that has these files and no others."""
    hashes = found.get("files")
    whole = found.get("record_sha256") == _hash({**record, "files": hashes})
    if not whole or not isinstance(hashes, dict) or not all(map(_is_hash, hashes.items())):
        raise FileFormatError(
            f"{folder / RECORD}: not what was written (its record_sha256 is that of another record: it is damaged, or "
            "was edited by hand)"
        )
    there = {name for name in _names(folder) if _OURS.fullmatch(name) or name in hashes}
    missing, more = sorted(hashes.keys() - there), sorted(there - hashes.keys())
    if missing:
        raise FileFormatError(f"{folder / missing[0]}: no such file, and config.json lists it")
    if more:
        raise FileFormatError(f"{folder / more[0]}: not a file of this ticket (config.json does not list it)")
    return hashes


def seal_ticket(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a ticket directory whose other files are all written."""
    others = [path for path in sorted(folder.iterdir()) if path.name not in (RECORD, CARD)]
    write_json(folder / RECORD, sealed(record, {path.name: _file_sha256(path) for path in others}))


def sealed(record: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with the hashes of its files and of itself.

    >>> sorted(sealed({"level": 1}, {"model.safetensors": "…"}))
    ['files', 'level', 'record_sha256']
    """
    whole = {**{key: value for key, value in finite_json(record).items() if key not in _SEAL}, "files": dict(hashes)}
    return {**whole, "record_sha256": _hash(whole)}


def is_ticket(folder: Path) -> bool:
    """Say whether a folder's record calls it a ticket, whole or damaged.

    >>> is_ticket(tmp)
    False
    >>> write_json(tmp / RECORD, {"kind": KIND})
    >>> is_ticket(tmp)
    True
    """
    try:
        record = read_json(folder / RECORD)
    except FileFormatError:
        return False
    return isinstance(record, dict) and record.get("kind") == KIND


def foreign_names(folder: Path) -> list[str]:
    """Return the names in a folder that no ticket directory has."""
    return [name for name in _names(folder) if name not in (RECORD, CARD) and not _OURS.fullmatch(name)]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise FileFormatError(f"{folder}: cannot be read ({error.strerror})") from error


def _is_hash(entry: tuple[str, Any]) -> bool:
    name, value = entry
    return isinstance(value, str) and name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)


def _hash(record: Mapping[str, Any]) -> str:
    covered = {key: value for key, value in record.items() if key != "given"}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
