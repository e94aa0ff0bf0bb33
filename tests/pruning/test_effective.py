"""Effective sparsity, by hand and by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pruning.effective import chain_positions, effective
from pruning.errors import BadValue


def boolean(rows) -> np.ndarray:
    return np.array(rows, bool)


def test_a_unit_without_inputs_and_one_without_outputs():
    found = effective(
        {
            # unit 2 has no input
            "fc1": boolean([[1, 1], [0, 1], [0, 0]]),
            # unit 0 of fc1 leads nowhere; unit 1 of fc2 is fed by the dead unit only
            "fc2": boolean([[0, 1, 1], [0, 0, 1]]),
            "fc3": boolean([[1, 1]]),
        }
    )
    assert found.mask["fc1"].tolist() == [[0, 0], [0, 1], [0, 0]]
    assert found.mask["fc2"].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert found.mask["fc3"].tolist() == [[1, 0]]
    assert found.dead == {"fc1": 2, "fc2": 1, "fc3": 0}
    assert found.live["fc1"].tolist() == [False, True, False]


def test_a_dense_chain_is_effective_as_a_whole():
    layers = {"conv": np.ones((3, 1, 2, 2), bool), "fc": np.ones((2, 12), bool)}
    found = effective(layers)
    assert found.mask.kept == found.mask.total
    assert sum(found.dead.values()) == 0


def test_one_empty_layer_leaves_nothing():
    found = effective({"a": boolean([[1, 1]]), "b": boolean([[0]]), "c": boolean([[1]])})
    assert found.mask.kept == 0
    assert found.dead == {"a": 1, "b": 1, "c": 1}


def test_a_linear_layer_sees_a_channels_positions_one_after_the_other():
    conv = np.zeros((2, 1, 3, 3), bool)
    conv[1, 0, 0, 2] = True
    # channel 0 has positions 0…3, channel 1 has 4…7
    found = effective({"conv": conv, "fc": boolean([[1, 1, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0]])})
    assert found.mask["conv"].sum() == 1
    assert np.argwhere(found.mask["fc"]).tolist() == [[0, 7]]
    assert found.dead == {"conv": 1, "fc": 1}


def test_agrees_with_walking_every_path():
    rng = np.random.Generator(np.random.PCG64(0))
    for _ in range(30):
        layers = {f"fc{i}": rng.random((5, 5)) < 0.3 for i in range(3)}
        expected = {name: np.zeros((5, 5), bool) for name in layers}
        for path in itertools.product(range(5), repeat=4):
            steps = list(zip(layers, path[1:], path[:-1], strict=True))
            if all(layers[name][out, into] for name, out, into in steps):
                for name, out, into in steps:
                    expected[name][out, into] = True
        found = effective(layers)
        for name in layers:
            np.testing.assert_array_equal(found.mask[name], expected[name])


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        ({"a": (4, 3), "b": (2, 5)}, "b"),
        ({"conv": (4, 3, 3, 3), "shortcut": (8, 3, 1, 1)}, "shortcut"),
        ({"conv": (4, 3, 3, 3), "fc": (10, 18)}, "fc"),
        ({"fc": (4, 3), "conv": (8, 4, 3, 3)}, "conv"),
        ({"a": (4, 3), "scale": (4,)}, "scale"),
    ],
)
def test_what_is_no_chain_is_named(shapes, name):
    with pytest.raises(BadValue, match=f"not a chain of layers: '{name}'"):
        chain_positions(shapes)
