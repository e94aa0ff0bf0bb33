"""The promises of every search, over the registries: criteria × scopes × rewind points × optimizers.

The numbers are those of the design's list of invariants.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lottery import Data, find_ticket
from lottery.runs.directory import RunDirectory
from lottery.settings.config import SearchConfig
from lottery.settings.ladder import ladder
from lottery.trainers.gd.optimizers.named import OPTIMIZERS
from pruning.criteria import CRITERIA
from pruning.errors import BadValue
from pruning.patterns import get_pattern
from pruning.scopes import SCOPES
from pruning.torch_modules import prunable
from tests.lottery.helpers import assert_promises, assert_same_arrays, blobs, removed, tiny_model

LEVELS, STEPS = 3, 24
REWINDS = ("0", "5", "1ep", "lr", "none")
# Every criterion meets one scope and one rewind point, and every scope meets every rewind point: criterion, scope and
# pattern meet each other, all with all, where no training is needed (tests/pruning/test_every_combination.py).
_SCOPES, _POINTS = itertools.cycle(SCOPES.names()), itertools.cycle(REWINDS)
COMBINATIONS = [
    *((name, next(_SCOPES), next(_POINTS)) for name in CRITERIA.names()),
    *itertools.product(["magnitude"], SCOPES.names(), REWINDS),
]
PATTERNS = (
    {"pattern": "n-m", "pattern_params": {"n": 1, "m": 2}},
    {"pattern": "blocks", "pattern_params": {"height": 1, "width": 2}},
    {"pattern": "rows", "scope": "erk"},
)
DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


def search(tmp_path, **settings):
    defaults = {"levels": LEVELS, "steps": STEPS, "batch_size": 16, "tolerance": 1.0, "replicates": 2, "out": tmp_path}
    defaults |= {"score_steps": 10, "eval_every": 8}
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


@pytest.mark.parametrize("settings", PATTERNS, ids=lambda settings: settings["pattern"])
def test_a_pattern_holds_at_every_level(tmp_path, settings):
    run = RunDirectory(search(tmp_path, replicates=1, **settings).run)
    config = SearchConfig(levels=LEVELS, **settings)
    pattern = get_pattern(config.pattern, config.pattern_params)
    for level, target in enumerate((58, 46, 37), start=1):
        mask, before = run.read_mask(0, level), run.read_mask(0, level - 1)
        assert 0 < mask.kept <= target and mask.kept == run.read_record(0, level)["kept"]
        assert mask.issubset(before)
        for name, keep in mask.items():
            tile = pattern.tile(name, keep.shape)
            held = keep.reshape(len(keep) // tile.height, tile.height, -1, tile.width).sum(axis=(1, 3))
            assert (held <= tile.most).all() if tile.most else np.isin(held, (0, tile.area)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "n-m", "pattern_params": {"n": 2, "m": 4}}, "'0.weight' has a width of 6 .*name it in `skip`"),
        ({"pattern": "n-m", "pattern_params": {"n": 2}}, "takes n and m in pattern_params; m missing"),
        ({"pattern": "rows", "levels": 11}, "level 10 would keep 5 weights of the network, less than the 6"),
        ({"scope": "table"}, "needs layer_densities"),
        ({"layer_densities": {"*": 0.5}}, "layer_densities need scope 'table'"),
    ],
)
def test_what_scope_and_pattern_cannot_do_is_an_error_before_training(tmp_path, settings, message):
    with pytest.raises(BadValue, match=message):
        search(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


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
