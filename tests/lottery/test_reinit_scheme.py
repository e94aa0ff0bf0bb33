"""The control of other weights, drawn by an initializer under the ticket's mask: beside the plain one, and said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lottery import Data, find_ticket
from lottery.cli.app import run as command
from lottery.networks.sources.source import ModelSource
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_search
from lottery.studies.ablation.report import ablation_figure
from lottery.studies.ablation.running import ablate
from lottery.studies.ablation.stored import read_ablations
from pruning.errors import BadValue, ConfigMismatch, UnknownName
from pruning.initializers import Chosen, Initializer, draw, get_initializer
from pruning.starts.tensor import Layout, Tensor
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
GAIN = {"gain": 1.0}


def _searched(model, out, **settings):
    settings = {"densities": [0.4, 0.2], "steps": 12, "batch_size": 16, "tolerance": 1.0, "quiet": True} | settings
    found = find_ticket(model, DATA, out=out, **settings).search
    assert found is not None
    return found.run


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    run = _searched(tiny_model, tmp_path_factory.mktemp("runs"), replicates=2)
    ablate(run, "reinit", model=tiny_model, data=DATA)
    ablate(run, ["reinit", "sign-reinit"], init="unit-scaled", init_params=GAIN, model=tiny_model, data=DATA)
    return run


def stored(run, folder):
    return RunDirectory(run / "ablations" / folder / "repeat-0")


SCALED = "reinit-unit-scaled-gain=1.0"


def other_seed(seed, repeat=0):
    return int(np.random.SeedSequence([seed, repeat, 0x5EED]).generate_state(1, np.uint32)[0])


@pytest.mark.parametrize("level", [1, 2])
def test_the_weights_have_the_variance_of_the_tickets_mask(searched, level):
    for seed in (0, 1):
        mask, control = RunDirectory(searched).read_mask(seed, level), stored(searched, SCALED)
        assert control.read_mask(seed, level) == mask
        for name, keep in mask.items():
            tensor = Tensor(name, keep, Layout(keep.shape, (), (0,), (1,)))
            drawn = draw([tensor], get_initializer("unit-scaled", GAIN), other_seed(seed)).values[name]
            assert np.array_equal(control.read_rewound(seed, level)[name], drawn.astype(np.float32))


def test_the_plain_control_is_dense_and_stays_as_it_is(searched):
    plain, scaled = (stored(searched, kind).read_rewound(0, 2) for kind in ("reinit", SCALED))
    mask = RunDirectory(searched).read_mask(0, 2)
    assert all(plain[name][~keep].any() for name, keep in mask.items() if not keep.all())
    assert not any(np.array_equal(plain[name], scaled[name]) for name in mask)


def test_each_replicate_level_and_kind_of_weights_is_its_own(searched):
    one, other = (stored(searched, SCALED).read_rewound(seed, 1) for seed in (0, 1))
    assert not any(np.array_equal(one[name], other[name]) for name in RunDirectory(searched).read_mask(0, 1))
    signed, ticket = stored(searched, f"sign-{SCALED}").read_rewound(0, 1), RunDirectory(searched).read_rewound(0, 1)
    for name, keep in RunDirectory(searched).read_mask(0, 1).items():
        assert np.array_equal(np.abs(signed[name][keep]), np.abs(one[name][keep]))
        assert np.array_equal(np.sign(signed[name][keep]), np.sign(ticket[name][keep]))


def test_the_record_says_scheme_and_settings(searched):
    assert stored(searched, SCALED).read_record(0, 1)["drawn_by"] == {"init": "unit-scaled", "init_params": GAIN}
    assert stored(searched, SCALED).read_record(0, 1)["ablation"] == SCALED
    assert "drawn_by" not in stored(searched, "reinit").read_record(0, 1)
    assert [dict(each.drawn_by).get("init") for each in read_ablations(searched)] == [None, *["unit-scaled"] * 2]


def test_both_stand_in_table_and_figure(searched, capsys, monkeypatch):
    monkeypatch.setattr("lottery.cli.ablate.look_here", lambda *_, **__: None)
    asked = ["ablate", str(searched), "--kind", "reinit", "--init", "unit-scaled", "--init-param", "gain=1.0"]
    monkeypatch.setattr(
        "lottery.studies.ablation.running.ablate",
        lambda run, kind, *, init, init_params, **_: ablate(
            run, kind, init=init, init_params=init_params, model=tiny_model, data=DATA
        ),
    )
    assert command(asked) == 0
    shown = capsys.readouterr().out
    assert shown.count(" reinit ") == shown.count(SCALED) == 2
    legend = ablation_figure(read_search(searched), read_ablations(searched)).axes[0].get_legend_handles_labels()[1]
    assert {"reinit", SCALED} <= {text.split(" ")[0] for text in legend}
    assert command([*asked, "--json"]) == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    assert {level["kind"] for level in levels} == {SCALED}
    assert levels[0]["drawn_by"] == {"init": "unit-scaled", "init_params": GAIN}


def test_what_is_there_is_not_trained_again(searched, capsys):
    before = stored(searched, SCALED).read_rewound(0, 1)
    ablate(searched, "reinit", init="unit-scaled", init_params=GAIN, model=tiny_model, data=DATA)
    assert_same_arrays(stored(searched, SCALED).read_rewound(0, 1), before)
    assert "nothing was trained" in capsys.readouterr().err


def test_a_module_instance_has_one_initialization_and_any_scheme_gives_it_another(tmp_path):
    model = tiny_model(0)
    run = _searched(model, tmp_path)
    with pytest.raises(BadValue, match="one initialization only: to draw another, name how"):
        ablate(run, "reinit", model=model, data=DATA)
    (control,) = ablate(run, "reinit", init="unit-scaled", init_params=GAIN, model=model, data=DATA)
    assert control.kind == SCALED and len(control.levels) == 2


def own(weight, rng, *, scale=0.1):
    """Numbers of one size."""
    return rng.choice([-scale, scale], weight.shape)


def other(weight, rng, *, scale=0.1):
    """Zeros but for noise."""
    return rng.standard_normal(weight.shape) * scale


def test_a_function_of_the_users_is_known_by_its_code(searched):
    (control,) = ablate(searched, "reinit", levels=[1], init=own, model=tiny_model, data=DATA)
    assert control.kind == "reinit-own"
    assert control.drawn_by["init"] == "own" and len(control.drawn_by["code"]) > 4
    other.__name__ = "own"
    with pytest.raises(ConfigMismatch, match="another init than 'own' is now"):
        ablate(searched, "reinit", levels=[1], init=other, model=tiny_model, data=DATA)


@pytest.mark.parametrize(
    ("kinds", "init", "settings", "error", "said"),
    [
        (
            "random-mask",
            "unit-scaled",
            None,
            BadValue,
            "'random-mask' draws no weights: init goes with reinit, sign-re",
        ),
        (["reinit", "sign-flip"], "unit-scaled", None, BadValue, "'sign-flip' draws no weights"),
        ("reinit", "unit-scald", None, UnknownName, "did you mean .unit-scaled"),
        ("reinit", "unit-scaled", {"gian": 1.0}, UnknownName, "did you mean .gain"),
    ],
)
def test_what_cannot_be_is_one_line(searched, kinds, init, settings, error, said):
    with pytest.raises(error, match=said) as found:
        ablate(searched, kinds, init=init, init_params=settings, model=tiny_model, data=DATA)
    assert "\n" not in str(found.value)


def test_a_scheme_that_chooses_the_mask_is_refused(searched, monkeypatch):
    choosing = Initializer("choosing", lambda weight, rng: Chosen(np.ones(weight.shape), weight.keep), True)
    monkeypatch.setattr("lottery.studies.ablation.drawing_afresh.initializer_named", lambda *_: choosing)
    with pytest.raises(BadValue, match="chooses the mask itself, and a control keeps the ticket's: take one of"):
        ablate(searched, "reinit", init="choosing", model=tiny_model, data=DATA)


def test_the_plain_one_keeps_its_numbers(searched):
    """Fresh weights without a scheme are those of the network of another seed, as before there were schemes."""
    expected = ModelSource("tiny", tiny_model, True).initial_state(other_seed(0))
    assert_same_arrays(stored(searched, "reinit").read_rewound(0, 1), expected)
