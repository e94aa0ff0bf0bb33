"""Analyses of a finished search: what they promise, on a search whose answers are known."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from lottery import Data, find_ticket
from lottery.cli.app import run
from lottery.results.levels import EarlyStop
from lottery.studies.analyses import ANALYSES, Study, analyze, study
from lottery.studies.analyses.early_stop_speedup import early_stop_speedup
from lottery.studies.analyses.effective_sparsity import effective_sparsity
from lottery.studies.analyses.layer_density import layer_density
from lottery.studies.analyses.overlap_between import overlap_between
from lottery.studies.analyses.weight_distributions import weight_distributions
from lottery.studies.measures.energy import energy_profile, principal_components
from lottery.studies.measures.patches import patch_basis
from lottery.studies.measures.representations import examples_for
from lottery.studies.measures.similarity import kernel_alignment, unit_kernel
from pruning.effective import effective
from pruning.errors import BadValue, MaskMismatch, UnknownName
from pruning.jobs import Evaluation
from pruning.overlap import global_overlap
from tests.lottery.helpers import blobs

NAMES = ["cka", "early-stop-speedup", "effective-sparsity", "filter-energy", "layer-density", "mask-overlap"]
NAMES += ["weight-distributions"]


def two_layers(seed: int) -> nn.Module:
    """6-8-3."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def wider(seed: int) -> nn.Module:
    """6-9-3."""
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))


def data() -> Data:
    """Blobs, in three parts."""
    return Data(train=blobs(96), validation=blobs(60, seed=1), test=blobs(30, seed=2))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")

    def search(model=two_layers, **settings):
        base = {"levels": 3, "prune_rate": 0.4, "steps": 30, "tolerance": 1.0, "replicates": 3, "out": out}
        found = find_ticket(model, data(), **(base | settings)).search
        assert found is not None
        return found.run

    return search


@pytest.fixture(scope="module")
def path(make):
    return make()


@pytest.fixture(scope="module")
def studied(path) -> Study:
    return study(path, two_layers, data())


@pytest.fixture(scope="module")
def found(studied):
    return {name: ANALYSES[name].value(studied) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_plain_the_text_says_n_and_the_figure_draws(found, name):
    findings = found[name]
    assert json.loads(json.dumps(findings.as_json())).keys() >= findings.arrays.keys()
    assert "n = 3" in findings.text and "95 %" in findings.text
    figure = Figure(layout="constrained")
    findings.draw(figure)
    assert figure.axes and all(axes.has_data() for axes in figure.axes)


def test_by_name_from_a_path_and_an_unknown_name(path, found):
    again = analyze(path, "layer-density")
    np.testing.assert_array_equal(again.arrays["layers"], found["layer-density"].arrays["layers"])
    with pytest.raises(UnknownName, match="did you mean 'mask-overlap'"):
        analyze(path, "mask-overlp")


def linear_cka(x, y, debiased=False):
    return kernel_alignment(unit_kernel(x, debiased), unit_kernel(y, debiased))


def test_cka_of_the_reference_numbers():
    rng = np.random.RandomState(1337)
    x = rng.randn(100, 10)
    y = rng.randn(100, 10) + x
    assert linear_cka(x, y) == pytest.approx(0.55761, abs=5e-6)
    assert linear_cka(x, y, debiased=True) == pytest.approx(0.51346, abs=5e-6)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_ignores_rotation_scale_shift_and_dead_units_only(debiased):
    rng = np.random.Generator(np.random.PCG64(0))
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 7))
    rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    assert linear_cka(x, 3 * x @ rotation + 2, debiased) == pytest.approx(1.0)
    assert linear_cka(x, x * [1, 1, 1, 1, 9], debiased) < 0.95
    with_dead = np.concatenate([x, np.full((40, 3), 0.7)], axis=1)
    assert linear_cka(with_dead, y, debiased) == pytest.approx(linear_cka(x, y, debiased))
    assert linear_cka(x, y, debiased) == pytest.approx(linear_cka(y, x, debiased))


def test_debiased_cka_of_unrelated_features_is_zero_on_average_however_many_there_are():
    rng = np.random.Generator(np.random.PCG64(0))
    pairs = [(rng.standard_normal((20, 200)), rng.standard_normal((20, 200))) for _ in range(40)]
    assert abs(np.mean([linear_cka(x, y, debiased=True) for x, y in pairs])) < 0.05
    assert np.mean([linear_cka(x, y) for x, y in pairs]) > 0.8


def test_cka_of_constant_features_is_undefined_and_of_few_examples_an_error():
    assert np.isnan(linear_cka(np.full((5, 2), 0.1), np.eye(5)))
    assert np.isnan(unit_kernel(np.zeros((5, 0)))).all()
    with pytest.raises(BadValue, match="at least 4 examples"):
        unit_kernel(np.eye(3), debiased=True)


def test_the_dense_network_is_like_itself(found):
    arrays, facts = found["cka"].arrays, found["cka"].facts
    np.testing.assert_allclose(arrays["to_dense"][0], 1.0, atol=1e-6)
    np.testing.assert_allclose(np.diag(arrays["layer_by_layer"]), 1.0, atol=1e-6)
    assert (arrays["to_dense"][1:] < 1 - 1e-4).all()
    assert (facts["layers"], facts["examples"], facts["left_out"]) == (["0", "2"], 60, [])


def test_mask_overlap_is_that_of_the_masks(studied, found):
    arrays = found["mask-overlap"].arrays
    for level, row in enumerate(arrays["jaccard"]):
        masks = [studied.mask(seed, level) for seed in studied.seeds]
        assert row.tolist() == [a.overlap(b) for a, b in itertools.combinations(masks, 2)]
        assert arrays["z_global"][level, 0] == pytest.approx(global_overlap(masks[0], masks[1]).z, nan_ok=True)
    assert arrays["jaccard_interval"].shape == (4, 2)
    assert arrays["chance_global"][0].tolist() == [1, 1, 1]


def test_one_replicate_has_no_pairs(make):
    with pytest.raises(BadValue, match="compares replicates, and this run has one"):
        # Of the same settings there are three replicates in this folder: they would be one search with this one.
        analyze(make(replicates=1, levels=1), "mask-overlap")


def test_overlap_between_runs_of_the_same_and_of_other_seeds(studied, make):
    other = study(make(criterion="random"))
    findings = overlap_between([studied, other])
    a, b = studied.mask(1, 2), other.mask(1, 2)
    same = [studied.mask(seed, 2).overlap(other.mask(seed, 2)) for seed in range(3)]
    assert findings.arrays["same_seed"][2] == pytest.approx(np.mean(same))
    assert a.kept == b.kept and findings.arrays["levels"].tolist() == [[n, n] for n in range(4)]
    assert (findings.facts["n_same"], findings.facts["n_other"]) == ([3] * 4, [6] * 4)
    assert findings.facts["same_initial_weights"] == [True]
    assert (findings.arrays["same_seed_interval"][2, 0] < np.mean(same)).all()


def test_runs_over_other_tensors_or_densities_have_no_overlap(studied, make):
    with pytest.raises(MaskMismatch, match=r"'0.weight' has shape \(8, 6\) in .* and \(9, 6\) in"):
        overlap_between([studied, study(make(wider, levels=1))])
    with pytest.raises(BadValue, match="no pruned level with the same number"):
        overlap_between([studied, study(make(levels=1, prune_rate=0.1))])
    with pytest.raises(BadValue, match="two runs or more"):
        overlap_between([studied])


def test_effective_density_is_that_of_the_masks(studied, found):
    arrays = effective_sparsity(studied).arrays
    assert arrays["effective"].tolist() == found["effective-sparsity"].arrays["effective"].tolist()
    assert arrays["effective"][0] == arrays["nominal"][0] == 1.0
    assert (arrays["effective"] <= arrays["nominal"] + 1e-12).all()
    masks = [studied.mask(seed, 3) for seed in studied.seeds]
    assert arrays["effective"][3] == pytest.approx(np.mean([effective(mask).mask.density for mask in masks]))
    assert arrays["units"].tolist() == [8, 3]


def test_all_weights_are_those_of_each_levels_own_rewind_point(make):
    run = make(rewind="10", levels=2)
    study_of = study(run, two_layers, data())
    arrays = weight_distributions(study_of).arrays
    for row, level in enumerate(arrays["levels"]):
        for at, name in enumerate(("0.weight", "2.weight")):
            points = np.concatenate([study_of.rewound(seed, level)[name].ravel() for seed in study_of.seeds])
            counts = np.histogram(points.astype(np.float64), arrays["edges_initial"][at])[0]
            np.testing.assert_array_equal(arrays["all_initial"][row, at], counts)
            assert (arrays["initial"][row, at] <= counts).all()
    begun = np.concatenate([study_of.rewound(seed, 0)["0.weight"].ravel() for seed in study_of.seeds])
    at_step_0 = np.histogram(begun.astype(np.float64), arrays["edges_initial"][0])[0]
    assert (arrays["all_initial"][0, 0] != at_step_0).any()


def test_histograms_count_every_weight_once(studied, found):
    arrays = found["weight-distributions"].arrays
    assert arrays["levels"].tolist() == [1, 2, 3]
    for key in ("initial", "trained", "moved"):
        everything = arrays[f"all_{key}"]
        assert everything.shape[:-1] == ((3, 2) if key == "initial" else (2,))
        assert (everything.sum(-1) == [3 * 48, 3 * 24]).all()
        for row, level in enumerate(arrays["levels"]):
            kept = [
                sum(studied.mask(seed, level).counts()[name] for seed in range(3)) for name in ("0.weight", "2.weight")
            ]
            assert arrays[key][row].sum(1).tolist() == kept
        # a bin cannot hold more survivors than weights; those of a level are trained otherwise than the dense ones
        assert key == "trained" or (arrays[key] <= everything).all()
    assert (arrays["initial_ratio"][2] > 1).all()


def test_early_stop_ratios_by_hand():
    ratio = 410 / 600
    dense, level = [100, 300, 200], [60, 250, 100]

    def replicate(seed: int, step: int):
        history = [Evaluation(at, None, 0.0, 0.5, None, None) for at in range(0, 301, 50)]
        return SimpleNamespace(seed=seed, early_stop=EarlyStop(step, 0.5, None), history=history)

    levels = tuple(
        SimpleNamespace(level=n, density=1 / (n + 1), alive=[replicate(s, at) for s, at in enumerate(steps)])
        for n, steps in enumerate((dense, level))
    )
    found = early_stop_speedup(SimpleNamespace(levels=levels, run=SimpleNamespace(path="run")))  # type: ignore[arg-type]
    arrays = found.arrays
    assert arrays["mean_of_ratios"].tolist() == pytest.approx([1.0, (0.6 + 250 / 300 + 0.5) / 3])
    assert arrays["ratio_of_means"].tolist() == pytest.approx([1.0, ratio])
    assert arrays["at_end"].tolist() == [1, 0] and arrays["n"].tolist() == [3, 3]
    # residuals (60 − 100 r, 250 − 300 r, 100 − 200 r) / 200 with r = 0.68333; t(0.975, 2) = 4.30265
    residuals = (np.array(level) - ratio * np.array(dense)) / 200
    half = 4.302653 * residuals.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(arrays["ratio_of_means_interval"][1], [ratio - half, ratio + half], rtol=1e-6)


def test_every_row_of_early_stops_says_its_own_n():
    def replicate(seed: int):
        history = [Evaluation(at, None, 0.0, 0.5, None, None) for at in (0, 50, 100)]
        return SimpleNamespace(seed=seed, early_stop=EarlyStop(50 + seed, 0.5, None), history=history)

    levels = tuple(
        SimpleNamespace(level=n, density=1 / (n + 1), alive=[replicate(seed) for seed in seeds])
        for n, seeds in enumerate(([0, 1, 2], [0, 2]))
    )
    found = early_stop_speedup(SimpleNamespace(levels=levels, run=SimpleNamespace(path="run")))  # type: ignore[arg-type]
    assert [row.split()[-1] for row in found.text.splitlines()[:3]] == ["n", "3", "2"]
    assert "of n = 3 dense replicates" in found.text
    figure = Figure()
    found.draw(figure)
    assert figure.axes[0].get_title() == "95 % t intervals, n = 2 to 3 pairs of one seed"


def test_energy_of_random_weights_is_flat_and_of_one_direction_is_not():
    rng = np.random.Generator(np.random.PCG64(0))
    x = rng.standard_normal((500, 16)) * np.linspace(3, 0.1, 16)
    variance, basis = principal_components(len(x), x.sum(0), x.T @ x)
    np.testing.assert_allclose(basis @ basis.T, np.eye(16), atol=1e-10)
    np.testing.assert_allclose(variance, np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1])
    keep = np.ones((4000, 16), bool)
    keep[2000:] = False
    weights = np.where(keep, rng.standard_normal((4000, 16)), 0)
    assert np.abs(energy_profile(weights, keep, basis) - 1).max() < 4 * np.sqrt(2 / 2000)
    assert energy_profile(np.outer([1.0, -2.0], basis[3]), np.ones((2, 16)), basis).argmax() == 3
    assert np.isnan(energy_profile(weights, ~keep & False, basis)).all()


def test_the_initial_weights_have_the_variance_of_the_blobs_to_choose_from(found):
    arrays = found["filter-energy"].arrays
    assert arrays["levels"].tolist() == [0, 1, 2, 3] and arrays["trained"].shape == (4, 3, 6)
    assert (np.diff(arrays["variance"]) <= 0).all()
    np.testing.assert_allclose(arrays["initial"].mean(2), 1.0)
    assert (arrays["live"] <= 8).all() and (arrays["live"][0] == 8).all()
    # 3 replicates of 8 dense filters: χ² with 24 degrees of freedom, 12.401 to 39.364; no band for sparse ones
    np.testing.assert_allclose(arrays["flat"], [12.401 / 24, 39.364 / 24], rtol=1e-4)


def test_patches_of_a_convolution_are_what_it_multiplies(studied):
    from lottery.studies.measures.patches import _input_of

    layer = nn.Conv2d(2, 3, 2, stride=2, bias=False)
    images = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    (vectors,) = _input_of(nn.Sequential(layer), layer, images)
    outputs = layer(images).permute(0, 2, 3, 1).reshape(-1, 3).detach().numpy()
    np.testing.assert_allclose(vectors @ layer.weight.detach().reshape(3, -1).numpy().T, outputs, atol=1e-6)


def test_what_a_layer_sees_has_the_variances_and_directions_of_its_inputs(studied):
    variances, directions = patch_basis(studied.view, "0", 96)
    inputs = studied.view.parts.train.inputs.numpy()
    values, vectors = np.linalg.eigh(np.cov(inputs.T, ddof=0))
    np.testing.assert_allclose(variances, values[::-1], rtol=1e-4)
    np.testing.assert_allclose(np.abs(directions @ vectors[:, ::-1]), np.eye(6), atol=1e-3)


def test_a_wide_layer_is_looked_at_with_fewer_examples(studied, monkeypatch):
    inputs, count = examples_for(studied.view, ["0", "2"], 20, seed=0)
    assert (count, tuple(inputs.shape)) == (20, (20, 6))
    monkeypatch.setattr("lottery.studies.measures.representations._NUMBERS", 64)
    assert examples_for(studied.view, ["0", "2"], 20, seed=0)[1] == 8  # of 8 numbers each
    assert examples_for(studied.view, ["2"], 20, seed=0)[1] == 20  # 3 numbers each would allow 21


def test_a_search_whose_last_level_diverged_is_analysed_without_it(studied):
    last = studied.search.levels[-1]
    dead = replace(last, replicates=tuple(replace(r, diverged="the loss is not finite") for r in last.replicates))
    shorter = Study(
        replace(studied.search, levels=(*studied.search.levels[:-1], dead), winner=None), studied.run, studied.reopen
    )
    assert (shorter.seeds, shorter.chosen, shorter.milestones) == ((0, 1, 2), 2, (1, 2))
    assert len(layer_density(shorter).arrays["density"]) == 3


def test_show_prints_draws_and_gives_json(path, capsys):
    assert run(["show", str(path), "--analysis", "layer-density", "--analysis", "mask-overlap", "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert list(printed) == ["layer-density", "mask-overlap"]
    assert len(printed["layer-density"]["layers"]) == 4
    assert "chance, layer counts" in captured.err
    for name in printed:
        assert (path / f"analysis-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_show_compares_the_masks_of_several_runs(path, make, tmp_path, capsys):
    other, figure = make(criterion="random"), tmp_path / "overlap.png"
    assert run(["show", str(path), str(other), "--analysis", "mask-overlap", "--figure", str(figure)]) == 0
    out = capsys.readouterr().out
    assert "same seed" in out and f"A = {path}" in out and figure.exists()


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, ["--analysis", "ckaa"], "unknown analysis 'ckaa': did you mean 'cka'"),
        (1, ["--analysis", "cka"], "its model has no name; say which with model=… (--model)"),
        (1, ["--analysis", "cka", "--analysis", "layer-density", "--figure", "a.png"], "one file for 2 analyses"),
        (1, ["--analysis", "cka", "--plot"], "--plot draws a run's own figures"),
        (1, ["--model", "mlp"], "are for an analysis"),
        (2, ["--analysis", "cka"], "cka looks at one run at a time"),
    ],
)
def test_a_wrong_request_is_one_line(path, capsys, count, options, message):
    assert run(["show", *[str(path)] * count, *options]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1
