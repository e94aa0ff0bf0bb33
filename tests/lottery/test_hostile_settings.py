"""Every setting, whatever it is given, is accepted with a sense or refused at once in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from es.config import ESConfig
from lottery.cli.app import run
from lottery.runs.given import Given
from lottery.search.frame.resolving import resolve
from lottery.search.preparing.preparing import Request, prepare_search
from lottery.settings.config import SearchConfig
from lottery.settings.fields import parse_assignments, read_toml
from lottery.settings.ladder import ladder
from lottery.trainers.gd.config import GDConfig
from pruning.errors import BadValue, FileFormatError, LotteryError
from pruning.ladder import MAX_LEVELS, geometric, until_sparsity
from pruning.watch import Silent
from tests.lottery.helpers import blobs


def nested(times):
    """A list in a list in a list …"""
    inner: list[object] = []
    for _ in range(times):
        inner = [inner]
    return inner


HOSTILE = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "-1": -1,
    "-0.5": -0.5,
    "0": 0,
    "2": 2,
    "tiny": 1e-308,
    "huge": 1e308,
    "10**30": 10**30,
    "10**5000": 10**5000,
    "empty": "",
    "x": "x",
    ":": ":",
    "x:": "x:",
    "digits": "9" * 5000,
    "True": True,
    "[]": [],
    "[nan]": [float("nan")],
    "[-1]": [-1],
    "['']": [""],
    "[[1]]": [[1]],
    "long": [0.5] * 5000,
    "deep": nested(5000),
    "{}": {},
    "{*: nan}": {"*": float("nan")},
    "{*: -1}": {"*": -1},
    "{*: x}": {"*": "x"},
}
KINDS = (SearchConfig, GDConfig, ESConfig)
# A table of numbers and a list mean something beside one scope, and beside nothing else.
BESIDE = {
    "layer_rates": {"scope": "layer"},
    "layer_densities": {"scope": "table"},
    "pattern_params": {"pattern": "n-m"},
    "milestones": {"schedule": "milestones"},
}


def settings_of(kind, name, value):
    """The smallest settings that give one field a value."""
    return {"trainer": "es" if kind is ESConfig else "gd", **BESIDE.get(name, {}), name: value}


def outcome(do):
    """What is given back, and the one line that refuses instead; any other exception is a failure."""
    try:
        return do(), None
    except LotteryError as error:
        return (), str(error)


@pytest.mark.parametrize(("kind", "name"), [(kind, f.name) for kind in KINDS for f in dataclasses.fields(kind)])
def test_every_field_takes_any_value_or_says_what_is_wrong(kind, name):
    for label, value in HOSTILE.items():
        configs, refused = outcome(lambda value=value: resolve(settings_of(kind, name, value)))
        if refused is not None:
            assert name in refused or "unknown" in refused or "pattern" in refused, (label, refused)
            assert len(refused.splitlines()) == 1 and len(refused) < 1200, label
            continue
        for taken in (getattr(config, name) for config in configs if hasattr(config, name)):
            assert taken == taken and taken not in (float("inf"), float("-inf")), label
            assert not isinstance(taken, int | float) or abs(taken) < 1e300 or name == "tolerance", label


SMALL = {"levels": 1, "batch_size": 8}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(SearchConfig)])
def test_what_is_accepted_prepares_a_search_or_says_what_is_wrong(name):
    for label in ("-1", "0", "2", "tiny", "huge", "empty", "x", ":", "x:", "[]", "['']", "{*: -1}"):
        settings = settings_of(SearchConfig, name, HOSTILE[label])
        if name not in ("levels", "sparsity", "densities"):
            settings = {**SMALL, **settings}
        named = {key: settings[key] for key in ("model", "data") if key in settings}
        request = Request(Given(named.get("model", "mlp"), named.get("data", blobs())), settings)
        _, refused = outcome(lambda request=request: prepare_search(request, Silent()))
        assert refused is None or len(refused.splitlines()) == 1, label


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "gamma", "std_window", "clip_norm", "epochs"])
def test_numbers_that_no_training_has_are_refused(name):
    for value in ("nan", "inf", "-inf", "1e308"):
        with pytest.raises(BadValue, match=name):
            resolve({name: float(value)})


def test_levels_that_no_schedule_can_fill_are_refused_before_they_are_computed():
    with pytest.raises(BadValue, match="levels must be at most 1,000, not 9999999999"):
        resolve({"levels": 9_999_999_999})
    with pytest.raises(BadValue, match="at most 1,000"):
        geometric({"w": 10**9}, {"w": 0.2}, 10**10, "global")
    with pytest.raises(BadValue, match="level 30 would keep 1 weights for 2 tensors"):
        ladder(SearchConfig(levels=MAX_LEVELS), {"a": 500, "b": 500})
    with pytest.raises(BadValue, match="more than 1,000 levels"):
        until_sparsity({"w": 10**9}, {"w": 1e-5}, 0.9, "global")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"levels = " + b"[" * 50_000, "thousands of brackets"),
        (b"levels = " + b"9" * 9_000, "not a TOML file"),
        (b"# caf\xe9\nlevels = 1\n", "not a TOML file"),
        (b"\0\0", "not a TOML file"),
        (b"batch-size = 1\nbatch_size = 2\n", "says batch_size twice"),
    ],
)
def test_files_that_are_no_settings(tmp_path, content, message):
    (tmp_path / "c.toml").write_bytes(content)
    with pytest.raises(FileFormatError, match=f"c.toml: {message}"):
        read_toml(tmp_path / "c.toml")


def test_a_byte_order_mark_is_no_setting(tmp_path):
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbflevels = 1\n")
    assert read_toml(tmp_path / "c.toml") == {"levels": 1}


def test_assignments_beyond_reading():
    with pytest.raises(BadValue, match="--set levels: thousands of brackets"):
        parse_assignments([f"levels={'[' * 5000}"])
    with pytest.raises(BadValue, match="lr must be a number, not '999"):
        resolve(parse_assignments([f"lr={'9' * 5000}"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--levels", "9999999999"], "levels must be at most 1,000"),
        (["--set", "validation_size=nan"], "validation_size must be finite, not nan"),
        (["--set", "validation_size=1.5"], "validation_size must be a number of examples or a fraction"),
        (["--set", f"levels={'9' * 400}"], "levels must be a whole number"),
        (["--lr", "inf"], "lr must be finite, not inf"),
        (["--set", "momentum=2"], "momentum must be less than 1"),
        (["--set", "data_diet_score=x"], "unknown data score 'x'"),
        (["--set", "recipe=5"], "recipe must be a name, not 5"),
        (["--recipe", ""], "unknown recipe ''"),
        (["--config", "five.toml"], "recipe must be a name, not 5"),
        (["--config", "model.toml"], "model: expected a torch.nn.Module, a callable or a name, not int"),
        (["--config", "."], ".: cannot be read"),
        (["--out", ""], "the text is empty"),
        (["--out", "five.toml"], "--out five.toml: cannot be written"),
        (["--out", "/proc/here"], "--out /proc/here: cannot be written"),
        (["--seed", "-1"], "seed must be 0 or more, not -1"),
        (["--replicates", "1000000000"], "replicates must be at most 10,000"),
        (["--rewind", "9" * 5000], "rewind must be 0, a step (500)"),
        (["--model", "x:"], "model 'x:': expected package.module:name"),
        (["--model", "math:hypot"], "model 'hypot' does not say which arguments it takes"),
        (["--criterion", ":"], "criterion ':': expected package.module:name"),
        (["--data", "x:"], "unknown data 'x:'"),
    ],
)
def test_wrong_commands(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("five.toml").write_text("recipe = 5\n")
    Path("model.toml").write_text("model = 5\n")
    code = run(["prune", *arguments])
    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err and "--debug" not in err
    assert not Path("runs").exists()
