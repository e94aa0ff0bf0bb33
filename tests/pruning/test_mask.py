"""The mask: a read-only mapping of boolean arrays, its set operations, and where it is applied."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pruning.errors import BadValue, MaskMismatch
from pruning.mask import Mask

masks = st.dictionaries(
    st.sampled_from(["fc1.weight", "fc2.weight", "block.0.conv.weight"]),
    array_shapes(max_dims=4, max_side=5).flatmap(lambda shape: arrays(bool, shape)),
    min_size=1,
).map(Mask)


def test_counts_density_and_table_by_hand():
    mask = Mask({"a": [[1, 0], [1, 1]], "b": [1, 0, 0, 0]})
    assert (mask.kept, mask.total, mask.density, mask.sparsity) == (4, 8, 0.5, 0.5)
    assert [(r.name, r.shape, r.kept, r.total, r.density) for r in mask.layers()] == [
        ("a", (2, 2), 3, 4, 0.75),
        ("b", (4,), 1, 4, 0.25),
    ]


def test_a_mask_cannot_be_changed_through_its_arrays_or_its_source():
    source = np.ones(3, bool)
    mask = Mask({"a": source})
    source[0] = False
    assert mask.kept == 3
    with pytest.raises(ValueError, match="read-only"):
        mask["a"][0] = False


@pytest.mark.parametrize("values", [[0.5, 1.0], [2, 0], [-1, 1]])
def test_only_zeros_and_ones_make_a_mask(values):
    with pytest.raises(BadValue, match="other than 0 and 1"):
        Mask({"a": values})


def test_an_empty_mask_is_an_error():
    with pytest.raises(BadValue, match="at least one tensor"):
        Mask({})


def test_torch_tensors_make_a_mask():
    import torch

    assert Mask({"a": torch.tensor([1.0, 0.0])}).kept == 1


@given(masks)
def test_set_operations_agree_with_arithmetic(mask):
    other = Mask({name: ~array for name, array in mask.items()})
    assert mask.intersection(other).kept == 0
    assert mask.union(other).kept == mask.total
    assert mask.hamming(other) == 1.0 and mask.hamming(mask) == 0.0
    assert mask.overlap(mask) == 1.0
    assert mask.overlap(other) == 0.0
    assert (mask & other).issubset(mask) and mask.issubset(mask | other)


def test_masks_of_different_models_do_not_combine():
    with pytest.raises(MaskMismatch, match="'b'"):
        _ = Mask({"a": [1, 1]}) & Mask({"a": [1, 1], "b": [1]})


@given(masks)
def test_save_and_load_give_the_same_bits_order_and_metadata(mask):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        mask.with_metadata(level=3, criterion="magnitude").save(f"{folder}/mask.safetensors")
        loaded = Mask.load(f"{folder}/mask.safetensors")
    assert loaded == mask
    assert list(loaded) == list(mask)
    assert loaded.metadata["level"] == 3
    assert loaded.metadata["sparsity"] == mask.sparsity


def test_equality_needs_names_shapes_and_values():
    assert Mask({"a": [1, 0]}) == Mask({"a": [1, 0]})
    assert Mask({"a": [1, 0]}) != Mask({"a": [0, 1]})
    assert Mask({"a": [1, 0]}) != Mask({"b": [1, 0]})
    assert Mask({"a": [1, 0]}) != Mask({"a": [[1, 0]]})
    assert Mask({"a": [1, 0]}) != "a"


class TestFit:
    shapes = {"block.conv.weight": (2, 2), "fc.weight": (3,)}  # noqa: RUF012

    @pytest.mark.parametrize(
        "name", ["fc.weight", "module.fc.weight", "_orig_mod.fc.weight", "module._orig_mod.fc.weight"]
    )
    def test_wrapper_prefixes_of_the_mask_are_understood(self, name):
        assert list(Mask({name: [1, 0, 1]}).fit(self.shapes)) == ["fc.weight"]

    def test_wrapper_prefixes_of_the_model_are_understood(self):
        fitted = Mask({"block.conv.weight": np.ones((2, 2))}).fit({"block._orig_mod.conv.weight": (2, 2)})
        assert list(fitted) == ["block._orig_mod.conv.weight"]

    def test_an_unknown_name_is_an_error_with_the_closest_names(self):
        with pytest.raises(MaskMismatch, match=r"'fc1.weight' \(closest: fc.weight"):
            Mask({"fc1.weight": [1, 0, 1]}).fit(self.shapes)

    def test_another_shape_is_an_error_with_both_shapes(self):
        with pytest.raises(MaskMismatch, match=r"\(3,\) in the model and \(2,\) in the mask"):
            Mask({"fc.weight": [1, 0]}).fit(self.shapes)

    def test_two_names_for_one_tensor_are_an_error(self):
        with pytest.raises(MaskMismatch, match="two names"):
            Mask({"fc.weight": [1, 0, 1], "module.fc.weight": [1, 0, 1]}).fit(self.shapes)


class TestApply:
    def test_to_arrays_gives_positive_zero_even_for_negative_infinite_and_nan_weights(self):
        weights = {"w": np.array([-1.0, -np.inf, np.nan, -2.0]), "b": np.array([-5.0])}
        masked = Mask({"w": [0, 0, 0, 1]}).apply(weights)
        assert masked["w"].tolist() == [0.0, 0.0, 0.0, -2.0]
        assert not np.signbit(masked["w"][:3]).any()
        assert masked["b"].tolist() == [-5.0]
        assert weights["w"][0] == -1.0

    def test_to_a_torch_module_in_place(self):
        from torch import nn

        layer = nn.Linear(2, 2)
        kept = layer.weight[0, 0].item()
        assert Mask({"weight": [[1, 0], [0, 0]]}).apply(layer) is layer
        assert layer.weight.flatten().tolist() == [kept, 0.0, 0.0, 0.0]

    def test_to_a_pytree_gives_a_new_tree(self):
        import jax.numpy as jnp

        tree = {"dense": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([3.0])}}
        masked = Mask({"dense.kernel": [0, 1]}).apply(tree)
        assert masked["dense"]["kernel"].tolist() == [0.0, 2.0]
        assert masked["dense"]["bias"].tolist() == [3.0]
        assert tree["dense"]["kernel"].tolist() == [1.0, 2.0]

    @given(masks)
    def test_all_frameworks_give_the_same_bits(self, mask):
        import jax.numpy as jnp
        import torch
        from torch import nn

        rng = np.random.Generator(np.random.PCG64(0))
        flat = Mask({name.replace(".", "_"): keep for name, keep in mask.items()})
        weights = {name: rng.standard_normal(keep.shape).astype(np.float32) for name, keep in flat.items()}
        module = nn.ParameterDict({name: torch.from_numpy(w.copy()) for name, w in weights.items()})
        by_numpy, by_jax = flat.apply(weights), flat.apply({name: jnp.asarray(w) for name, w in weights.items()})
        flat.apply(module)
        for name, keep in flat.items():
            assert (by_numpy[name][~keep] == 0).all()
            assert np.array_equal(by_numpy[name][keep], weights[name][keep])
            assert np.array_equal(by_jax[name], by_numpy[name])
            assert np.array_equal(module[name].detach().numpy(), by_numpy[name])
