"""The rates of a machine: measured once, from disk then, and typical ones where nothing can be kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lottery.trainers.gd.chain import measuring
from lottery.trainers.gd.chain.paths import Rates
from pruning.errors import FileFormatError
from pruning.sparse.native.compiling import cache_folder

RATES = Rates(2.0, 1.0, 1.0, 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is measured, in a cache of its own."""
    asked: list[Any] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measuring, "measured_rates", lambda library: asked.append(library) or RATES)
    return asked


def rates() -> float:
    library: Any = "a library"
    return measuring.rates_of_machine(library).dense


def test_they_are_measured_once(home):
    assert [rates(), rates()] == [2.0, 2.0]
    assert len(home) == 1


def test_a_file_that_cannot_be_read_is_named(home):
    rates()
    (path,) = (cache_folder() / "native").glob("rates-*.json")
    path.write_text("{")
    with pytest.raises(FileFormatError, match=f"{path}.*remove the file"):
        rates()


def test_where_nothing_can_be_kept_they_do_not_depend_on_a_measurement(home, monkeypatch):
    def full(path: Path, *_: Any) -> None:
        raise measuring.StorageError(f"{path}: cannot be written")

    monkeypatch.setattr(measuring, "write_json", full)
    assert [rates(), rates()] == [measuring.TYPICAL.dense] * 2
    monkeypatch.setattr(measuring, "cache_folder", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    assert rates() == measuring.TYPICAL.dense
