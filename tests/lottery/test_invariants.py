"""The promises of every search, over the registries: criteria × scopes × rewind points × optimizers.

The numbers are those of the design's list of invariants.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lottery import Data, find_ticket
from lottery.config import SearchConfig, ladder
from lottery.gd.optimizers import OPTIMIZERS
from lottery.run_directory import RunDirectory
from pruning.criteria import CRITERIA
from pruning.scopes import SCOPES
from pruning.torch_modules import prunable
from tests.lottery.helpers import assert_promises, assert_same_arrays, blobs, removed, tiny_model

LEVELS, STEPS = 3, 24
REWINDS = ("0", "5", "1ep", "lr", "none")
# Every criterion under the two ways of competing; under the other scopes, which set counts alone, one of them.
COMBINATIONS = [
    *itertools.product(CRITERIA.names(), ("global", "layer"), REWINDS),
    *itertools.product(["magnitude"], sorted(set(SCOPES.names()) - {"global", "layer"}), REWINDS),
]
DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def search(tmp_path, **settings):
    defaults = {"levels": LEVELS, "steps": STEPS, "batch_size": 16, "tolerance": 1.0, "replicates": 2, "out": tmp_path}
    found = find_ticket(tiny_model, DATA, **(defaults | settings)).search
    assert found is not None
    return found


def optimizer_settings(name):
    return {"optimizer": name, "weight_decay": 0.1} | ({"momentum": 0.9, "nesterov": True} if name == "sgd" else {})


@pytest.mark.parametrize(("criterion", "scope", "rewind"), COMBINATIONS)
def test_every_search_keeps_the_promises(tmp_path, criterion, scope, rewind):
    optimizers = itertools.cycle(OPTIMIZERS)
    optimizer = next(itertools.islice(optimizers, REWINDS.index(rewind), None))
    tables = {"layer_densities": {"*": 0.4}} if "layer_densities" in SCOPES[scope].value.reads else {}
    settings = {"criterion": criterion, "scope": scope, **tables}
    found = search(tmp_path, rewind=rewind, **settings, **optimizer_settings(optimizer))
    run = RunDirectory(found.run)
    config = SearchConfig(levels=LEVELS, **settings)
    shapes = prunable(tiny_model())
    targets = ladder(config, {name: int(np.prod(shape)) for name, shape in shapes.items()}, shapes)
    for seed, level in itertools.product((0, 1), range(LEVELS + 1)):
        first, before = run.read_trained(seed, 0), run.read_trained(seed, max(level - 1, 0))
        points = {"0": run.read_rewound(seed, 0), "5": first.snapshots.get(5), "1ep": first.snapshots.get(6)}
        assert_promises(run, seed, level, targets[level], points.get(rewind, before.params))


def test_pruning_happened_by_the_criterion(tmp_path):
    run = RunDirectory(search(tmp_path, criterion="magnitude", replicates=1, levels=1).run)
    trained, mask = run.read_trained(0, 0).params, run.read_mask(0, 1)
    kept = np.concatenate([np.abs(trained[n][keep]) for n, keep in mask.items()])
    assert kept.min() >= np.abs(removed(mask, trained)).max()


def test_7_the_same_search_gives_the_same_bits(tmp_path):
    one, two = search(tmp_path / "a"), search(tmp_path / "b")
    assert one.run.name == two.run.name
    for seed, level in itertools.product((0, 1), range(LEVELS + 1)):
        a, b = RunDirectory(one.run), RunDirectory(two.run)
        assert a.read_mask(seed, level) == b.read_mask(seed, level)
        assert_same_arrays(a.read_trained(seed, level).params, b.read_trained(seed, level).params)
        assert a.read_history(seed, level) == b.read_history(seed, level)


def test_7_the_callers_random_state_neither_matters_nor_changes(tmp_path):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = search(tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    two = search(tmp_path / "b")
    assert_same_arrays(RunDirectory(one.run).read_trained(1, 3).params, RunDirectory(two.run).read_trained(1, 3).params)


def test_other_seeds_give_other_networks(tmp_path):
    run = RunDirectory(search(tmp_path).run)
    assert run.read_mask(0, 3) != run.read_mask(1, 3)


def test_9_test_data_never_influences_a_choice(tmp_path):
    x, y = blobs(30, seed=2)
    other = Data(train=DATA.train, validation=DATA.validation, test=(x, (y + 1) % 3))
    without = Data(train=DATA.train, validation=DATA.validation)
    tickets = [
        find_ticket(tiny_model, data, levels=3, steps=24, batch_size=16, tolerance=0.05, out=tmp_path / str(i))
        for i, data in enumerate((DATA, other, without))
    ]
    assert tickets[0].info["test"] != tickets[1].info["test"]
    assert tickets[2].info["test"] is None
    for ticket in tickets[1:]:
        assert ticket.mask == tickets[0].mask
        assert ticket.trained_params is not None and tickets[0].trained_params is not None
        assert_same_arrays(ticket.trained_params, tickets[0].trained_params)
