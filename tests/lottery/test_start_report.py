"""The report on a start: the same in both frameworks, right where it can be computed by hand, and one sentence."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from lottery import Started, find_ticket, start
from lottery.runs.ticket import Ticket
from lottery.studies.analyses import analyze
from lottery.studies.starting.verdict import LayerSignal, verdict
from pruning.errors import BadValue
from pruning.mask import Mask


class Net(nn.Module):
    def __init__(self, depth: int = 2, width: int = 32) -> None:
        super().__init__()
        sizes = [64, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return self.out(x)


def pair(seed: int) -> Any:
    del seed
    sizes = {"hidden.0": (32, 64), "hidden.1": (32, 32), "out": (10, 32)}
    params = {f"{name}.weight": np.zeros(size, np.float32) for name, size in sizes.items()}

    def apply(tree: Any, x: Any) -> Any:
        x = x.reshape(len(x), -1)
        for name in ("hidden.0", "hidden.1"):
            x = jnp.maximum(x @ tree[f"{name}.weight"].T, 0)
        return x @ tree["out.weight"].T

    return params, apply


def started(model: Any, **settings: Any) -> Started:
    return start(model, "digits", **({"init": "unit-scaled", "init_params": {"gain": math.sqrt(2)}} | settings))


class TestBothFrameworks:
    def test_the_same_numbers(self):
        in_torch, in_jax = (started(model, density=0.3).report for model in (Net, pair))
        assert [layer.name for layer in in_torch.layers] == [layer.name for layer in in_jax.layers]
        for one, other in zip(in_torch.layers, in_jax.layers, strict=True):
            assert (one.rank, one.density) == (other.rank, other.density)
            assert one.largest == pytest.approx(other.largest, rel=1e-4)
            assert one.signal is not None and other.signal is not None
            assert one.signal.forward == pytest.approx(other.signal.forward, rel=1e-3)
            assert one.signal.backward == pytest.approx(other.signal.backward, rel=1e-3)
            assert one.signal.correlation == pytest.approx(other.signal.correlation, rel=1e-3)
            assert one.signal.dead == other.signal.dead
        assert in_torch.jacobian == pytest.approx(in_jax.jacobian, rel=1e-3)
        assert in_torch.kernel == pytest.approx(in_jax.kernel, rel=1e-3)
        for name in ("tangent-kernel condition", "Jacobian covariance", "epsinas", "gradient norm"):
            assert in_torch.scores[name] == pytest.approx(in_jax.scores[name], rel=1e-2, abs=1e-6), name


class TestByHand:
    def test_an_identity_passes_everything(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))
        report = started(model, init="identity", init_params={}).report
        assert report.jacobian == pytest.approx(np.ones(64), abs=1e-6)
        assert all((layer.largest, layer.least, layer.rank) == pytest.approx((1, 1, 64)) for layer in report.layers)

    def test_paths_are_counted(self):
        keep = {"hidden.0.weight": np.zeros((32, 64), bool), "hidden.1.weight": np.zeros((32, 32), bool)}
        keep |= {"out.weight": np.zeros((10, 32), bool)}
        keep["hidden.0.weight"][:2, :3], keep["hidden.1.weight"][:4, :2], keep["out.weight"][:5, :4] = 1, 1, 1
        report = started(Net, mask=Mask(keep)).report
        assert 10 ** report.scores["log10 of paths"] == pytest.approx(3 * 2 * 4 * 5)
        assert report.layers[0].signal is not None
        assert report.layers[0].signal.dead == 30


class TestVerdict:
    def test_a_deep_network_fades_under_a_mask_until_it_is_started_right(self):
        faded = started(lambda seed: Net(10, 64), density=0.1, init="kaiming-normal", init_params={}).report.verdict
        assert faded.trainable is False
        assert "--init unit-scaled" in faded.sentence
        assert started(lambda seed: Net(10, 64), density=0.1).report.verdict.trainable

    def test_an_emptied_layer_is_named(self):
        keep = {name: np.ones(shape, bool) for name, shape in (("hidden.0.weight", (32, 64)), ("out.weight", (10, 32)))}
        report = started(Net, mask=Mask({**keep, "hidden.1.weight": np.zeros((32, 32), bool)})).report
        assert report.verdict.trainable is False
        assert "'hidden.1.weight', the mask keeps none of its weights" in report.verdict.sentence

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"forward": 1e8}, "the signal grows by a factor of 1e[+]08"),
            ({"forward": 0.0}, "the signal is lost"),
            ({"backward": 1e-8}, "the gradient grows"),
            ({"correlation": 0.999}, "all inputs look alike"),
        ],
    )
    def test_what_is_wrong_is_said(self, change, said):
        plain = {"forward": 1.0, "backward": 1.0, "correlation": 0.3, "dead": 0, "units": 8, "kept": 9}
        layers = [LayerSignal("a", **plain), LayerSignal("b", **{**plain, **change}), LayerSignal("c", **plain)]
        found = verdict(layers, 0.3, knows_mask=True)
        assert found.trainable is False
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(found.sentence)

    def test_a_weak_signal_is_said_and_not_called_untrainable(self):
        # PyTorch's own start of a small convolution network: it reaches 98 % of the digits in 200 steps
        report = start("conv-2", init="torch-default").report
        assert report.verdict.trainable is True
        assert re.match(
            r"trainable by Adam, slowly or not by SGD: the gradient fades by a factor of \de[+]03 from 'fc2.weight' to "
            r"'conv1.weight'; try --init exact-orthogonal, or --repair isometry$",
            report.verdict.sentence,
        )

    @pytest.mark.parametrize(
        ("tried", "advice"),
        [
            ({"unit-scaled"}, "try --init exact-orthogonal, or --repair isometry"),
            ({"unit-scaled", "isometry"}, "try --init exact-orthogonal"),
            ({"exact-orthogonal", "isometry"}, "try layers that normalize, or fewer of them"),
        ],
    )
    def test_what_was_tried_is_not_proposed_again(self, tried, advice):
        fading = [LayerSignal(name, 100.0**-index, 1.0, 0.1, 0, 8, 64) for index, name in enumerate("abcdef")]
        assert verdict(fading, 0.1, True, tried).sentence.endswith(f"'e'; {advice}")

    def test_nothing_followed_is_not_called_trainable(self):
        assert verdict([], 0.1, knows_mask=True).trainable is None


def test_layers_of_a_jax_model_stand_in_the_order_of_the_pass_whatever_their_names():
    params = {"b": jnp.ones((64, 8)) / 64, "a": jnp.ones((8, 10)) / 8, "a1": jnp.ones((8, 8)) / 8}

    def apply(params, x):
        return jnp.tanh(jnp.tanh(x.reshape(len(x), -1) @ params["b"]) @ params["a1"]) @ params["a"]

    report = start((params, apply), density=0.5).report
    assert [layer.name for layer in report.layers] == ["b", "a1", "a"]
    # the outputs' layer gets the random signs themselves
    assert report.layers[-1].signal is not None and report.layers[-1].signal.backward == 1


class TestRepair:
    def test_a_repaired_start_has_singular_values_near_one(self):
        plain, mended = (
            started(
                Net, density=0.4, scope="layer", repair=repair, repair_params={"gain": 1.0} if repair else None
            ).report
            for repair in (None, "isometry")
        )
        assert mended.layers[1].least / mended.layers[1].largest > 3 * plain.layers[1].least / plain.layers[1].largest

    @pytest.mark.parametrize("model", [Net, pair])
    def test_lsuv_measures_the_network(self, model):
        report = started(model, density=0.4, repair="lsuv").report
        assert all(layer.signal is not None and 0.4 < layer.signal.forward < 3 for layer in report.layers)

    def test_lsuv_leaves_what_is_not_seen_and_says_so(self):
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 10)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.lstm(x.reshape(len(x), 8, 8))[0][:, -1])

        notes = started(lambda seed: Recurrent(), density=0.5, repair="lsuv").report.notes
        assert "lsuv left 'lstm.weight_hh_l0' as it was: what its layer gives out is not seen" in notes


def test_a_warning_of_every_matrix_is_given_once():
    with pytest.warns(UserWarning, match="low-rank") as said:
        started(lambda seed: Net(6), density=0.3, init="low-rank", init_params={})
    assert [str(each.message).endswith("(7 such matrices)") for each in said] == [True]


def lottery(*words: str) -> int:
    from lottery.cli.app import main

    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return int(done.value.code or 0)


class TestCommand:
    def test_it_prints_saves_and_is_trained(self, tmp_path, capsys):
        asked = ["mlp", "--density", "0.2", "--scope", "erk", "--init", "unit-scaled", "--set", "init_params.gain=1.4"]
        figure = tmp_path / "start.png"
        assert lottery("init", *asked, "--out", str(tmp_path / "start"), "--plot", str(figure), "--json") == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed["trainable"] is True
        assert figure.stat().st_size > 5_000
        ticket = Ticket.load(tmp_path / "start")
        assert ticket.density == pytest.approx(0.2, abs=1e-3)
        assert ticket.info["start"]["init"] == ticket.info["config"]["init"] == "unit-scaled"
        assert (
            lottery("train", str(tmp_path / "start"), "--steps", "20", "--out", str(tmp_path / "runs"), "--quiet") == 0
        )
        assert lottery("init", str(tmp_path / "start"), "--repair", "isometry") == 0
        assert "ticket's" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (["mlp", "--density", "1.5"], "densit"),
            (["mlp", "--density", "0.1", "--criterion", "snr"], "needs std of a training"),
            (["mlp", "--init", "unit-scald"], "unit-scaled"),
            (["mlp", "--repair", "isometri"], "isometry"),
            (["no-such-model"], "no-such-model"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, asked, said, capsys):
        assert lottery("init", *asked) == 2
        error = capsys.readouterr().err.strip()
        assert said in error
        assert len(error.splitlines()) == 1

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"density": 0.0}, "density must be more than 0"),
            ({"init": None, "init_params": {"gain": 2.0}}, "init_params are settings of init, and none is named: gain"),
            ({"repair_params": {"steps": 9}}, "repair_params are settings of repair, and none is named: steps"),
            ({"init_params": {"gain": "abc"}}, "init_params.gain must be a number or absent, not 'abc'"),
        ],
    )
    def test_what_would_be_ignored_or_mean_nothing_is_one_line(self, asked, said):
        with pytest.raises(BadValue, match=said):
            started(Net, **asked)

    @pytest.mark.parametrize("criterion", ["movement", "magnitude-increase"])
    def test_a_criterion_that_looks_at_what_training_changed_is_refused(self, criterion):
        with pytest.raises(BadValue, match=f"'{criterion}' gives all weights the same score where nothing is trained"):
            started(Net, density=0.5, criterion=criterion)

    def test_a_density_of_1_keeps_all(self):
        assert started(Net, density=1.0).ticket.density == 1

    def test_a_mask_and_a_density_exclude_each_other(self):
        with pytest.raises(BadValue, match="a mask or a density, not both"):
            started(Net, density=0.1, mask=Mask({"out.weight": np.ones((10, 32), bool)}))


def test_the_analysis_of_a_run(tmp_path):
    ticket = find_ticket(Net, "digits", levels=2, steps=30, tolerance=1.0, quiet=True, replicates=2, out=tmp_path)
    assert ticket.search is not None
    found = analyze(ticket.search.run, "signal", Net)
    assert found.arrays["forward"].shape == (3,)
    assert found.arrays["trainable"].tolist() == [1, 1, 1]
    assert all(0 < value <= 1 for value in found.arrays["alignment"])
    assert "n = 2 replicates" in found.text


def test_the_figure_of_that_analysis_shows_a_fading_signal_on_plain_axes(tmp_path):
    # what is drawn is a logarithm already: it is below 0 where the signal fades
    ticket = find_ticket(Net, "digits", levels=1, steps=10, tolerance=1.0, quiet=True, out=tmp_path)
    assert ticket.search is not None
    found = analyze(ticket.search.run, "signal", Net)
    figure = Figure()
    found.draw(figure)
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "linear"]
    drawn = {str(one.get_label()): one for axes in figure.axes for one in axes.lines}
    for name in ("forward", "backward", "correlation", "alignment"):
        assert np.asarray(drawn[name].get_ydata()).tolist() == found.arrays[name].tolist()
