"""Starts of recurrent layers (eigenvalues in a ring) and of graph networks (variances of a graph)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from pruning.errors import BadValue, DataError
from pruning.initializers import LeftAlone
from pruning.starts.layers.graphs import combined, graph_of, read_graph, spreading, virgo_variances
from pruning.starts.layers.ring import lru_matrices, lru_ring
from pruning.starts.weight import Place, Weight
from tests.pruning.initializer_cases import draw_one, example, values_of

RING = np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)
STAR = np.zeros((5, 5))
STAR[0, 1:] = STAR[1:, 0] = 1


def layer(index: int, shape: tuple[int, int] = (300, 200), last: bool = False, keep=None) -> Weight:
    return Weight(f"layer{index}", np.ones(shape, bool) if keep is None else keep, place=Place(index, last=last))


class TestRing:
    def test_squared_moduli_are_uniform_and_phases_too(self):
        ring = lru_ring(20_000, np.random.default_rng(0), r_min=0.4, r_max=0.9, max_phase=1.5)
        squared, phase = abs(ring.eigenvalues) ** 2, np.angle(ring.eigenvalues)
        assert squared.mean() == pytest.approx((0.4**2 + 0.9**2) / 2, abs=0.005)
        assert squared.var() == pytest.approx((0.9**2 - 0.4**2) ** 2 / 12, rel=0.03)
        assert phase.mean() == pytest.approx(0.75, abs=0.02) and phase.min() > 0 and phase.max() <= 1.5
        np.testing.assert_allclose(ring.gamma, np.sqrt(1 - squared), rtol=1e-12)

    def test_white_noise_gives_states_of_mean_square_1(self):
        rng = np.random.default_rng(0)
        ring = lru_ring(64, rng, r_max=0.95)
        h, squares = np.zeros(64, complex), []
        for step in range(2000):
            h = ring.eigenvalues * h + ring.gamma * rng.standard_normal(64)
            squares += [abs(h) ** 2] if step > 200 else []
        assert np.mean(squares) == pytest.approx(1, abs=0.03)

    @pytest.mark.parametrize("radii", [(0.9, 0.4), (-0.1, 0.5), (0.5, 1.1), (0.5, 0.5)])
    def test_a_ring_that_is_none_is_refused(self, radii):
        with pytest.raises(BadValue, match="expected 0 ≤ r_min < r_max ≤ 1"):
            lru_ring(4, np.random.default_rng(0), *radii)

    def test_a_ring_at_modulus_1_stays_finite(self):
        ring = lru_ring(1000, np.random.default_rng(0), r_min=math.nextafter(1, 0), r_max=1.0)
        assert all(np.isfinite(each).all() for each in (ring.nu, ring.theta, ring.gamma))

    def test_a_recurrent_matrix_has_these_eigenvalues(self):
        values = values_of("lru", example((9, 9), "recurrent"), r_min=0.5, r_max=0.8)
        found, ring = np.linalg.eigvals(values), lru_ring(5, np.random.default_rng(0), 0.5, 0.8)
        expected = [*ring.eigenvalues[:4], *ring.eigenvalues[:4].conj(), abs(ring.eigenvalues[4])]
        np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(np.array(expected)), atol=1e-12)

    def test_a_mask_may_remove_whole_states(self):
        keep = np.kron(np.diag([1, 0, 1]), np.ones((2, 2))) > 0
        values = values_of("lru", example((6, 6), "recurrent", keep))
        full = values_of("lru", example((6, 6), "recurrent"))
        assert np.array_equal(values, np.where(keep, full, 0))

    def test_inputs_have_half_the_variance_of_their_live_fan(self):
        keep = np.random.default_rng(0).random((200, 300)) < 0.3
        values = values_of("lru", example((200, 300), "recurrent input", keep))
        scaled = values * np.sqrt(2 * keep.sum(1))[:, None]
        assert scaled[keep].std() == pytest.approx(1, abs=0.02)

    def test_layers_without_eigenvalues_are_left_alone(self):
        for weight in (example((4, 4)), Weight("lstm", np.ones((4, 4), bool), "recurrent", "gate 1 of 4")):
            with pytest.raises(LeftAlone):
                draw_one("lru", weight)

    def test_matrices_of_a_layer_keep_a_mean_square_of_1_under_their_masks(self):
        rng = np.random.default_rng(0)
        keep_in, keep_out = rng.random((400, 300)) < 0.2, rng.random((300, 400)) < 0.1
        B, C = lru_matrices(keep_in, keep_out, rng)
        u = rng.standard_normal((300, 200))
        states = B @ u
        assert (abs(states) ** 2).mean() == pytest.approx(1, abs=0.05)
        assert ((C @ states).real ** 2).mean() == pytest.approx(1, abs=0.1)
        assert not B[~keep_in].any() and not C[~keep_out].any()


class TestVirgo:
    def test_a_graph_of_nodes_alone_is_he(self):
        alone = graph_of(np.zeros((4, 4)), np.arange(1.0, 5.0))
        assert virgo_variances(alone, [8, 16, 16, 4], "forward").tolist() == [2 / 8, 2 / 16, 2 / 16]
        # The last layer's gradient is a softmax's: N / ((C - 1) s_1), with s_1 = N.
        assert virgo_variances(alone, [8, 16, 16, 4], "backward") == pytest.approx([2 / 16, 2 / 16, 1 / 3])

    def test_forward_and_backward_by_hand(self):
        x = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
        degree = STAR.sum(1) + 1
        spread = (STAR + np.eye(5)) / np.sqrt(np.outer(degree, degree))
        s = [((np.linalg.matrix_power(spread, n) @ x) ** 2).sum() for n in (1, 2, 3)]
        t = [((np.linalg.matrix_power(spread, n) @ np.ones(5)) ** 2).sum() for n in (1, 2, 3)]
        forward = [2 / 7, 2 / 11 * s[0] / s[1], 2 / 11 * s[1] / s[2]]
        backward = [2 / 11 * t[1] / t[2], 2 / 11 * t[0] / t[1], 5 / (2 * t[0])]
        graph, widths = graph_of(STAR, x), [7, 11, 11, 3]
        assert virgo_variances(graph, widths, "forward") == pytest.approx(forward)
        assert virgo_variances(graph, widths, "backward") == pytest.approx(backward)
        harmonic = [2 / (1 / f + 1 / b) for f, b in zip(forward, backward, strict=True)]
        assert virgo_variances(graph, widths, "harmonic") == pytest.approx(harmonic)
        assert virgo_variances(graph, widths) == pytest.approx(harmonic)
        assert virgo_variances(graph, widths, "arithmetic") == pytest.approx((np.array(forward) + backward) / 2)

    def test_a_signal_keeps_its_size_through_a_graph_network(self):
        rng = np.random.default_rng(0)
        graph = graph_of(np.triu(rng.random((30, 30)) < 0.2, 1) | np.triu(rng.random((30, 30)) < 0.2, 1).T)
        sizes = []
        for seed in range(40):
            x = np.ones((30, 64))
            for index in range(5):
                w = values_of(
                    "virgo", layer(index, (64, 64)), 10 * seed + index, graph=graph, layers=5, toward="forward"
                )
                x = np.maximum(graph.propagation @ x @ w.T, 0)
            sizes.append((x**2).mean())
        s = float(((graph.propagation @ np.ones(30)) ** 2).mean())
        assert np.mean(sizes) == pytest.approx(s, rel=0.35)

    def test_the_scheme_has_the_variance_of_its_layer(self):
        graph, widths = graph_of(STAR), [200, 300, 300, 300]
        for toward in ("forward", "backward", "harmonic"):
            expected = virgo_variances(graph, widths, toward)
            for index in range(3):
                weight = layer(index, (300, widths[index]))
                values = values_of("virgo", weight, graph=STAR, layers=3, toward=toward)
                assert values.var() == pytest.approx(expected[index], rel=0.02)
                assert abs(values).max() == pytest.approx(math.sqrt(3 * expected[index]), rel=0.01)

    def test_under_a_mask_fans_are_those_of_the_live_connections(self):
        keep = np.random.default_rng(0).random((300, 200)) < np.linspace(0.1, 0.9, 300)[:, None]
        values = values_of("virgo", layer(0, keep=keep), graph=STAR, toward="forward")
        np.testing.assert_allclose((values**2).sum(1), 2, rtol=0.8)
        assert (values**2).sum(1).mean() == pytest.approx(2, rel=0.03)

    def test_the_last_layer_tells_how_many_there_are(self):
        last = layer(2, (5, 40), last=True)
        assert np.array_equal(values_of("virgo", last, graph=RING), values_of("virgo", last, graph=RING, layers=3))

    @pytest.mark.parametrize(
        ("weight", "settings", "said"),
        [
            (layer(0), {"graph": None}, "virgo needs the graph: --set init_params.graph=FILE.npz"),
            (layer(0), {"graph": RING, "layers": None}, "--set init_params.layers=3"),
            (Weight("w", np.ones((2, 2), bool)), {"graph": RING}, "its place was not found"),
            (layer(0, (1, 5)), {"graph": RING, "layers": 1}, "one output, and no softmax"),
            (layer(0), {"graph": RING[:2], "layers": 1}, r"shape \(2, 6\): expected as many rows as columns"),
            (layer(0), {"graph": -RING, "layers": 1}, "negative entry"),
        ],
    )
    def test_what_is_missing_is_said(self, weight, settings, said):
        with pytest.raises(BadValue, match=said):
            draw_one("virgo", weight, **settings)

    def test_weights_after_the_graph_layers_are_left_alone(self):
        with pytest.raises(LeftAlone, match="weight 3 of a network of 2 graph layers"):
            draw_one("virgo", layer(2), graph=RING, layers=2)


class TestGraphFiles:
    def test_an_adjacency_edges_and_a_file_of_scipys_are_one_graph(self, tmp_path):
        x = np.random.default_rng(0).standard_normal((6, 3))
        source, target = np.nonzero(RING)
        np.savez(tmp_path / "dense.npz", adjacency=RING, features=x)
        np.savez(tmp_path / "edges.npz", edges=np.stack([source, target]), features=x)
        sparse.save_npz(tmp_path / "scipy.npz", sparse.csr_array(RING))
        dense, edges, scipys = (read_graph(tmp_path / f"{name}.npz") for name in ("dense", "edges", "scipy"))
        assert abs(dense.propagation - edges.propagation).max() < 1e-15
        assert abs(dense.propagation - scipys.propagation).max() < 1e-15
        np.testing.assert_allclose(dense.features, x.mean(1))
        assert scipys.features.tolist() == [1.0] * 6
        np.testing.assert_array_equal(
            values_of("virgo", layer(0), graph=str(tmp_path / "scipy.npz"), layers=1),
            values_of("virgo", layer(0), graph=RING, layers=1),
        )

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"nodes": np.ones(3)}, "holds nodes: expected `adjacency`"),
            ({"edges": np.ones((2, 3))}, r"`edges` is float64 \(2, 3\), expected numbers"),
            ({"edges": np.array([[0], [7]]), "features": np.ones((3, 1))}, "names node 7 of 3"),
        ],
    )
    def test_a_file_without_a_graph_is_told_what_is_expected(self, tmp_path, arrays, said):
        np.savez(tmp_path / "graph.npz", **arrays)
        with pytest.raises(DataError, match=said):
            read_graph(tmp_path / "graph.npz")

    def test_a_file_that_is_none_is_named(self, tmp_path):
        (tmp_path / "text.npz").write_text("no archive")
        for name in ("text.npz", "missing.npz"):
            with pytest.raises(DataError, match=f"{name}' cannot be read"):
                read_graph(tmp_path / name)

    def test_pickled_arrays_are_not_loaded(self, tmp_path):
        np.savez(tmp_path / "graph.npz", adjacency=np.array([[object()]]))
        with pytest.raises(DataError, match="cannot be read"):
            read_graph(tmp_path / "graph.npz")


def test_a_graph_that_cancels_its_features_is_refused():
    with pytest.raises(BadValue, match="start without features"):
        spreading(graph_of(np.zeros((2, 2)), np.zeros(2)), 2, 3)
    with pytest.raises(BadValue, match="features of 3 nodes for a graph of 2"):
        graph_of(np.zeros((2, 2)), np.zeros(3))
    assert combined(np.array([2.0]), np.array([4.0]), "arithmetic").tolist() == [3.0]
