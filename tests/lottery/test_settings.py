"""Settings from every side: layers, types, names, recipes."""

from __future__ import annotations

import pytest

from lottery.search.frame.resolving import resolve
from lottery.search.frame.rewind import Rewind, parse_rewind
from lottery.settings.config import SearchConfig
from lottery.settings.fields import build, parse_assignments, read_toml
from lottery.settings.ladder import ladder
from lottery.settings.recipes import read_recipe, recipe_layers, recipe_names
from lottery.trainers.choosing import layer
from pruning.errors import BadValue, FileFormatError, UnknownName, UsageError
from pruning.scopes.layer import tensor_rates


def test_later_layers_win_and_replace_what_contradicts_them():
    assert layer({"levels": 3, "lr": 1.0}, {"sparsity": 0.9}, {"lr": 2.0}) == {"sparsity": 0.9, "lr": 2.0}
    assert layer({"densities": [0.5]}, {"levels": 2}) == {"levels": 2}
    recipe = {"strategy": "pgpe", "strategy_params": {"lr": 0.01, "std_lr": 0.2}}
    assert layer(recipe, {"strategy_params": {"std_lr": 0.1}})["strategy_params"] == {"lr": 0.01, "std_lr": 0.1}
    assert layer(recipe, {"strategy": "snes"}) == {"strategy": "snes"}
    assert layer(recipe, {"strategy": "snes", "strategy_params": {"lr": 2}})["strategy_params"] == {"lr": 2}
    with pytest.raises(BadValue, match="epochs or steps, not both"):
        layer({"steps": 1, "epochs": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": "many"}, "levels must be a whole number, not 'many'"),
        ({"levels": 1.5}, "levels must be a whole number"),
        ({"levels": True}, "levels must be a whole number"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"nesterov": 1}, "nesterov must be true or false"),
        ({"nesterov": "false"}, "nesterov must be true or false"),
        ({"steps": "x"}, "steps must be a whole number or absent"),
        ({"skip": "fc.weight"}, "skip must be a list"),
        ({"layer_rates": 0.1}, "layer_rates must be a table"),
        ({"densities": [0.5, "x"]}, "densities must be a list"),
        ({"levls": 3}, "unknown setting 'levls': did you mean 'levels'"),
        ({"trainer": "gb"}, "unknown trainer 'gb': did you mean 'gd'"),
        ({"scope": "layers"}, "did you mean 'layer'"),
        ({"measure_at": "end"}, "measure_at"),
        ({"sparsity": 90}, "write 0.9 for 90 %"),
        ({"prune_rate": 1.2}, "prune_rate must be more than 0 and less than 1, not 1.2"),
        ({"replicates": 0}, "replicates must be 1 or more"),
        ({"tolerance": -1}, "tolerance"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings, message):
    with pytest.raises(UsageError, match=message):
        resolve(settings)


def test_types_are_converted_where_nothing_is_lost():
    search, trainer = resolve({"levels": 3.0, "lr": 1, "rewind": 500, "skip": ["a"], "validation_size": 5})
    assert (search.levels, trainer.lr, search.rewind, search.skip, search.validation_size) == (3, 1.0, "500", ("a",), 5)
    assert build(SearchConfig, {"layer_rates": {"fc": 0.1}}).layer_rates == {"fc": 0.1}


def test_assignments():
    assert parse_assignments(
        ["clip-norm=1.5", "skip=['a','b']", "layer_rates.fc*.weight=0.1", "layer_rates.c=0.2"]
    ) == {
        "clip_norm": 1.5,
        "skip": ["a", "b"],
        "layer_rates": {"fc*.weight": 0.1, "c": 0.2},
    }
    for text in ("lr", "=3"):
        with pytest.raises(BadValue, match="KEY=VALUE"):
            parse_assignments([text])


def test_toml_files(tmp_path):
    (tmp_path / "a.toml").write_text("batch-size = 3\n[layer_rates]\n'fc*' = 0.1\n")
    assert read_toml(tmp_path / "a.toml") == {"batch_size": 3, "layer_rates": {"fc*": 0.1}}
    (tmp_path / "b.toml").write_text("lr = \n")
    with pytest.raises(FileFormatError, match=r"b.toml: not a TOML file .*line 1"):
        read_toml(tmp_path / "b.toml")
    with pytest.raises(FileFormatError, match="no such file"):
        read_toml(tmp_path / "c.toml")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_toml(tmp_path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_and_has_a_quick_form(name):
    recipe = read_recipe(name)
    assert recipe["summary"] and recipe["source"]
    search, trainer = resolve(layer(*recipe_layers(name)))
    total = trainer.total_steps(429) if search.trainer == "gd" else trainer.generations
    parse_rewind(search.rewind, total, 429)
    assert name.endswith("-quick") or f"{name}-quick" in recipe_names()


def test_the_protocol_of_frankle_and_carbin_lenet():
    search, trainer = resolve(layer(*recipe_layers("frankle2019-lenet")))
    assert (trainer.optimizer, trainer.lr, trainer.batch_size, trainer.steps) == ("adam", 1.2e-3, 60, 50_000)
    assert (trainer.eval_every, search.validation_size, search.replicates) == (100, 5_000, 5)
    names = ["fc1.weight", "fc2.weight", "fc3.weight"]
    rates = tensor_rates(names, search.prune_rate, search.layer_rates, names[-1:])
    assert rates == {"fc1.weight": 0.2, "fc2.weight": 0.2, "fc3.weight": 0.1}


def test_the_rates_of_frankle_and_carbin_conv_6():
    search, _ = resolve(layer(*recipe_layers("frankle2019-conv6")))
    names = ["conv1.weight", "fc1.weight", "fc3.weight"]
    assert tensor_rates(names, search.prune_rate, search.layer_rates, names[-1:]) == {
        "conv1.weight": 0.15,
        "fc1.weight": 0.2,
        "fc3.weight": 0.1,
    }


def test_an_unknown_recipe_gives_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'frankle2019-lenet"):
        recipe_layers("frankle2019-lent")


def test_layer_rates_need_layer_scope_and_names_that_exist():
    with pytest.raises(BadValue, match="need scope 'layer'"):
        ladder(SearchConfig(layer_rates={"a": 0.1}), {"a": 100})
    with pytest.raises(UnknownName, match="'fc9' matches no tensor"):
        ladder(SearchConfig(scope="layer", layer_rates={"fc9": 0.1}), {"fc1": 100})


def test_ladders_of_every_kind():
    sizes = {"a": 1000}
    assert ladder(SearchConfig(levels=2), sizes) == [1000, 800, 640]
    assert ladder(SearchConfig(sparsity=0.5), sizes) == [1000, 800, 640, 512, 500]
    assert ladder(SearchConfig(densities=(0.3, 0.1)), sizes) == [1000, 300, 100]


@pytest.mark.parametrize(
    ("text", "rewind"),
    [
        ("0", Rewind(0, 0, 100)),
        ("30", Rewind(30, 30, 100)),
        ("3ep", Rewind(30, 30, 100)),
        ("lr", Rewind(None, 0, 100)),
        ("none", Rewind(None, 100, 200)),
    ],
)
def test_rewind_points(text, rewind):
    assert parse_rewind(text, 100, 10) == rewind


@pytest.mark.parametrize("text", ["-1", "ep", "2.5ep", "late", "", "100", "10ep"])
def test_impossible_rewind_points(text):
    with pytest.raises(BadValue, match="rewind"):
        parse_rewind(text, 100, 10)
