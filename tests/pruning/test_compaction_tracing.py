"""What compaction cannot see through is left alone and named; what lies inside is compacted all the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pruning.compaction import compact
from pruning.errors import MaskMismatch
from pruning.mask import Mask
from tests.pruning.compaction_helpers import assert_exact, dense, holed, images, unsettled, widths


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def block(inputs: int = 6, outputs: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 9), nn.Tanh(), nn.Linear(9, outputs))


class Undecided(nn.Module):
    """What it does depends on the data."""

    def __init__(self):
        super().__init__()
        self.one, self.other = block(), block()
        self.single = nn.Linear(6, 6)

    def forward(self, x):
        if x.sum() > 1e6:
            return self.other(x)
        return self.one(x) + self.single(x)


def test_an_untraceable_model_is_compacted_inside():
    model = unsettled(Undecided())
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert list(found.opaque) == [""] and "TraceError" in found.opaque[""]
    assert type(found.module) is Undecided
    assert widths(found)["one.0"][1] < 9 and widths(found)["one.2"] == (widths(found)["one.0"][1], 6)
    assert not any(name.startswith("other") for name in widths(found)), "the example does not go there"
    assert found.mask["single.weight"].shape == found.mask["other.2.weight"].shape[:1] * 2
    assert torch.equal(found.module.get_parameter("other.0.weight"), dense(model, holed(model)).other[0].weight)


class Around(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.before, self.inner, self.after = block(), inner, block(6, 3)

    def forward(self, x):
        return self.after(torch.relu(self.inner(self.before(x))))


def test_an_untraceable_submodule_is_a_leaf():
    model = unsettled(Around(Around(Undecided())))
    model.inner.after = block().double()
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert list(found.opaque) == ["inner.inner"]
    sizes = widths(found)
    assert sizes["inner.before.2"][1] == 6, "all that goes in there stays"
    assert sizes["before.2"][1] < 6 and sizes["inner.inner.one.0"][1] < 9 and sizes["after.0"][1] < 9


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = block()

    def forward(self, *values):
        return self.inner(sum(values))


def test_any_number_of_arguments():
    model = unsettled(Several())
    mask = holed(model)
    found = compact(model, mask, images(2, 6), images(2, 6, seed=2))
    given = (images(5, 6), images(5, 6, seed=3))
    assert found.opaque == {} and widths(found)["inner.0"][1] < 9
    assert torch.allclose(found.module(*given), dense(model, mask)(*given), rtol=1e-12)


class Loops(nn.Module):
    """Runs one block as often as the data says, in place, with an argument by name."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Scaled()])

    def forward(self, x):
        for _ in range(2 + int(x.numel() > 10**6)):
            x = self.blocks[0](scale=0.5, input=x)
        return x if float(x.sum()) < 1e9 else -x


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = block()

    def forward(self, input, scale, shift=None):
        input.add_(1.0)
        return self.inner(input) * scale + (0.0 if shift is None else shift)


def test_a_block_that_is_run_several_times():
    model = unsettled(Loops())
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert list(found.opaque) == [""] and widths(found)["blocks.0.inner.0"][1] < 9


class Reaches(nn.Module):
    """Does more with a submodule than call it."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = block(), how

    def forward(self, x):
        y = self.how(self.inner, x)
        return y if float(y.sum()) < 1e9 else -y


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (lambda inner, x: inner(x) + inner[0](x).sum(), "a module inside it is called from outside"),
        (lambda inner, x: inner(x) + inner[0].weight.shape[0], "more with it than call it"),
        (lambda inner, x: inner(x) + inner(x[None])[0], "inputs of different shapes"),
    ],
)
def test_a_module_that_is_more_than_called_is_left_alone(how, reason):
    model = unsettled(Reaches(how))
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert set(found.opaque) == {"", "inner"} and reason in found.opaque["inner"]
    assert found.layers == ()


class Misleading(nn.Module):
    """Is traced without complaint, and is another function then."""

    def __init__(self):
        super().__init__()
        self.inner = block()

    def forward(self, x):
        return self.inner(x) if isinstance(x, torch.Tensor) else x


def test_a_trace_that_is_another_function_is_not_believed():
    model = unsettled(Misleading())
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert "more than its trace shows" in found.opaque[""] and widths(found)["inner.0"][1] < 9


def test_a_name_that_torch_keeps_for_itself():
    class Coded(nn.Module):
        def __init__(self):
            super().__init__()
            self.code = block()

        def forward(self, x):
            return self.code(x)

    model = unsettled(Coded())
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert widths(found)["code.0"][1] < 9


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = block()

    def forward(self, x, mask=None, double=False):
        x = self.inner(x)
        if mask is not None:
            x = x * mask
        return {"one": (x, x + 1)} if double else x


def test_arguments_that_the_example_leaves_out_keep_their_defaults():
    model = unsettled(Optional())
    found = assert_exact(model, holed(model), lambda n: images(n, 6))
    assert found.opaque == {} and widths(found)["inner.0"][1] < 9


def test_an_argument_that_is_nothing():
    model = unsettled(Optional())
    mask = holed(model)
    found = compact(model, mask, images(2, 6), None)
    assert "does not run" in found.opaque[""] and widths(found)["inner.0"][1] < 9
    assert torch.allclose(found.module(images(3, 6), 2.0), dense(model, mask)(images(3, 6), 2.0), rtol=1e-12)


def test_an_argument_that_switches_is_not_frozen():
    model = unsettled(Optional())
    mask = holed(model)
    found = compact(model, mask, images(2, 6), None, True)
    for switch in (True, False):
        given = found.module(images(3, 6), None, switch)
        expected = dense(model, mask)(images(3, 6), None, switch)
        for one, other in zip(*((v["one"] if switch else [v]) for v in (given, expected)), strict=True):
            assert torch.allclose(one, other, rtol=1e-12)


class TestHooks:
    def test_a_module_with_hooks_is_left_alone(self):
        model = unsettled(nn.Sequential(block(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
        model[1].register_forward_hook(lambda module, args, output: output * 2)
        found = assert_exact(model, holed(model), lambda n: images(n, 6))
        assert found.opaque == {"1": "it has forward hooks"}
        assert found.module.get_parameter("1.weight").shape == (8, 6)

    def test_what_is_inside_is_compacted(self):
        model = unsettled(nn.Sequential(nn.Sequential(block(), nn.ReLU()), nn.Linear(6, 3)))
        model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        found = assert_exact(model, holed(model), lambda n: images(n, 6))
        assert found.opaque == {"0": "it has forward hooks"} and widths(found)["0.0.0"][1] < 9

    def test_hooks_on_the_model_itself(self):
        model = unsettled(nn.Sequential(block(), nn.ReLU(), block(6, 2)))
        model.register_forward_hook(lambda module, args, output: -output)
        found = assert_exact(model, holed(model), lambda n: images(n, 6))
        assert found.opaque == {"": "it has forward hooks"} and set(widths(found)) == {"0.0", "0.2", "2.0", "2.2"}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.attend, self.last = (
            block(5, 8),
            nn.LSTM(8, 8),
            nn.MultiheadAttention(8, 2),
            block(8, 3),
        )

    def forward(self, x):
        x, _ = self.lstm(self.embed(x))
        return self.last(self.attend(x, x, x, need_weights=False)[0])


def test_recurrent_layers_and_attention_are_dense_and_not_opaque():
    model = unsettled(Recurrent())
    mask = holed(model)
    found = assert_exact(model, mask, lambda n: images(7, n, 5))
    assert found.opaque == {} and widths(found)["last.0"][1] < 9
    assert np.array_equal(found.mask["lstm.weight_hh_l0"], mask["lstm.weight_hh_l0"])
    assert "attend.in_proj_weight" in found.mask


class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x, y):
        hidden = torch.sigmoid(self.first(x))
        return {"hidden": hidden, "both": (self.second(hidden), y * 2)}


def test_all_outputs_stay_whole():
    model = unsettled(Outputs())
    mask = holed(model)
    given = (images(3, 4), images(2, 2))
    found, expected = compact(model, mask, *given).module(*given), dense(model, mask)(*given)
    assert torch.allclose(found["hidden"], expected["hidden"], rtol=1e-12)
    for one, other in zip(found["both"], expected["both"], strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_a_subclass_of_a_layer_may_do_anything():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = unsettled(nn.Sequential(nn.Linear(4, 6), Doubled(6, 6), nn.Linear(6, 2)))
    found = assert_exact(model, holed(model), lambda n: images(n, 4))
    assert found.module.get_parameter("1.weight").shape == (6, 6)


def test_modules_that_nothing_uses_are_gone():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return self.used(x)

    model = unsettled(Unused())
    found = assert_exact(model, holed(model), lambda n: images(n, 4))
    assert list(found.mask) == ["used.weight"]
    model.used = nn.LayerNorm(4).double()
    with pytest.raises(MaskMismatch, match="covers no tensor that takes part"):
        compact(model, Mask({"unused.weight": np.ones((6, 4))}), images(1, 4))


def test_copies_and_wrappers():
    model = unsettled(nn.Sequential(block(), nn.ReLU(), block(6, 2)))
    mask = holed(model)
    found = compact(nn.DataParallel(model), mask, images(2, 6))
    assert set(found.mask) == set(mask)
    again = copy.deepcopy(found.module)
    assert torch.equal(again(images(3, 6)), found.module(images(3, 6)))
    twice = compact(found.module, found.mask, images(2, 6))
    assert twice.mask.kept == found.mask.kept and widths(twice).keys() == widths(found).keys()
    assert torch.allclose(twice.module(images(3, 6)), found.module(images(3, 6)), rtol=1e-12)


def test_randomness_of_the_process_is_left_alone():
    model = unsettled(nn.Sequential(block(), nn.ReLU(), nn.Dropout(), block(6, 2)))
    state = torch.random.get_rng_state()
    compact(model, holed(model), images(2, 6))
    assert torch.equal(state, torch.random.get_rng_state())
