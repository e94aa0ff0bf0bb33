"""Ablations: each changes what it says and nothing else, and lies in the same frame as the search."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lottery import Data, find_ticket
from lottery.cli.app import run as command
from lottery.runs.directory import RunDirectory
from lottery.runs.reading import read_search
from lottery.studies.ablation.controls import ABLATIONS, Point, Subject, others_in_order
from lottery.studies.ablation.controls.masks import (
    exchange_masks,
    random_layers,
    random_mask,
    shuffle_mask,
    shuffle_units,
)
from lottery.studies.ablation.controls.weights import constant_magnitude, shuffle_weights, sign_flip, sign_reinit
from lottery.studies.ablation.report import ablation_figure, ablation_table, ablations_json
from lottery.studies.ablation.running import ablate
from lottery.studies.ablation.stored import read_ablation, read_ablations
from pruning.errors import BadValue, ConfigMismatch, FileFormatError, UnknownName
from pruning.mask import Mask
from pruning.patterns.unstructured import UNSTRUCTURED
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SEEDS, LEVELS = (0, 1), (1, 3)
ALL = ABLATIONS.names()
# Which of them keep the ticket's mask, its weights, or its counts in every tensor.
KEEP_MASK = {"reinit", "sign-reinit", "sign-flip", "constant-magnitude", "shuffle-weights", "rewind"}
KEEP_LAYERS = KEEP_MASK | {"random-layers", "shuffle-mask", "shuffle-units", "inverted"}
KEEP_WEIGHTS = {"random-mask", "random-layers", "shuffle-mask", "shuffle-units", "inverted", "exchange-masks"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    settings = {"levels": 3, "steps": 24, "batch_size": 16, "tolerance": 1.0, "replicates": 2, "rewind": "4"}
    found = find_ticket(tiny_model, DATA, out=tmp_path_factory.mktemp("runs"), **settings).search
    assert found is not None
    return found.run


@pytest.fixture(scope="module")
def controls(searched):
    kinds = ablate(searched, ALL, levels=LEVELS, repeats=2, rewind="12", model=tiny_model, data=DATA)
    return {each.kind.removesuffix("-12"): each for each in kinds}


def stored(run, kind, repeat=0):
    folder = f"{kind}-12" if kind == "rewind" else kind
    return RunDirectory(run / "ablations" / folder / f"repeat-{repeat}")


@pytest.mark.parametrize("kind", ALL)
class TestEveryAblation:
    """Regression: open_lth's `randomly_prune --strategy even` never ran; every registered control runs here."""

    def test_says_what_it_breaks_and_where_it_comes_from(self, kind):
        assert ABLATIONS[kind].summary and ABLATIONS[kind].source

    def test_keeps_the_global_count_at_every_level(self, searched, controls, kind):
        tickets = {level.level: level for level in read_search(searched).levels}
        assert [level.level for level in controls[kind].levels] == list(LEVELS)
        for level in controls[kind].levels:
            assert level.kept == tickets[level.level].kept
            assert [r.seed for r in level.replicates] == list(SEEDS)
            assert not any(r.diverged for r in level.replicates)

    def test_changes_what_it_says_and_nothing_else(self, searched, controls, kind):
        run, control = RunDirectory(searched), stored(searched, kind)
        for seed in SEEDS:
            ticket_mask, mask = run.read_mask(seed, 3), control.read_mask(seed, 3)
            ticket, start = run.read_rewound(seed, 3), control.read_rewound(seed, 3)
            moved = any(not np.array_equal(start[name], ticket[name]) for name in mask)
            if kind not in KEEP_MASK | KEEP_WEIGHTS:  # nobody has said here what this one keeps
                assert moved or mask != ticket_mask
                continue
            assert (mask == ticket_mask) == (kind in KEEP_MASK)
            if kind in KEEP_LAYERS:
                assert mask.counts() == ticket_mask.counts()
            if kind in KEEP_WEIGHTS:
                assert_same_arrays(start, ticket)
            else:
                assert moved
            if kind in {"sign-flip", "constant-magnitude", "shuffle-weights"}:
                others = ticket.keys() - set(mask)
                assert_same_arrays({n: start[n] for n in others}, {n: ticket[n] for n in others})

    def test_removed_weights_stay_zero(self, searched, controls, kind):
        control = stored(searched, kind)
        mask, trained = control.read_mask(0, 3), control.read_trained(0, 3).params
        assert all((trained[name][~keep] == 0).all() for name, keep in mask.items())

    def test_is_labelled_as_what_it_is(self, searched, controls, kind):
        record = stored(searched, kind, 1).read_record(1, 1)
        assert record["ablation"].startswith(kind) and record["repeat"] == 1
        assert record["dense"] == {key: RunDirectory(searched).read_record(1, 0)[key] for key in ("validation", "test")}


def subject(**changes):
    mask = Mask({"a": np.arange(24).reshape(4, 6) % 3 == 0, "b": np.arange(8).reshape(2, 4) % 2 == 0})
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in mask.shapes().items()}
    params["bias"] = np.ones(3, np.float32)
    fresh = {name: value + 10 for name, value in params.items()}
    values = {
        "seed": 0,
        "level": 1,
        "mask": mask,
        "params": params,
        "fresh": lambda: fresh,
        "redraw": lambda: mask,
        "elsewhere": lambda: Point(fresh, 7),
        "pattern": UNSTRUCTURED,
        "rows": {},
        "others": {},
        "rng": np.random.default_rng(1),
    } | changes
    return Subject(**values)


def made(control, **changes):
    about = subject(**changes)
    return about, control(about)


def test_shuffling_a_mask_shuffles_it():
    """Regression: Synaptic-Flow's shuffle rebinds a local name, so that nothing is shuffled."""
    about, control = made(shuffle_mask)
    assert control.mask != about.mask and control.mask.counts() == about.mask.counts()


def test_shuffling_permutes_entries_and_not_rows():
    """Regression: es-lottery permutes an N-D mask along its first axis only."""
    about = subject(mask=Mask({"a": np.arange(400).reshape(20, 20) < 200, "b": np.ones((2, 4))}))
    rows = shuffle_mask(about).mask["a"].sum(1)
    assert len(set(rows.tolist())) > 2


def test_shuffled_units_keep_how_many_weights_each_has():
    about, control = made(shuffle_units)
    for name, keep in about.mask.items():
        assert sorted(control.mask[name].sum(0)) == sorted(keep.sum(0))
        assert sorted(control.mask[name].sum(1)) == sorted(keep.sum(1))


def test_shuffled_weights_are_the_same_survivors_elsewhere():
    about, control = made(shuffle_weights)
    for name, keep in about.mask.items():
        assert sorted(control.params[name][keep]) == sorted(about.params[name][keep])
        assert np.array_equal(control.params[name][~keep], about.params[name][~keep])


def test_signs():
    about, flipped = made(sign_flip)
    assert np.array_equal(np.abs(flipped.params["a"]), np.abs(about.params["a"]))
    assert 0 < (np.sign(flipped.params["a"]) != np.sign(about.params["a"])).mean() < 1
    for function in (sign_reinit, constant_magnitude):
        about, control = made(function)
        assert np.array_equal(np.signbit(control.params["a"]), np.signbit(about.params["a"]))
    assert np.abs(made(sign_reinit)[1].params["b"]).min() > 5
    about, constant = made(constant_magnitude)
    assert np.allclose(np.abs(constant.params["a"]), about.params["a"].std())


def test_a_random_mask_may_change_the_layers_and_a_layerwise_one_may_not():
    """Regression: es-lottery's random baseline matches only the global sparsity; both are here, under two names."""
    about, anywhere = made(random_mask)
    _, layerwise = made(random_layers)
    assert anywhere.mask.kept == about.mask.kept
    assert layerwise.mask.counts() == about.mask.counts()


def test_what_is_said_of_kinds_is_said_of_kinds_that_there_are():
    assert set(ALL) >= KEEP_MASK | KEEP_WEIGHTS
    functions = (exchange_masks, random_layers, random_mask, shuffle_mask, shuffle_units, shuffle_weights)
    for function in (*functions, constant_magnitude, sign_flip, sign_reinit):
        assert ABLATIONS[function.__name__.replace("_", "-")].value is function


def test_masks_are_exchanged_in_a_circle():
    masks = {seed: Mask({"a": [seed == 1, seed == 2, seed == 5]}) for seed in (1, 2, 5)}
    for seed, expected in ((1, 2), (2, 5), (5, 1)):
        others = {other: mask for other, mask in masks.items() if other != seed}
        about, control = made(exchange_masks, seed=seed, mask=masks[seed], others=others)
        assert control.mask == masks[expected] and control.params is about.params
    with pytest.raises(BadValue, match="more replicates"):
        made(exchange_masks)
    assert others_in_order(subject(seed=2, others=dict.fromkeys((7, 1, 5), masks[1]))) == [5, 7, 1]


def test_inverted_keeps_the_smallest(searched, controls):
    run, control = RunDirectory(searched), stored(searched, "inverted")
    dense, mask = run.read_trained(0, 0).params, control.read_mask(0, 3)
    for name, keep in mask.items():
        assert np.abs(dense[name])[keep].max() <= np.abs(dense[name])[~keep].min()


def test_another_rewind_point_is_that_of_the_dense_training(searched, controls):
    run, control = RunDirectory(searched), stored(searched, "rewind")
    record = control.read_record(0, 3)
    assert record["steps"] == 24 - 12 and run.read_record(0, 3)["steps"] == 24 - 4
    # level 0's own copy at step 4 lies on disk; going there again must give the same bits
    at_four = ablate(searched, "rewind", levels=[1], rewind="4", model=tiny_model, data=DATA)
    assert at_four[0].kind == "rewind-4"
    again = RunDirectory(searched / "ablations" / "rewind-4" / "repeat-0")
    assert_same_arrays(again.read_rewound(0, 1), run.read_rewound(0, 1))
    assert_same_arrays(again.read_trained(0, 1).params, run.read_trained(0, 1).params)


def test_repeats_differ_and_levels_share_a_reinitialization(searched, controls):
    one, two = stored(searched, "reinit", 0), stored(searched, "reinit", 1)
    name = next(iter(one.read_mask(0, 1)))
    assert not np.array_equal(one.read_rewound(0, 1)[name], two.read_rewound(0, 1)[name])
    assert not np.array_equal(one.read_rewound(0, 1)[name], one.read_rewound(1, 1)[name])
    assert_same_arrays(one.read_rewound(0, 1), one.read_rewound(0, 3))


def test_repeats_count_once_for_each_seed(controls):
    level = controls["reinit"].levels[0]
    repeats = controls["reinit"].every[1]
    assert len(repeats) == 2 and len(level.replicates) == 2
    expected = np.mean([repeat.replicates[0].test for repeat in repeats])
    assert level.replicates[0].test == pytest.approx(expected)


def test_controls_are_reported_beside_the_ticket(searched, controls):
    search, shown = read_search(searched), [controls["reinit"], controls["random-mask"]]
    rows = [line.split() for line in ablation_table(search, shown).splitlines() if line.strip()[:1].isdigit()]
    assert [(row[0], row[2]) for row in rows] == [
        (str(level), kind) for level in LEVELS for kind in ("(ticket)", "reinit", "random-mask")
    ]
    first, other = search.levels[1].test, controls["reinit"].levels[0].test
    assert first is not None
    assert [row[3] for row in rows[:2]] == [f"{100 * test:.2f}" for test in (first, other)]
    found = ablations_json(search, shown)
    assert [(level["kind"], level["level"], level["repeats"]) for level in found["levels"]] == [
        (kind, level, 2) for kind in ("reinit", "random-mask") for level in LEVELS
    ]
    for level in found["levels"]:
        ticket = search.levels[level["level"]]
        assert level["against_ticket"]["value"] == pytest.approx(level["test"] - ticket.test)
    (axes,) = ablation_figure(search, shown).axes
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.lines}
    assert list(drawn) == ["ticket (n = 2)", "reinit × 2 (n = 2)", "random-mask × 2 (n = 2)", "dense"]
    assert drawn["reinit × 2 (n = 2)"] == pytest.approx([100 * level.test for level in controls["reinit"].levels])


def test_what_is_there_is_not_trained_again_and_what_is_missing_comes_back_with_the_same_bits(searched, controls):
    def time(kind, repeat):
        return (stored(searched, kind, repeat).level_path(1, 3) / "config.json").stat().st_mtime_ns

    before, kept = stored(searched, "shuffle-mask", 1).read_trained(1, 3).params, time("shuffle-mask", 0)
    shutil.rmtree(stored(searched, "shuffle-mask", 1).level_path(1, 3))
    assert [r.level for r in read_ablation(searched, "shuffle-mask").levels] == [1, 3]
    ablate(searched, "shuffle-mask", levels=LEVELS, repeats=2, model=tiny_model, data=DATA)
    assert_same_arrays(stored(searched, "shuffle-mask", 1).read_trained(1, 3).params, before)
    assert time("shuffle-mask", 0) == kept


def test_all_controls_of_a_run_can_be_read(searched, controls):
    assert {each.kind for each in read_ablations(searched)} >= {"reinit", "random-mask", "rewind-12"}
    with pytest.raises(FileFormatError, match="no level of the ablation"):
        read_ablation(searched, "nothing")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kinds": "reinti"}, UnknownName, "did you mean 'reinit'"),
        ({"kinds": []}, BadValue, "at least one"),
        ({"kinds": "reinit", "levels": [9]}, BadValue, "no level 9; it has levels 0 to 3"),
        ({"kinds": "reinit", "repeats": 0}, BadValue, "repeats must be 1"),
        ({"kinds": "reinit", "rewind": "3"}, BadValue, "go together"),
        ({"kinds": "rewind"}, BadValue, "go together"),
        ({"kinds": "rewind", "rewind": "lr"}, BadValue, "goes to a step"),
        ({"kinds": "reinit", "model": None}, BadValue, "its model has no name"),
        ({"kinds": "reinit", "data": (np.zeros((20, 6)), np.arange(20) % 3)}, ConfigMismatch, "another data"),
    ],
)
def test_what_cannot_be_ablated_is_an_error(searched, change, error, message):
    with pytest.raises(error, match=message):
        ablate(searched, **({"model": tiny_model, "data": DATA, "levels": [1]} | change))


def test_one_module_has_no_other_initialization(tmp_path):
    model = tiny_model()
    settings = {"levels": 1, "steps": 8, "batch_size": 16, "tolerance": 1.0, "out": tmp_path}
    found = find_ticket(model, DATA, **settings).search
    assert found is not None
    with pytest.raises(BadValue, match="one initialization only"):
        ablate(found.run, "reinit", model=model, data=DATA)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["prune", "--levels", "2", "--steps", "20", "--replicates", "2", "--set", "tolerance=0.5", "--quiet"]
    assert command(tiny) == 0
    (run,) = (tmp_path / "runs").glob("digits-*")
    capsys.readouterr()
    assert command(["ablate", str(run), "--kind", "reinit", "--levels", "1,2", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["kind"] == "reinit"
    assert [(level["level"], level["kind"]) for level in out["levels"]] == [(1, "reinit"), (2, "reinit")]
    assert {"density", "kept", "layers", "replicates", "against_ticket"} <= out["levels"][0].keys()
    assert out["levels"][0]["against_ticket"]["n"] == 2
    assert (run / "ablations.png").exists()
    assert command(["ablate", str(run), "--kind", "reinit", "--kind", "shuffle-mask", "--levels", "1"]) == 0
    text = capsys.readouterr().out
    assert "shuffle-mask" in text and "paired by seed" in text
    assert command(["ablate", str(run), "--kind", "shufle-mask"]) == 2
    assert "did you mean 'shuffle-mask'" in capsys.readouterr().err
    assert command(["ablate", str(run), "--kind", "reinit", "--levels", "one"]) == 2
    assert "whole numbers between commas" in capsys.readouterr().err
