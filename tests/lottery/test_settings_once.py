"""A setting is one field, a trainer one module: flags, files, keywords, lists and studies follow, from outside too."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lottery import find_ticket
from lottery.cli.app import run
from lottery.cli.choices.described import by_name, search_settings, trainer_settings
from lottery.cli.choices.flags import flag
from lottery.cli.choices.reference import pages
from lottery.cli.commands import command_line
from lottery.data import Data
from lottery.search.frame.resolving import resolve
from lottery.settings.coercing import coerced
from lottery.trainers import TRAINERS
from lottery.trainers.gd.augment import AUGMENTATIONS
from lottery.trainers.gd.std import ESTIMATORS
from pruning.errors import BadValue, UnknownName
from pruning.settings.setting import settings_of
from tests.lottery.helpers import blobs, tiny_model
from tests.structure.house import ROOT

EVERYTHING = [*search_settings(), *trainer_settings()]
BLOBS = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
QUICK = ["--levels", "1", "--prune-rate", "0.5", "--set", "tolerance=1.0", "--quiet"]


def lottery(capsys, *arguments):
    code = run([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("path", pages())
def test_the_page_and_the_keywords_are_those_of_the_settings(path):
    """Where this fails: python -m lottery.cli.choices.reference."""
    assert (ROOT / path).read_text(encoding="utf-8") == pages()[path]


@pytest.mark.parametrize("each", EVERYTHING, ids=lambda each: f"{each.where}-{each.name}")
def test_a_setting_has_a_help_a_heading_and_a_default_that_it_allows(each):
    assert each.setting.help.endswith((".", "…).")) and each.setting.group
    each.setting.check(each.name, each.default)
    assert coerced(each.name, each.default, each.hint) == each.default


def test_no_word_leads_to_two_settings_of_one_search_or_hides_one():
    for entry in TRAINERS:
        settings = [each for each in EVERYTHING if each.where in ("the search", entry.name)]
        names = [each.name for each in settings]
        words = [word for each in settings for word in each.setting.words]
        assert len(set(names)) == len(names) and len(set(words)) == len(words) and not set(words) & set(names)


@pytest.mark.parametrize("command", ["prune", "train"])
def test_every_setting_has_a_flag(command, capsys):
    _, shown, _ = lottery(capsys, command, "--help")
    names = by_name(EVERYTHING if command == "prune" else trainer_settings())
    assert [name for name in names if flag(name) not in shown] == []


def test_choices_that_are_written_down_are_those_that_there_are():
    config = settings_of(TRAINERS["gd"].value.config)
    assert set(config["std"].names()) == set(ESTIMATORS) and set(config["augment"].names()) == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ({"learning_rate": 0.1}, "'learning_rate': here it is called 'lr'"),
        ({"wd": 0.1}, "'wd': here it is called 'weight_decay'"),
        ({"density": 0.1}, "'density': here it is called 'densities'"),
        ({"popsize": 8, "trainer": "es"}, "'popsize': here it is called 'population'"),
        ({"popsize": 8}, "it is of trainer 'es', where it is called 'population', and this search uses trainer 'gd'"),
        ({"lr": 0.1, "trainer": "es"}, "unknown setting 'lr': it is of trainers 'gd' and 'optax'"),
        ({"levles": 3}, "did you mean 'levels'"),
        ({"steps": 3, "trainer": "es"}, "unknown setting 'steps': trainer 'es' counts in 'generations'"),
        ({"warmup": 3, "trainer": "es"}, "it is of trainers 'gd' and 'optax', and this search uses trainer 'es'"),
    ],
)
def test_the_words_that_people_type_lead_home(typed, meant):
    with pytest.raises(UnknownName, match=re.escape(meant)):
        resolve(typed)


def test_a_wrong_flag_leads_home_too(capsys):
    code, _, err = lottery(capsys, "prune", "--learning-rate", "0.1")
    assert code == 2 and "here it is called --lr" in err and len(err.splitlines()) == 1


def test_a_type_checker_refuses_a_keyword_that_is_none(tmp_path):
    """The comment is needed: where a checker took the keyword, it would call the comment unnecessary."""
    with pytest.raises(UnknownName, match="levels"):
        find_ticket(tiny_model(), BLOBS, levles=3, out=tmp_path)  # pyright: ignore[reportCallIssue]
    with pytest.raises(BadValue, match="levels must be a whole number"):
        find_ticket(tiny_model(), BLOBS, levels="3", out=tmp_path)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("value", "hint", "found"),
    [
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (np.array(2), int, 2),
        (np.array([0.5, 0.2]), tuple[float, ...], (0.5, 0.2)),
        ({"eps": np.float32(0.5)}, Mapping[str, Any], {"eps": 0.5}),
        ([1, 2.0], tuple[int, ...], None),
    ],
)
def test_numbers_of_numpy_are_numbers(value, hint, found):
    if found is None:
        with pytest.raises(BadValue, match="must be a list"):
            coerced("x", value, hint)
    else:
        assert coerced("x", value, hint) == found and type(coerced("x", value, hint)) is type(found)


def test_flags_of_every_kind_reach_their_settings(capsys, tmp_path):
    words = ["--nesterov", "--momentum", "0.5", "--optimizer", "sgd", "--skip", "fc3.*", "--milestones", "3"]
    words += ["--milestones", "5", "--schedule", "milestones", "--validation-size", "0.5", "--rewind", "2"]
    words += ["--layer-rates", "fc1.weight=0.25", "--layer-rates", "fc2.*=0.5", "--scope", "layer", "--steps", "9"]
    assert lottery(capsys, "prune", *QUICK, *words, "--out", tmp_path)[0] == 0
    (made,) = (path for path in tmp_path.iterdir() if path.is_dir())
    config = json.loads((made / "config.json").read_text())
    assert (config["nesterov"], config["momentum"], config["skip"], config["milestones"]) == (
        True,
        0.5,
        ["fc3.*"],
        [3, 5],
    )
    assert (config["validation_size"], config["rewind"]) == (0.5, "2")
    assert config["layer_rates"] == {"fc1.weight": 0.25, "fc2.*": 0.5}


@pytest.mark.parametrize("words", [["0.5", "0.25"], ["[0.5, 0.25]"], ["0.5,0.25"]])
def test_a_list_may_be_given_in_every_usual_form(words, capsys, tmp_path):
    given = [each for word in words for each in ("--densities", word)]
    quick = ["--steps", "2", "--set", "tolerance=1.0", "--quiet"]
    assert lottery(capsys, "prune", *given, *quick, "--out", tmp_path)[0] == 0
    (made,) = tmp_path.glob("digits-*")
    assert json.loads((made / "config.json").read_text())["densities"] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["prune", "--recipe", "frankle2019-lenet", "--trainer", "es"],
            "recipe 'frankle2019-lenet' is for trainer 'gd'",
        ),
        (["train", "ticket", "--levels", "3"], "--levels prunes, and training a ticket again does not"),
        (["prune", "--trainer", "nowhere:KIND"], "there is no module 'nowhere'"),
        (["prune", "--milestones", "x"], "milestones must be a list (a whole number each, like [1, 2])"),
    ],
)
def test_what_cannot_be_is_one_line(words, message, capsys):
    code, _, err = lottery(capsys, *words)
    assert code == 2 and message in err and len(err.splitlines()) == 1


def test_what_could_mean_two_things_is_asked_again(tmp_path):
    with pytest.raises(BadValue, match="rewind=None could mean either"):
        find_ticket(tiny_model(), BLOBS, rewind=None, out=tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadValue, match="out must be a folder, not 3"):
        find_ticket(tiny_model(), BLOBS, out=3)  # pyright: ignore[reportArgumentType]


def test_a_table_without_a_name_is_one_line(capsys, tmp_path):
    code, _, err = lottery(capsys, "prune", "--layer-rates", "0.2", "--out", tmp_path)
    assert code == 2 and "--layer-rates takes NAME=VALUE, not '0.2'" in err


@pytest.mark.parametrize("name", [command.name for command in command_line([]).registered_commands])
def test_every_command_has_two_examples_that_it_understands(name, capsys):
    import typer

    code, shown, _ = lottery(capsys, name, "-h")
    examples = shown.partition("Examples:\n")[2].splitlines()
    assert code == 0 and len(examples) >= 2
    for example in examples:
        words = example.replace("'", "").split()[1:]
        assert words[0] == name
        group = typer.main.get_command(command_line(words))
        group.commands[name].make_context(name, words[1:])  # pyright: ignore[reportAttributeAccessIssue]


def test_the_list_of_commands_has_whole_sentences(capsys):
    shown = " ".join(lottery(capsys, "--help")[1].split())
    for command in command_line([]).registered_commands:
        assert str(command.short_help).endswith((".", "?", ").")) and str(command.short_help) in shown


def test_the_version(capsys):
    import lottery as package

    assert lottery(capsys, "--version")[:2] == (0, f"lottery {package.__version__}\n")


def test_the_shell_completes_names_of_settings_and_of_their_values(tmp_path):
    import subprocess

    def completed(words: str) -> list[str]:
        code = "from lottery.cli.app import main; main()"
        environment = {"_LOTTERY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**environment, "PATH": ""},
        )
        return done.stdout.split()

    assert completed("lottery prune --crit") == ["--criterion"]
    assert "magnitude" in completed("lottery prune --criterion magn")


@pytest.mark.parametrize("trainer", ["gd", "optax"])
def test_a_setting_that_nothing_reads_is_said(trainer, capsys, tmp_path):
    words = ["--trainer", trainer, "--milestones", "5", "--steps", "4"]
    code, _, err = lottery(capsys, "prune", *QUICK, *words, "--out", tmp_path)
    assert code == 0 and "schedule 'constant' does not read milestones" in err
    code, _, err = lottery(capsys, "prune", *QUICK, "--trainer", trainer, "--steps", "4", "--out", tmp_path / "plain")
    assert (code, err) == (0, "")
