"""Settings of initializers and repairs have types: a value of another one is one line that says what is expected."""

from __future__ import annotations

import numpy as np
import pytest

from lottery import find_ticket, start
from lottery.settings.schemes import initializer_named, repair_named
from pruning.errors import BadValue
from pruning.initializers import INITIALIZERS
from pruning.repairs import REPAIRS

SETTINGS = [
    *((initializer_named, entry.name, name) for entry in INITIALIZERS for name in entry.value.settings()),
    *((repair_named, entry.name, name) for entry in REPAIRS for name in entry.value.settings()),
]


@pytest.mark.parametrize(("named", "scheme", "setting"), [each for each in SETTINGS if each[2] != "graph"])
def test_a_value_of_another_type_is_refused_by_every_scheme(named, scheme, setting):
    with pytest.raises(BadValue, match=rf"^(init|repair)_params\.{setting} must be ") as error:
        named(scheme, {setting: {"a": 1}})
    assert len(str(error.value).splitlines()) == 1 and "table" not in str(error.value).partition(", not")[0]


@pytest.mark.parametrize(
    ("scheme", "setting", "value", "expected"),
    [
        ("unit-scaled", "gain", "abc", "a number or absent, not 'abc'"),
        ("unit-scaled", "gain", float("nan"), "finite, not nan"),
        ("unit-scaled", "fan", "inn", "'in' or 'out'"),
        ("low-rank", "rank", 1.5, "a whole number, not 1.5"),
        ("smupar", "inputs", "fc1.weight", "a list"),
        ("exact-orthogonal", "irreducible", "abc", "true or false, not 'abc'"),
    ],
)
def test_the_message_says_what_is_expected(scheme, setting, value, expected):
    with pytest.raises(BadValue, match=expected):
        initializer_named(scheme, {setting: value})


def test_numbers_of_numpy_and_functions_in_the_place_of_names_are_taken():
    given = {"gain": np.float32(0.5), "activation": np.tanh}
    assert initializer_named("unit-scaled", given).to == {"gain": 0.5, "activation": np.tanh}


def test_a_function_of_a_users_has_its_values_checked_where_it_says_of_which_type_they_are():
    def typed(weight, rng, *, scale: float = 1.0, free=None):
        return scale * rng.standard_normal(weight.shape)

    assert initializer_named(typed, {"free": [1]}).to == {"free": [1]}
    with pytest.raises(BadValue, match=r"init_params\.scale must be a number, not 'x'"):
        initializer_named(typed, {"scale": "x"})


def test_starts_and_searches_refuse_it(tmp_path):
    with pytest.raises(BadValue, match="init_params.gain must be"):
        start("mlp", init="unit-scaled", init_params={"gain": "abc"})
    with pytest.raises(BadValue, match="repair_params.steps must be"):
        start("mlp", repair="isometry", repair_params={"steps": "abc"})
    with pytest.raises(BadValue, match="init_params.gain must be"):
        find_ticket("mlp", init="unit-scaled", init_params={"gain": "abc"}, quiet=True, out=tmp_path)
