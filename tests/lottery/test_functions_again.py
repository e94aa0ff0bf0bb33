"""A search that was given functions among its settings: what looks at it again takes them by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lottery import Data, find_ticket
from lottery.studies.connection.tickets import connect
from lottery.studies.transfer.table import transfer
from pruning.errors import BadValue, ConfigMismatch, UnknownName
from tests.lottery.helpers import blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
TINY: dict[str, Any] = {"steps": 10, "levels": 1, "tolerance": 1.0, "replicates": 2, "batch_size": 16, "quiet": True}


def slow(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.01)


def fast(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1)


def run(out: Any, **settings: Any) -> Any:
    search = find_ticket(tiny_model, DATA, out=out, **(TINY | settings)).search
    assert search is not None
    return search.run


def test_connect_where_examples_were_picked_by_training(tmp_path):
    found = run(tmp_path, optimizer=slow, data_diet=0.5, data_diet_steps=2, data_diet_networks=1)
    levels = [found / f"seed-{seed}" / "level-01" for seed in (0, 1)]
    assert connect(levels, tiny_model, DATA, points=2, functions={"optimizer": slow}).pairs
    with pytest.raises(BadValue, match="optimizer was a function of the caller's own .*slow"):
        connect(levels, tiny_model, DATA, points=2)
    with pytest.raises(ConfigMismatch, match="another data"):  # other examples were picked
        connect(levels, tiny_model, DATA, points=2, functions={"optimizer": fast})


def test_connect_elsewhere_asks_for_none(tmp_path):
    found = run(tmp_path, optimizer=slow)
    levels = [found / f"seed-{seed}" / "level-01" for seed in (0, 1)]
    for functions in (None, {"optimizer": slow}):
        assert connect(levels, tiny_model, DATA, points=2, functions=functions).pairs
    with pytest.raises(UnknownName, match="optimiser"):
        connect(levels, tiny_model, DATA, points=2, functions={"optimiser": slow})


def test_transfer(tmp_path):
    plain, made, other = run(tmp_path), run(tmp_path, optimizer=slow), run(tmp_path, optimizer=fast)

    def table(runs: Sequence[Any], name: str, functions: Any) -> Any:
        given = {"model": tiny_model, "data": [DATA] * len(runs)}
        return transfer(runs, **given, out=tmp_path / name, functions=functions)

    assert len(table([plain, made], "one", {"optimizer": slow}).members) == 2
    each = [None, {"optimizer": slow}, {"optimizer": fast}]
    assert len(table([plain, made, other], "each", each).members) == 3
    with pytest.raises(BadValue, match="optimizer was a function of the caller's own .*slow"):
        table([plain, made], "none", None)
    with pytest.raises(ConfigMismatch, match="another function for optimizer"):
        table([plain, made, other], "all", {"optimizer": slow})
    with pytest.raises(BadValue, match="one for each of the 2 runs, not 1"):
        table([plain, made], "few", [{"optimizer": slow}])
