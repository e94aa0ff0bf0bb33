"""The first figure shows what decides, and what is only reported."""

from __future__ import annotations

import numpy as np
import pytest

from lottery import Data, find_ticket
from lottery.results.figure import density_figure
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
