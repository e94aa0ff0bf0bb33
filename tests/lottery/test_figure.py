"""The first figure shows what decides, and what is only reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from lottery import Data, find_ticket
from lottery.results.figure import comparison_figure, curves_figure, density_figure, draw_density, draw_levels
from tests.lottery.helpers import blobs, tiny_model


@pytest.fixture(scope="module", params=[1, 2], ids=["one replicate", "two replicates"])
def search(request, tmp_path_factory):
    data = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
    options = {"levels": 2, "steps": 30, "tolerance": 0.05, "replicates": request.param}
    found = find_ticket(tiny_model, data, out=tmp_path_factory.mktemp("runs"), **options).search
    assert found is not None
    return found


def lines(search):
    """The lines of the figure by what their label begins with."""
    (axes,) = density_figure(search).axes
    named = {str(line.get_label()).split(",")[0]: line for line in axes.get_lines()}
    return axes, {label: np.asarray(line.get_ydata()).tolist() for label, line in named.items()}


def test_the_star_lies_on_the_validation_line_and_the_band_around_its_dense_value(search):
    axes, drawn = lines(search)
    validation = [100 * level.validation for level in search.levels]
    assert list(drawn["ticket on validation data (decides)"]) == pytest.approx(validation)
    assert list(drawn["winning ticket"]) == pytest.approx([validation[search.winner.level]])
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((validation[0] - 5, validation[0] + 5))
    # what wins is not worse than the band allows
    assert validation[search.winner.level] >= band.y0 - 1e-9


def test_the_test_metric_is_a_line_of_its_own(search):
    _, drawn = lines(search)
    assert list(drawn["ticket on test data (reported only)"]) == pytest.approx([100 * v.test for v in search.levels])


def test_without_test_data_there_is_no_such_line(tmp_path):
    found = find_ticket(tiny_model, blobs(), levels=1, steps=10, tolerance=1.0, out=tmp_path).search
    assert not any(label.startswith("ticket on test") for label in lines(found)[1])


def test_the_same_is_drawn_into_axes_of_the_callers(search):
    axes = Figure().add_subplot()
    draw_density(axes, search)
    theirs, _ = lines(search)
    assert [str(line.get_label()) for line in axes.lines] == [str(line.get_label()) for line in theirs.lines]
    assert (axes.get_xscale(), axes.get_ylabel()) == ("log", "accuracy (%)")


def test_curves_are_the_means_of_the_histories_of_the_levels_that_are_asked_for(search):
    (axes,) = curves_figure(search, [0, 2]).axes
    for line, level in zip(axes.lines, (search.levels[0], search.levels[2]), strict=True):
        histories = [[(point.step, 100 * point.validation) for point in one.history] for one in level.replicates]
        assert line.get_label() == f"{100 * level.density:.3g} %"
        assert np.asarray(line.get_xydata()) == pytest.approx(np.mean(histories, axis=0))


def test_searches_are_compared_by_their_test_metric(search):
    (axes,) = comparison_figure([search, replace(search, config={**search.config, "criterion": "random"})]).axes
    count = len(search.levels[0].replicates)
    assert [line.get_label() for line in axes.lines] == [f"magnitude (n = {count})", f"random (n = {count})"]
    for line in axes.lines:
        assert np.asarray(line.get_ydata()) == pytest.approx([100 * level.test for level in search.levels])


def test_some_levels_are_drawn_with_their_interval(search):
    axes = Figure().add_subplot()
    draw_levels(axes, search, search.levels[1:], "pruned", "red", "o")
    (line,) = axes.lines
    assert np.asarray(line.get_xdata()) == pytest.approx([100 * level.density for level in search.levels[1:]])
    assert len(axes.collections) == 1
