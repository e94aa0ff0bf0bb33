"""A trainer and its settings that no file of the house knows: every command, study and list takes them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lottery import ablate, find_ticket, instability, train_ticket, transfer
from lottery.cli.choices.reference import pages
from lottery.data import Data
from lottery.search.frame.resolving import resolve
from lottery.settings.fields import read_toml
from lottery.trainers import TRAINERS, TrainerKind
from lottery.trainers.choosing import layer
from pruning.errors import BadValue, UnknownName, Untrusted
from pruning.settings.setting import setting
from tests.lottery.helpers import blobs, tiny_model
from tests.lottery.test_settings_once import QUICK, lottery
from tests.structure.house import ROOT

BLOBS = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """CONTRIBUTING's trainer as somebody's module, and its registration undone."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = text.partition("`lottery/trainers/signs.py`")[2].partition("```python\n")[2].partition("\n```\n")[0]
    folder = tmp_path_factory.mktemp("signs_of_theirs")
    (folder / "signs_of_theirs.py").write_text(code)
    TRAINERS.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(TRAINERS, "_entries", dict(TRAINERS._entries))
        yield importlib.import_module("signs_of_theirs")
        sys.modules.pop("signs_of_theirs", None)


def test_it_is_in_every_list_and_help(signs, capsys):
    assert "signs" in lottery(capsys, "list", "trainers")[1]
    items = json.loads(lottery(capsys, "list", "settings", "--json")[1])["items"]
    assert [item["default"] for item in items if item["source"] == "trainer signs"] == ["100", "0.01"]
    assert "--stride" in lottery(capsys, "prune", "--help")[1]
    assert "| `stride` |" in pages()["docs/settings.md"]
    assert "    stride: float\n" in pages()["lottery/settings/keywords.py"]


def test_every_study_works_with_it_and_the_same_call_resumes(signs, tmp_path):
    def search(**more):
        return find_ticket(
            tiny_model, BLOBS, trainer="signs", steps=20, levels=2, prune_rate=0.5, tolerance=1.0,
            replicates=2, rewind=5, quiet=True, out=tmp_path, **more,
        )  # fmt: skip

    ticket = search()
    assert ticket.search is not None and ticket.path is not None
    made = ticket.search.run
    record = json.loads((made / "config.json").read_text())
    assert (record["trainer"], record["steps"], record["stride"]) == ("signs", 20, 0.01)
    weights = (ticket.path / "model.safetensors").read_bytes()
    shutil.rmtree(ticket.path)
    assert (search().path or Path()).joinpath("model.safetensors").read_bytes() == weights
    controls = ablate(made, ["random-mask"], model=tiny_model, data=BLOBS)
    assert len(controls) == 1
    assert instability(made, model=tiny_model, data=BLOBS, copies=2, levels=[1])
    again = train_ticket(ticket, tiny_model, BLOBS, settings={"seed": 3}, out=tmp_path)
    assert again.config["trainer"] == "signs" and again.config["stride"] == 0.01
    other = train_ticket(ticket, tiny_model, BLOBS, settings={"trainer": "gd", "steps": 5}, out=tmp_path)
    assert "stride" not in other.config
    longer = search(stride=0.02)
    assert longer.search is not None
    table = transfer(
        [made, longer.search.run], level=1, model=tiny_model, data=[BLOBS, BLOBS], out=tmp_path / "transfer"
    )
    assert [len(row) for row in table.tickets] == [2, 2] and len(table.random) == 2


def test_it_is_named_by_its_path_and_run_only_where_it_is_named(signs, capsys, tmp_path):
    words = ["--trainer", "signs_of_theirs:SIGNS", "--stride", "0.02", "--steps", "9", "--out", tmp_path]
    code, out, err = lottery(capsys, "prune", *QUICK, *words)
    assert (code, err) == (0, "")
    made = Path(out.strip()).parents[1]
    assert json.loads((made / "config.json").read_text())["trainer"] == "signs_of_theirs:SIGNS"
    assert lottery(capsys, "show", made)[0] == 0
    with pytest.raises(
        Untrusted, match="'signs_of_theirs:SIGNS'; nothing that a stored file names is run: say --trust"
    ):
        ablate(made, ["random-mask"])
    assert ablate(made, ["random-mask"], trust=True)


def test_its_settings_come_from_a_file_as_well(signs, tmp_path):
    (tmp_path / "c.toml").write_text("trainer = 'signs'\nstride = 0.5\nsteps = 7\n")
    assert resolve(layer(read_toml(tmp_path / "c.toml"), {"steps": 8}))[1] == signs.SignsConfig(8, 0.5)
    with pytest.raises(BadValue, match="stride must be more than 0, not 0"):
        resolve({"trainer": "signs", "stride": 0})
    with pytest.raises(UnknownName, match="'lr': here it is called 'stride'"):
        resolve({"trainer": "signs", "lr": 0.1})


def test_what_it_does_not_take_is_one_line(signs, tmp_path):
    with pytest.raises(BadValue, match="trainer 'signs' learns from examples, and .* is a fitness function"):
        find_ticket({"w": np.zeros((2, 2), np.float32)}, lambda params: 0.0, trainer="signs", out=tmp_path)
    with pytest.raises(BadValue, match="trainer 'signs' trains PyTorch modules, and this model is in JAX"):
        find_ticket(
            ({"w": np.zeros((6, 3), np.float32)}, lambda p, x: x @ p["w"]), BLOBS, trainer="signs", out=tmp_path
        )
    with pytest.raises(BadValue, match="early_bird ends a training early, which trainer 'signs' cannot"):
        resolve({"trainer": "signs", "early_bird": 0.1})


def test_a_setting_without_a_help_text_is_an_error_for_its_author():
    @dataclass(frozen=True)
    class Silent:
        depth: int = 3

    with pytest.raises(BadValue, match=re.escape('Silent.depth needs a help text: declare it as setting(3, "What')):
        TrainerKind(Silent, lambda ask: None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadValue, match="'rounds' is no setting of Told"):
        TrainerKind(
            dataclasses.make_dataclass("Told", [("steps", int, setting(1, "Steps."))]),
            lambda ask: None,  # pyright: ignore[reportArgumentType]
            length=frozenset({"rounds"}),
        )
    with pytest.raises(BadValue, match="Clashing.levels has the name of a setting of every search"):
        TrainerKind(
            dataclasses.make_dataclass("Clashing", [("levels", int, setting(1, "Levels of its own."))]),
            lambda ask: None,  # pyright: ignore[reportArgumentType]
        )
