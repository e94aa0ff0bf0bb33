"""The benchmark of starts, on small sizes: every case runs, and its memory is that of a process of its own."""

from __future__ import annotations

import pytest

from lottery.bench import starts, timings


@pytest.mark.parametrize("name", [name for name in starts.CASES if "ResNet" not in name])
def test_every_case_runs(name, monkeypatch):
    monkeypatch.setattr(starts, "WIDTH", 32)
    monkeypatch.setattr(starts, "LARGE", 64)
    starts.CASES[name]()


def test_seconds_and_peak_memory_are_reported(monkeypatch):
    (name,) = (name for name in starts.CASES if "ResNet" in name)
    monkeypatch.setattr(starts, "CASES", {name: starts.CASES[name]})
    report = starts.bench_init("", 1, "cpu")
    (row,) = report.rows
    assert row["seconds_per_start"] > 0
    assert row["peak_mib"] > 50
    assert name.partition(",")[0] in report.note and name in str(timings(report))
