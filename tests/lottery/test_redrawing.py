"""Weights that are drawn under a mask in a search: both frameworks, one scheme, one record."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from torch import nn

from lottery import find_ticket
from lottery.data.datasets import load_data
from lottery.data.parts import prepare
from lottery.networks.sources.choosing import model_source
from lottery.runs.ticket import Ticket
from pruning.errors import BadValue, UnknownName
from pruning.initializers import get_initializer

SMALL: dict[str, Any] = {"levels": 2, "steps": 20, "tolerance": 1.0, "quiet": True, "batch_size": 64}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        return self.second(self.first(x.flatten(1)).relu())


def pair(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    params = {
        "first": {"weight": rng.standard_normal((64, 32), np.float32), "bias": np.zeros(32, np.float32)},
        "second": {"weight": rng.standard_normal((32, 10), np.float32), "bias": np.zeros(10, np.float32)},
    }

    def apply(tree: Any, x: Any) -> Any:
        hidden = jnp.maximum(x.reshape(len(x), -1) @ tree["first"]["weight"] + tree["first"]["bias"], 0)
        return hidden @ tree["second"]["weight"] + tree["second"]["bias"]

    return params, apply


def levels_of(ticket: Ticket) -> list[Ticket]:
    assert ticket.search is not None
    return [Ticket.load(level.alive[0].path) for level in ticket.search.levels]


def drawn(model: Any, out: Any, **settings: Any) -> list[Ticket]:
    asked: dict[str, Any] = {"init": "unit-scaled", "init_params": {"gain": 1.0}} | settings
    return levels_of(find_ticket(model, "digits", out=out, **(SMALL | asked)))


@pytest.mark.parametrize(("model", "trainer"), [(Net, "gd"), (pair, "optax"), (pair, "es")])
def test_a_redrawn_level_has_the_variance_of_its_own_mask(model, trainer, tmp_path):
    own = {"population": 4, "generations": 5, "steps": None, "batch_size": None} if trainer == "es" else {}
    levels = drawn(
        model, tmp_path, trainer=trainer, redraw=True, densities=[0.2], levels=None, criterion="random", **own
    )
    keep, weights = levels[1].mask["first.weight"], levels[1].params["first.weight"]
    live = keep.sum(1 if trainer == "gd" else 0)
    scaled = (weights * np.sqrt(live)[:, None] if trainer == "gd" else weights * np.sqrt(live))[keep]
    assert scaled.std() == pytest.approx(1.0, rel=0.1)
    assert not weights[~keep].any()


@pytest.mark.parametrize(("model", "trainer"), [(Net, "gd"), (pair, "optax")])
def test_a_scheme_that_chooses_the_mask_keeps_the_counts(model, trainer, tmp_path):
    asked = {"init": "exact-orthogonal", "init_params": {"gain": 1.0}, "redraw": True, "levels": None}
    level = drawn(model, tmp_path, trainer=trainer, densities=[0.2], criterion="random", **asked)[1]
    weights = level.params["first.weight"].astype(np.float64)
    gram = weights.T @ weights if weights.shape[0] > weights.shape[1] else weights @ weights.T
    assert gram == pytest.approx(np.eye(32), abs=1e-5)
    assert level.mask.kept == round(0.2 * level.mask.total)
    with pytest.raises(BadValue, match="takes one pruned level"):
        drawn(model, tmp_path, trainer=trainer, criterion="random", **{**asked, "levels": 2})


@pytest.mark.parametrize(("model", "trainer"), [(Net, "gd"), (pair, "optax")])
def test_a_level_is_repaired_where_it_is_asked_for(model, trainer, tmp_path):
    repair = {"repair": "isometry", "repair_params": {"gain": 1.0}, "densities": [0.3], "levels": None}
    plain = drawn(model, tmp_path, trainer=trainer, densities=[0.3], levels=None, criterion="random")[1]
    mended = drawn(model, tmp_path, trainer=trainer, criterion="random", **repair)[1]
    spread = [np.linalg.svd(level.mask.apply(dict(level.params))["second.weight"])[1] for level in (plain, mended)]
    assert spread[1][-1] / spread[1][0] > 1.5 * spread[0][-1] / spread[0][0]
    assert np.array_equal(plain.mask["second.weight"], mended.mask["second.weight"])
    assert mended.info["config"]["repair"] == "isometry"


def test_a_ticket_is_never_rescaled_unless_it_is_asked_for(tmp_path):
    first, second, _ = drawn(Net, tmp_path)
    keep = second.mask["first.weight"]
    assert np.array_equal(second.params["first.weight"][keep], first.params["first.weight"][keep])
    assert "redraw" not in second.info["config"]


def test_the_same_numbers_in_both_frameworks(tmp_path):
    in_torch = drawn(Net, tmp_path / "torch")[0].params["first.weight"]
    in_jax = drawn(pair, tmp_path / "jax", trainer="optax")[0].params["first.weight"]
    assert np.array_equal(in_torch, in_jax.T)


def test_the_record_says_so(tmp_path):
    record = drawn(Net, tmp_path, redraw=True)[1].info["config"]
    assert (record["init"], record["init_params"], record["redraw"]) == ("unit-scaled", {"gain": 1.0}, True)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"init": "unit-scald"}, UnknownName, "unit-scaled"),
        ({"init_params": {"gian": 1.0}}, UnknownName, "did you mean .gain"),
        ({"redraw": True, "init": "model"}, BadValue, "must name an initializer"),
        ({"redraw": True, "rewind": "lr"}, BadValue, "rewind stays at 0"),
    ],
)
def test_what_cannot_be_is_one_line(settings, error, said, tmp_path):
    with pytest.raises(error, match=said) as raised:
        drawn(Net, tmp_path, **settings)
    assert "\n" not in str(raised.value)


def mine(weight, rng):
    return rng.standard_normal(weight.shape) / weight.inputs


def test_a_scheme_of_ones_own(tmp_path):
    by_function = drawn(Net, tmp_path, init=mine, init_params={})[0]
    assert by_function.params["first.weight"].std() == pytest.approx(1 / 64, rel=0.1)
    assert by_function.info["config"]["init"] == "given: mine"
    by_name = drawn(Net, tmp_path, init=f"{__name__}:mine", init_params={})[0]
    assert np.array_equal(by_name.params["first.weight"], by_function.params["first.weight"])


@pytest.mark.parametrize(("model", "trainer"), [(Net, "gd"), (pair, "optax")])
def test_a_network_is_drawn_a_few_times_in_a_search_and_not_at_every_look(model, trainer, tmp_path):
    drawn_weights: list[str] = []

    def counting(weight, rng):
        drawn_weights.append(weight.name)
        return rng.standard_normal(weight.shape) / weight.inputs

    drawn(model, tmp_path, trainer=trainer, init=counting, init_params={})
    # Once for the search, and twice to see that it gives the same each time.
    assert drawn_weights.count("first.weight") == 3


@pytest.mark.parametrize("model", [Net, pair])
def test_a_scheme_that_gives_something_else_each_time_is_found_out(model):
    def restless(weight, rng):
        return np.random.default_rng().standard_normal(weight.shape)

    source = model_source(model, prepare(load_data("digits"), seed=0), get_initializer(restless))
    assert source.fingerprint(0) != source.fingerprint(0)
