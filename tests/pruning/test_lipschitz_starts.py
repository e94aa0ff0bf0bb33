"""Starts of 1-Lipschitz layers: they never stretch a difference, and their signal decays as theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pruning.starts.haar import haar
from pruning.starts.layers.lipschitz import aol_scales, decay, sll_scales
from tests.pruning.initializer_cases import example, values_of


def relu(z):
    return np.maximum(z, 0)


def sparse_mask(shape: tuple[int, ...], density: float, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(shape) < density


class TestLipschitz:
    @pytest.mark.parametrize("shape", [(40, 30), (6, 5, 3, 3), (6, 5, 4)])
    @pytest.mark.parametrize("density", [1.0, 0.3])
    def test_aol_never_stretches(self, shape, density):
        keep = sparse_mask(shape, density)
        kernel = values_of("aol", example(shape, "convolution", keep))
        assert _norm(kernel) <= 1 + 1e-12 and not kernel[~keep].any()

    @pytest.mark.parametrize("density", [1.0, 0.3])
    def test_sll_never_stretches_a_difference(self, density):
        weight = example((40, 30), keep=sparse_mask((40, 30), density))
        w, b = values_of("sll", weight), np.random.default_rng(1).standard_normal(40)
        x, y = np.random.default_rng(2).standard_normal((2, 1000, 30))
        fx, fy = (each - 2 * relu(each @ w.T + b) @ w for each in (x, y))
        assert (np.linalg.norm(fx - fy, axis=1) <= np.linalg.norm(x - y, axis=1) + 1e-12).all()
        assert _norm(values_of("sll", example((6, 5, 3, 3), "convolution"))) <= 1 + 1e-12

    def test_sll_is_the_papers_layer_with_its_scale_taken_into_the_weights(self):
        drawn = np.random.default_rng(0).standard_normal((7, 5))
        np.testing.assert_allclose(values_of("sll", example((7, 5))), np.sqrt(sll_scales(drawn))[:, None] * drawn)

    @pytest.mark.parametrize(("width", "gain", "theory"), [(64, 0.1372, 0.1373), (256, 0.0729, 0.0729)])
    def test_the_decay_of_aol_is_that_of_the_theory(self, width, gain, theory):
        found = [decay(values_of("aol", example((width, width)), s), np.ones((width, width), bool)) for s in range(4)]
        assert np.mean([each.gain for each in found]) == pytest.approx(gain, rel=0.01)
        assert 1 / (1 + (width - 1) / width * math.sqrt(2 * width / math.pi)) == pytest.approx(theory, abs=1e-4)
        assert found[0].expected == pytest.approx(theory, rel=0.01)

    @pytest.mark.parametrize(("density", "gain", "slack"), [(0.05, 0.121, 0.05), (0.01, 0.362, 0.25)])
    def test_a_sparser_layer_overlaps_less_and_decays_less(self, density, gain, slack):
        masks = [sparse_mask((256, 256), density, seed) for seed in range(4)]
        found = [decay(values_of("aol", example((256, 256), keep=keep)), keep) for keep in masks]
        assert np.mean([each.gain for each in found]) == pytest.approx(gain, rel=0.05)
        assert all(each.expected == pytest.approx(each.gain, rel=slack) for each in found)

    def test_an_orthogonal_matrix_stays_as_it_is_and_a_dead_input_is_scaled_by_1000(self):
        np.testing.assert_allclose(aol_scales(haar(np.random.default_rng(0), 64, 64)), 1, atol=0.15)
        np.testing.assert_allclose(aol_scales(np.diag([1.0, 0.0])), [1, 1000], rtol=1e-5)


def _norm(kernel: NDArray[np.floating]) -> float:
    """Return the largest factor by which a kernel stretches a signal that goes round: over all frequencies."""
    taps = tuple(range(2, kernel.ndim))
    spectrum = np.fft.fftn(kernel, s=[16] * len(taps), axes=taps) if taps else kernel
    return float(np.linalg.norm(np.moveaxis(spectrum, (0, 1), (-2, -1)), ord=2, axis=(-2, -1)).max())
