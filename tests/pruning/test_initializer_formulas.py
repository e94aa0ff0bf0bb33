"""Initializers by the numbers of their papers: what each promises, measured."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pruning.initializers import get_initializer
from pruning.initializers.low_rank import RankLost
from pruning.starts.weight import Weight
from tests.pruning.initializer_cases import example, values_of

RELU = math.sqrt(2)


def relu(z):
    return np.maximum(z, 0)


def sparse_mask(shape: tuple[int, ...], density: float, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(shape) < density


def rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values.reshape(len(values), -1)


def gaussian_layers(count: int, width: int, seed: int) -> NDArray[np.floating]:
    """Return as many matrices [width, width] of one unit-scaled draw: its units are independent."""
    return values_of("unit-scaled", example((count * width, width)), seed, gain=1.0).reshape(count, width, width)


class TestVarianceScaling:
    def test_2_signal_decay_masked_dense_he_loses_d_to_the_l_and_unit_scaled_keeps_1(self):
        width, depth, density = 512, 10, 0.1
        size = {"kaiming-normal": [], "unit-scaled": []}
        for seed in range(20):
            rng = np.random.default_rng(seed)
            x = rng.standard_normal(width)
            x *= math.sqrt(width) / np.linalg.norm(x)
            signals = dict.fromkeys(size, x)
            for layer in range(depth):
                weight = example((width, width), keep=rng.random((width, width), np.float32) < density)
                for name, h in signals.items():
                    signals[name] = relu(values_of(name, weight, 100 * seed + layer) @ h)
            for name, h in signals.items():
                size[name].append((h**2).mean())
        assert np.mean(size["kaiming-normal"]) / density**depth == pytest.approx(1, abs=0.2)
        assert np.mean(size["unit-scaled"]) == pytest.approx(1, abs=0.2)

    @pytest.mark.parametrize("distribution", ["normal", "uniform", "truncated"])
    @pytest.mark.parametrize("fan", ["in", "out", "average"])
    def test_a_connections_variance_is_that_of_its_own_fan(self, fan, distribution):
        keep = sparse_mask((6, 5, 3), 0.5)
        into, out = keep.sum((1, 2))[:, None, None], keep.sum((0, 2))[None, :, None]
        fans = {"in": into, "out": out, "average": (into + out) / 2}[fan]
        weight = example(keep.shape, "convolution", keep)
        drawn = np.stack(
            [values_of("unit-scaled", weight, seed, fan=fan, distribution=distribution) for seed in range(3000)]
        )
        ratio = drawn.var(0)[keep] / np.broadcast_to(2 / fans, keep.shape)[keep]
        np.testing.assert_allclose(ratio, 1, atol=0.15)
        assert ratio.mean() == pytest.approx(1, abs=0.02)

    def test_every_live_row_has_variance_2_over_its_fan_in(self):
        weight = example((40, 3000), keep=sparse_mask((40, 3000), 0.5) & (np.arange(40) % 10 > 0)[:, None])
        energy = (values_of("unit-scaled", weight) ** 2).sum(1)
        np.testing.assert_allclose(energy[weight.fan_in > 0], 2, rtol=0.12)
        assert not energy[weight.fan_in == 0].any()

    def test_uniform_ends_at_the_square_root_of_3_variances(self):
        values = values_of("unit-scaled", example((100, 100)), distribution="uniform")
        assert abs(values).max() == pytest.approx(math.sqrt(3 * 2 / 100), rel=1e-3)

    def test_layer_scaled_is_the_dense_draw_over_the_square_root_of_density(self):
        weight = example((30, 40), keep=sparse_mask((30, 40), 0.2))
        dense = values_of("kaiming-normal", weight)
        np.testing.assert_allclose(values_of("layer-scaled", weight), dense / math.sqrt(weight.density), rtol=1e-5)

    def test_where_all_units_have_one_fan_in_unit_and_layer_scaled_coincide(self):
        keep = np.stack([np.random.default_rng(row).permutation(20) < 6 for row in range(9)])
        weight = example((9, 20), keep=keep)
        np.testing.assert_allclose(values_of("unit-scaled", weight), values_of("layer-scaled", weight), rtol=1e-5)

    @pytest.mark.parametrize(
        ("layer", "shape"), [(torch.nn.Linear(300, 400), (400, 300)), (torch.nn.Conv2d(20, 40, 5), (40, 20, 5, 5))]
    )
    def test_torch_default_is_pytorchs(self, layer, shape):
        values, theirs = values_of("torch-default", example(shape)), layer.weight.detach().numpy()
        assert values.var() == pytest.approx(theirs.var(), rel=0.05)
        assert abs(values).max() == pytest.approx(abs(theirs).max(), rel=1e-2)

    def test_torch_default_under_a_mask_ends_at_the_live_fan(self):
        weight = example((5, 4000), keep=sparse_mask((5, 4000), 0.3))
        most = abs(values_of("torch-default", weight)).max(1)
        np.testing.assert_allclose(most, 1 / np.sqrt(weight.fan_in), rtol=1e-2)

    def test_lecun_is_cut_off_at_two_deviations_of_what_was_drawn(self):
        values = values_of("lecun-normal", example((200, 500)))
        assert values.var() == pytest.approx(1 / 500, rel=0.02)
        assert abs(values).max() * math.sqrt(500) == pytest.approx(2 / 0.87962566, rel=1e-3)

    def test_dense_schemes_do_not_look_at_the_mask(self):
        keep = sparse_mask((6, 7), 0.5)
        for name in ("glorot-normal", "kaiming-normal", "lecun-normal"):
            full, masked = values_of(name, example((6, 7))), values_of(name, example((6, 7), keep=keep))
            assert np.array_equal(masked, np.where(keep, full, 0))

    def test_signed_constant_has_one_size_a_unit_and_the_signs_of_a_he_draw(self):
        weight = example((8, 20), keep=sparse_mask((8, 20), 0.5))
        values, he = values_of("signed-constant", weight), values_of("kaiming-normal", weight)
        expected = np.sign(he) * np.sqrt(2 / weight.fan_in)[:, None]
        np.testing.assert_allclose(values, expected, rtol=1e-6)


class TestOrthogonal:
    @pytest.mark.parametrize("shape", [(30, 30), (40, 12), (12, 40), (24, 4, 3, 3), (60, 4, 3, 3)])
    def test_its_shorter_side_is_orthonormal(self, shape):
        matrix = rows(values_of("orthogonal", example(shape), gain=1.0))
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        assert abs(gram - np.eye(len(gram))).max() < 1e-12

    def test_it_is_uniform_the_trace_has_mean_0_and_variance_1(self):
        traces = [np.trace(values_of("orthogonal", example((6, 6)), seed, gain=1.0)) for seed in range(2000)]
        # Without the sign fix the diagonal of Q has a sign of its own: the mean is far from 0.
        assert np.mean(traces) == pytest.approx(0, abs=0.1) and np.var(traces) == pytest.approx(1, abs=0.12)

    def test_a_mask_keeps_the_mean_square_and_not_the_isometry(self):
        weight = example((256, 256), keep=sparse_mask((256, 256), 0.1))
        values = values_of("orthogonal", weight, gain=1.0)
        assert (values[weight.keep] ** 2).mean() * 256 * weight.density == pytest.approx(1, abs=0.03)
        largest, *_, smallest = np.linalg.svd(values, compute_uv=False)
        assert largest == pytest.approx(2.0, abs=0.1) and smallest < 0.02

    def test_a_deep_linear_network_keeps_the_norm_of_every_input(self):
        many = np.full((1500, 32), 1 / math.sqrt(32))
        for layer in range(20):
            many = np.einsum("noi,ni->no", gaussian_layers(1500, 32, layer), many)
        squares = (many**2).sum(1)
        assert (squares**2).mean() / squares.mean() ** 2 == pytest.approx((1 + 2 / 32) ** 20, rel=0.25)
        z = np.ones(32) / math.sqrt(32)
        for layer in range(20):
            z = values_of("orthogonal", example((32, 32)), layer, gain=1.0) @ z
        assert z @ z == pytest.approx(1, abs=1e-13)

    def test_a_tanh_network_fluctuates_by_depth_less_than_a_gaussian_one(self):
        def fluctuations(layers, count, depths):
            h = np.random.default_rng(0).standard_normal((count, 32))
            h *= math.sqrt(32) / np.linalg.norm(h, axis=1, keepdims=True)
            found = {}
            for layer in range(max(depths)):
                z = np.einsum("noi,ni->no", layers(count, 32, layer), h)
                h, q = np.tanh(z), (z**2).mean(1)
                found[layer + 1] = q.var() / q.mean() ** 2
            return [found[depth] for depth in depths]

        def orthogonal_layers(count, width, layer):
            drawn = (
                values_of("orthogonal", example((width, width)), 100 * seed + layer, gain=1.0) for seed in range(count)
            )
            return np.stack(list(drawn))

        gaussian = fluctuations(gaussian_layers, 1500, (5, 10, 20))
        np.testing.assert_allclose(gaussian, [0.143, 0.243, 0.498], rtol=0.2)
        np.testing.assert_allclose(fluctuations(orthogonal_layers, 250, (5, 10)), [0.0056, 0.0040], rtol=0.3)

    @pytest.mark.parametrize("kernel", [3, 5])
    def test_delta_orthogonal_keeps_the_norm_of_every_image_with_zero_padding_too(self, kernel):
        weight = example((12, 5, kernel, kernel), "convolution")
        values = torch.tensor(values_of("delta-orthogonal", weight))
        x = torch.tensor(np.random.default_rng(0).standard_normal((1, 5, 9, 7)))
        y = torch.nn.functional.conv2d(x, values, padding=kernel // 2)
        assert float(y.norm() / x.norm()) == pytest.approx(RELU, abs=1e-13)
        assert np.count_nonzero(values) == 12 * 5


class TestConvolutionAware:
    @pytest.mark.parametrize(("kernel", "inputs"), [(3, 9), (5, 25), (3, 4)])
    def test_a_units_filters_are_orthonormal_as_spectra_and_reach_every_direction(self, kernel, inputs):
        weight = example((3, inputs, kernel, kernel), "convolution")
        filters = values_of("conv-aware", weight, noise=0.0) * math.sqrt(inputs) / RELU
        for unit in filters:
            spectra = np.fft.fft2(unit, norm="ortho").reshape(inputs, -1)
            assert abs(spectra @ spectra.conj().T - np.eye(inputs)).max() < 1e-13
            # Real half-spectra, symmetric about the centre, span 5 of 9 and 13 of 25.
            assert np.linalg.matrix_rank(unit.reshape(inputs, -1)) == inputs

    def test_a_new_basis_begins_where_the_taps_are_used_up(self):
        filters = values_of("conv-aware", example((2, 20, 3, 3), "convolution"), noise=0.0).reshape(2, 20, 9)
        for start, stop in ((0, 9), (9, 18), (18, 20)):
            part = filters[0, start:stop] * math.sqrt(20) / RELU
            assert abs(part @ part.T - np.eye(stop - start)).max() < 1e-13

    @pytest.mark.parametrize("density", [1.0, 0.3])
    def test_variance_times_fan_in_is_2_exactly(self, density):
        weight = example((16, 12, 3, 3), "convolution", sparse_mask((16, 12, 3, 3), density))
        values = rows(values_of("conv-aware", weight))
        np.testing.assert_allclose((values**2).sum(1), 2.0, rtol=1e-13)


class TestIdentity:
    def test_a_convolution_hands_on_its_image(self):
        x = torch.tensor(np.random.default_rng(0).standard_normal((2, 4, 6, 6)))
        values = torch.tensor(values_of("identity", example((6, 4, 3, 3), "convolution")))
        y = torch.nn.functional.conv2d(x, values, padding=1)
        assert torch.equal(y[:, :4], x) and not y[:, 4:].any()

    def test_a_unit_without_live_inputs_needs_no_diagonal(self):
        keep = np.ones((4, 4), bool)
        keep[2] = False
        assert values_of("identity", example((4, 4), keep=keep)).tolist() == np.diag([1.0, 1.0, 0.0, 1.0]).tolist()

    def test_half_of_it_is_the_identity_of_a_hyperbolic_layer(self):
        c, z = 0.9, values_of("identity", example((5, 5)), gain=0.5)
        x = np.random.default_rng(0).standard_normal(5)
        x *= 0.7 / np.linalg.norm(x)
        # The layer of Poincaré networks with zero bias; the conformal factor divides by 1 - c‖x‖².
        factor, norms = 2 / (1 - c * x @ x), np.linalg.norm(z, axis=1)
        distances = 2 * norms / math.sqrt(c) * np.arcsinh(factor * math.sqrt(c) * (z @ x) / norms)
        w = np.sinh(math.sqrt(c) * distances) / math.sqrt(c)
        assert abs(w / (1 + math.sqrt(1 + c * w @ w)) - x).max() < 3e-16


class TestLowRank:
    def test_norm_and_rank_are_those_asked_for(self):
        weight = example((50, 40))
        values = values_of("low-rank", weight, rank=5)
        whole = np.random.default_rng(0).standard_normal((50, 40)) * math.sqrt(2 / 40)
        assert np.linalg.norm(values) == pytest.approx(np.linalg.norm(whole), rel=1e-12)
        assert np.linalg.matrix_rank(values) == 5

    def test_a_mask_without_structure_destroys_the_rank_and_is_told_with_both_ranks(self):
        weight = example((50, 50), keep=sparse_mask((50, 50), 0.2))
        with pytest.warns(RankLost, match=r"takes the rank from 5 to 50; mask whole units or inputs"):
            values = get_initializer("low-rank").draw(weight, np.random.default_rng(0), rank=5)
        assert np.linalg.matrix_rank(np.asarray(values)) == 50

    def test_a_mask_of_whole_units_keeps_the_rank_and_nothing_is_told(self):
        weight = example((50, 50), keep=np.repeat(sparse_mask((50, 1), 0.5), 50, axis=1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            values = get_initializer("low-rank").draw(weight, np.random.default_rng(0), rank=5)
        assert np.linalg.matrix_rank(np.asarray(values)) == 5


class TestSmallInit:
    def test_attention_and_a_feed_forward_layer_four_times_as_wide_have_one_deviation(self):
        attention = values_of("small-init", example((256, 256), "query"))
        wide = values_of("small-init", example((1024, 256)))
        assert attention.std() == pytest.approx(math.sqrt(2 / (5 * 256)), rel=0.01)
        assert wide.std() == pytest.approx(attention.std(), rel=0.01)

    def test_under_a_mask_fans_are_those_of_the_live_connections(self):
        keep = sparse_mask((300, 400), 0.1) & (np.arange(400) % 2 == 0)
        into, out = keep.sum(1)[:, None], keep.sum(0)[None]
        for weight, fan in ((Weight("w", keep, "value"), 5 * into), (Weight("w", keep, "linear"), into + out)):
            standard = values_of("small-init", weight) * np.sqrt(fan / 2)
            assert standard[keep].std() == pytest.approx(1, abs=0.02)

    def test_embeddings_lie_within_a_hundredth(self):
        values = values_of("small-init", example((64, 500), "embedding"))
        assert abs(values).max() == pytest.approx(0.01, rel=1e-3) and values.var() == pytest.approx(1e-4 / 3, rel=0.02)
