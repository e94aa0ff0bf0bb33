"""No row of a weight that is divided by the norms of its rows is emptied: by levels, moves, controls or transfer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from lottery import ablate, find_ticket
from lottery.runs.directory import RunDirectory
from lottery.studies.ablation.controls import ABLATIONS
from lottery.studies.transfer.table import transfer
from lottery.trainers.gd.moves import MOVES, Moment, exchange
from pruning.alive_rows import keeping_rows, require_rows
from pruning.errors import BadValue, LotteryError
from pruning.mask import Mask
from pruning.selection import select
from tests.lottery.helpers import blobs
from tests.lottery.test_ablations import subject

NAME = "0.parametrizations.weight.original1"
RANDOM = ("random-mask", "random-layers", "shuffle-mask", "shuffle-units", "inverted")


def normed(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))


def sparse(out: Any, **settings: Any) -> RunDirectory:
    """Search at a density at which chance empties a row almost surely: 10 weights in 8 rows."""
    settings = {"densities": (0.21,), "prunable": (NAME,), "steps": 20, "batch_size": 16, **settings}
    ticket = find_ticket(normed, blobs(60), tolerance=1.0, quiet=True, out=out, **settings)
    assert ticket.search is not None
    return RunDirectory(ticket.search.run)


def alive(mask: Mapping[str, Any]) -> bool:
    return bool(mask[NAME].any(1).all())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    return sparse(tmp_path_factory.mktemp("runs"), replicates=2)


def rows_of(kept: int, rng: np.random.Generator) -> Mask:
    dense = Mask.dense({"w": (8, 6)})
    return select(keeping_rows({"w": rng.random((8, 6))}, dense, {"w": (0,)}), dense, kept)


@pytest.mark.parametrize("name", MOVES.names())
@pytest.mark.parametrize("kept", [8, 9, 12, 40])
def test_a_move_leaves_every_row_its_best_survivor(name, kept):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = rows_of(kept, rng)
        weights, gradients = (mask.apply({"w": rng.standard_normal((8, 6))}) for _ in range(2))
        proposal = MOVES[name].value(Moment(weights, gradients, mask, 1.0, 0.01, rng))
        after = exchange(mask, proposal, {"w": (0,)})
        assert after.kept == kept and (after["w"] & mask["w"]).any(1).all()
        assert after != mask or kept == 8


@pytest.mark.parametrize("moves", MOVES.names())
def test_a_training_with_moves_stays_finite(tmp_path, moves):
    found = sparse(tmp_path, moves=moves, move_every=2, move_fraction=0.9, move_until=1.0, lr=0.01)
    assert all(alive(found.read_mask(0, level)) for level in (0, 1))
    assert found.read_record(0, 1)["diverged"] is None


@pytest.mark.parametrize("kind", [*RANDOM, "exchange-masks"])
def test_a_control_trains(run, kind):
    (found,) = ablate(run.path, kind, model=normed, data=blobs(60), levels=[1], repeats=2)
    for repeat in range(2):
        for seed in (0, 1):
            folder = RunDirectory(run.path / "ablations" / kind / f"repeat-{repeat}")
            assert alive(folder.read_mask(seed, 1)) and folder.read_record(seed, 1)["diverged"] is None
            assert folder.read_mask(seed, 1).kept == run.read_mask(seed, 1).kept
    assert found.kind == kind


@pytest.mark.parametrize("kind", ["random-mask", "random-layers", "shuffle-mask", "shuffle-units"])
@pytest.mark.parametrize("axes", [(0,), (1,)])
def test_controls_of_many_seeds(kind, axes):
    mask = Mask({"w": rows_of(10, np.random.default_rng(0))["w"].reshape(8, 6), "b": np.ones((2, 2))})
    mask = mask if axes == (0,) else Mask({"w": mask["w"].T, "b": mask["b"]})
    for seed in range(40):
        control = ABLATIONS[kind].value(subject(mask=mask, rows={"w": axes}, rng=np.random.default_rng(seed)))
        require_rows(mask, control.mask, {"w": axes})
        assert control.mask.kept == mask.kept


def test_without_such_rows_a_control_is_as_it_was():
    for kind in ("random-mask", "random-layers", "shuffle-mask"):
        one, other = (ABLATIONS[kind].value(subject(rng=np.random.default_rng(3))) for _ in range(2))
        assert one.mask == other.mask


def test_random_masks_of_a_transfer(run, tmp_path):
    second = sparse(tmp_path, replicates=2, lr=0.01)
    transfer([run.path, second.path], model=normed, data=[blobs(60)] * 2, out=tmp_path / "out")
    masks = list((tmp_path / "out").glob("*/random/seed-*/level-01"))
    assert len(masks) == 4
    assert all(alive(RunDirectory(path.parent.parent).read_mask(int(path.parent.name[5:]), 1)) for path in masks)


def test_fewer_weights_than_rows_is_one_clear_line(tmp_path):
    with pytest.raises(
        BadValue, match="would keep 5 weights, and its weight is divided by the norms of 8 rows"
    ) as error:
        sparse(tmp_path, densities=(0.1,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scores", [None, [], {NAME: np.ones((8, 5))}, {NAME: np.full((8, 6), "x")}, {}])
def test_wrong_scores_of_a_weight_that_has_rows_are_one_line(scores):
    dense = Mask.dense({NAME: (8, 6)})
    with pytest.raises(LotteryError, match=r"scores"):
        keeping_rows(scores, dense, {NAME: (0,)})
