"""Whatever lies where measured choices are kept: what is not as it was written is measured again, and nothing fails."""

from __future__ import annotations

import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing import choosing as choosing_file
from pruning.sparse.module import sparse_module

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def make(path: Path) -> nn.Module:
    network = model()
    mask = Mask({name: torch.eye(*p.shape).bool().numpy() for name, p in network.named_parameters() if p.dim() == 2})
    return sparse_module(network, mask, X, choosing=Choosing(cache=path, seconds=0.0)).eval()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    make(tmp_path / "choices.json")
    return tmp_path / "choices.json"


def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every layer that is measured; dense always wins."""
    seen: list[int] = []

    def fastest(runs: dict[str, Any], *_: Any) -> tuple[str, dict[str, float]]:
        seen.append(len(runs))
        return "dense", dict.fromkeys(runs, 1.0)

    monkeypatch.setattr(choosing_file, "fastest", fastest)
    return seen


WRONG: list[Any] = [None, [], {}, "", "sparse", 0, -1, True, 10**400, 1e308, float("nan"), float("inf"), [[]], {"a": 1}]
WRONG += ["\ud800", {"weight": []}, {"weight": {}}, ["dense"], {"": "dense"}, "dense\n"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in inner for found in places(child, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return copy


def test_a_hundred_wrong_caches_are_measured_again(cache, monkeypatch):
    good = json.loads(cache.read_text())
    generator = random.Random(0)
    measured = told(monkeypatch)
    for _ in range(100):
        path = generator.choice(places(good))
        wrong = changed(good, path, generator.choice(WRONG))
        if json.dumps(wrong) == json.dumps(good):
            continue
        cache.write_text(json.dumps(wrong))
        measured.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(cache)(X)
        assert measured, (path, "was believed")
        assert all(entry["winner"] in ("dense", "sparse") for entry in json.loads(cache.read_text()).values())


def test_bytes_that_flip_and_files_that_end_early(cache, monkeypatch):
    good = cache.read_bytes()
    generator = random.Random(1)
    measured = told(monkeypatch)
    for turn in range(40):
        content, place = bytearray(good), generator.randrange(len(good) - 1)
        if turn % 3:
            content[place] ^= 1 << generator.randrange(8)
        else:
            del content[place:]
        cache.write_bytes(bytes(content))
        believed = _same_values(bytes(content), good)
        measured.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(cache)(X)
        assert measured or believed


def _same_values(one: bytes, other: bytes) -> bool:
    """Say whether two files hold the same JSON: a changed space is no change."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("edit", ["winner", "times", "backend", "swapped"])
def test_an_entry_that_somebody_edited_is_not_believed(cache, monkeypatch, edit):
    entries = json.loads(cache.read_text())
    for entry in entries.values():
        entry["winner"] = "sparse" if edit == "winner" else entry["winner"]
        entry["dense"] = 1e9 if edit == "times" else entry["dense"]
        if edit == "backend":
            entry["backends"] = dict.fromkeys(entry["backends"], "csr")
            entry["winner"] = "sparse"
    if edit == "swapped":
        entries = dict(zip(entries, reversed(entries.values()), strict=True))
    elif edit == "winner":
        assert entries != json.loads(cache.read_text())
    cache.write_text(json.dumps(entries))
    measured = told(monkeypatch)
    assert all(layer.backend == "dense" for layer in make(cache).report.layers)  # pyright: ignore
    assert measured


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "unreadable", "deep", "huge-number", "binary", "empty"])
def test_what_is_no_file_of_choices_is_said(tmp_path, kind):
    path = tmp_path / "choices.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "unreadable":
        path.write_text("{}")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("nothing is unreadable to this user")
    else:
        content = {"deep": "[" * 100_000, "huge-number": f'{{"a": {"9" * 5000}}}', "binary": "\0\ufffe", "empty": ""}
        path.write_text(content[kind])
    with pytest.warns(RuntimeWarning, match=r"choices\.json.*(measured again|cannot be kept)"):
        module = make(path)
    with torch.no_grad():
        assert module(X).shape == (8, 3)


def test_what_is_whole_is_believed(cache, monkeypatch):
    measured = told(monkeypatch)
    make(cache)
    assert not measured
