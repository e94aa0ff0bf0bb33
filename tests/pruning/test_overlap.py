"""Overlap of masks, and what chance alone gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask
from pruning.overlap import global_overlap, hypergeometric, layer_overlaps, overlap, pooled


@pytest.mark.parametrize(
    ("total", "first", "second"), [(20, 7, 9), (10, 8, 8), (5, 5, 3), (5, 0, 3), (100_000, 50_000, 300)]
)
def test_chance_is_the_hypergeometric_distribution(total, first, second):
    overlaps, chances = hypergeometric(total, first, second)
    np.testing.assert_allclose(chances, stats.hypergeom.pmf(overlaps, total, first, second), atol=1e-10)
    assert chances.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("sizes", [(4, 5, 1), (4, 1, -1)])
def test_a_subset_fits_into_the_whole(sizes):
    with pytest.raises(BadValue, match="do not fit into 4"):
        hypergeometric(*sizes)


def test_one_tensor_by_hand():
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[:4], b[2:8] = True, True
    found = overlap(a, b)
    assert (found.total, found.kept, found.both) == (10, (4, 6), 2)
    assert found.jaccard == 2 / 8
    assert found.share == 2 / 4
    assert found.expected == pytest.approx(2.4)
    # n = 10, 4 drawn of 6 in 10: 4 · 0.6 · 0.4 · (10 − 4) / 9
    assert found.std**2 == pytest.approx(0.64)
    assert found.z == pytest.approx(-0.5)
    law = stats.hypergeom(10, 4, 6)
    assert found.chance == (law.ppf(0.025), law.ppf(0.975))
    assert found.chance_jaccard == (2.4 / 7.6, 1 / 9, 4 / 6)


def test_ninety_five_percent_of_random_masks_lie_within_chance():
    rng = np.random.Generator(np.random.PCG64(0))

    def draw() -> Mask:
        return Mask({"u": rng.permutation(400) < 100, "v": rng.permutation(900) < 90})

    found = [pooled(layer_overlaps(draw(), draw()).values()) for _ in range(500)]
    inside = np.mean([one.chance[0] <= one.both <= one.chance[1] for one in found])
    assert 0.92 < inside < 0.98
    z = np.array([one.z for one in found])
    assert abs(z.mean()) < 0.15 and 0.9 < z.std() < 1.1


def test_layers_of_different_density_overlap_by_their_counts_alone():
    rng = np.random.Generator(np.random.PCG64(1))

    def draw() -> Mask:
        return Mask({"dense": rng.permutation(1000) < 900, "sparse": rng.permutation(1000) < 50})

    a, b = draw(), draw()
    by_layer, whole = pooled(layer_overlaps(a, b).values()), global_overlap(a, b)
    assert (by_layer.both, by_layer.kept, by_layer.total) == (whole.both, whole.kept, whole.total)
    assert whole.z > 10
    assert abs(by_layer.z) < 3


def test_equal_disjoint_and_empty_masks():
    some, others = np.array([True, False, True, False]), np.array([False, True, False, True])
    assert overlap(some, some).jaccard == overlap(some, some).share == 1.0
    assert overlap(some, others).jaccard == overlap(some, others).share == 0.0
    empty = overlap(~some & some, ~some & some)
    assert empty.jaccard == empty.share == 1.0
    assert math.isnan(empty.z)
    assert math.isnan(overlap(some | others, some).z)


def test_masks_of_different_tensors_cannot_be_compared():
    with pytest.raises(MaskMismatch, match="'v'"):
        layer_overlaps(Mask({"u": [1]}), Mask({"u": [1], "v": [1]}))
