"""Compaction of convolutional networks: borders, pooling, norms, groups, streams, concatenation, flatten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lottery.networks.models import MODELS
from pruning.mask import Mask
from tests.pruning.compaction_helpers import assert_exact, holed, images, rows, unsettled, widths


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet-300-100", (1, 8, 8)), ("conv-2", (3, 8, 8)), ("conv-4", (3, 8, 8)), ("vgg-16", (3, 16, 16))],
)
def test_chains_of_layers(name, shape, seed):
    model = unsettled(MODELS[name].value(shape, 10))
    mask = holed(model, seed)
    found = assert_exact(model, mask, lambda n: images(n, *shape), batches=(1, 3))
    assert found.opaque == {}
    before = sum(value.numel() for value in model.parameters())
    after = sum(value.numel() for value in found.module.parameters())
    assert after < 0.4 * before and found.mask.kept < mask.kept
    norms = [path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(found.folded) == sorted(norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules())


@pytest.mark.parametrize("seed", range(4))
def test_residual_streams(seed):
    model = unsettled(MODELS["resnet-20"].value((3, 8, 8), 10), seed)
    # Every block reads and writes the stream: its channels are dead where the last layer does not read them either.
    mask = holed(model, seed)
    dead = np.arange(64) % 3 == 0
    stream = {"fc.weight": np.array(mask["fc.weight"]) & ~dead}
    mask = Mask({**mask, **stream})
    found = assert_exact(model, mask, lambda n: images(n, 3, 8, 8), batches=(1, 3))
    assert found.opaque == {} and len(found.folded) == 21
    sizes = widths(found)
    assert sizes["blocks.8.conv1"][1] < 64
    assert sizes["blocks.8.conv2"][1] == sizes["blocks.7.conv2"][1] == sizes["blocks.6.shortcut.0"][1]
    assert sizes["blocks.8.conv2"][1] == sizes["fc"][0] < 64


def test_a_dead_filter_with_batch_norm_is_its_shift():
    model = unsettled(
        nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 3, bias=False))
    )
    found = assert_exact(model, rows(model, **{"0": [1]}), lambda n: images(n, 2, 7, 7))
    norm = model[1]
    shift = norm.bias[1] - norm.weight[1] * norm.running_mean[1] / (norm.running_var[1] + norm.eps).sqrt()
    expected = model[3].weight[:, 1].sum((1, 2)) * torch.tanh(shift)
    assert widths(found) == {"0": (2, 2), "3": (2, 2)} and found.folded == {"1": "0"}
    assert torch.allclose(found.module.get_parameter("3.bias"), expected)


class Padded(nn.Module):
    def __init__(self, model: Any, pads: tuple[int, ...], options: dict[str, Any]):
        super().__init__()
        self.model, self.pads, self.options = model, pads, options

    def forward(self, x):
        return self.model[2](F.pad(F.relu(self.model[0](x)), self.pads, **self.options))


class TestBorders:
    """A constant channel is another number where a convolution sees zeros beyond the border."""

    @pytest.mark.parametrize(("padding", "mode"), [(1, "zeros"), ("same", "zeros"), ((0, 1), "zeros")])
    def test_a_constant_that_is_padded_with_zeros_stays(self, padding, mode):
        model = self.model(padding, mode)
        assert widths(assert_exact(model, rows(model, **{"0": [1]}), lambda n: images(n, 2, 6, 6)))["2"] == (3, 2)

    @pytest.mark.parametrize(
        ("padding", "mode"), [(0, "zeros"), ("valid", "zeros"), (1, "reflect"), (1, "replicate"), (1, "circular")]
    )
    def test_elsewhere_it_goes(self, padding, mode):
        model = self.model(padding, mode)
        assert widths(assert_exact(model, rows(model, **{"0": [1]}), lambda n: images(n, 2, 6, 6)))["2"] == (2, 2)

    def test_a_zero_goes(self):
        model = self.model(1, "zeros")
        with torch.no_grad():
            model[0].bias[1] = -1.0
        assert widths(assert_exact(model, rows(model, **{"0": [1]}), lambda n: images(n, 2, 6, 6)))["2"] == (2, 2)

    def test_an_average_counts_its_padding(self):
        for pool, left in (
            (nn.AvgPool2d(3, 2, 1), 3),
            (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 2),
            (nn.AvgPool2d(3, 2), 2),
            (nn.AvgPool2d(2, divisor_override=3), 3),
            (nn.MaxPool2d(3, 2, 1), 2),
            (nn.AdaptiveAvgPool2d((2, 3)), 2),
            (nn.AdaptiveMaxPool2d(2), 2),
        ):
            model = self.model(0, "zeros")
            model[1] = pool
            model[2] = nn.Conv2d(3, 2, 2).double()
            found = assert_exact(model, rows(model, **{"0": [1]}), lambda n: images(n, 2, 8, 8))
            assert widths(found)["2"] == (left, 2), pool

    @pytest.mark.parametrize(
        ("pads", "options", "left"),
        [
            ((1, 1), {}, 3),
            ((1, 1, 0, 1), {"value": 0.7}, 2),
            ((1, 1, 0, 0), {"mode": "replicate"}, 2),
            ((0, 0, 0, 0, 0, 0), {}, 3),
        ],
    )
    def test_padding_by_hand(self, pads, options, left):
        model = self.model(0, "zeros")
        with torch.no_grad():
            model[0].bias[1] = 0.7
        padded = Padded(model, pads, options)
        found = assert_exact(padded, rows(padded, model_0=[1]), lambda n: images(n, 2, 8, 8))
        assert widths(found)["model.2"] == (left, 2)

    def test_padding_adds_channels(self):
        model = Padded(self.model(0, "zeros"), (0, 0, 0, 0, 1, 2), {})
        model.model[2] = nn.Conv2d(6, 2, 1).double()
        assert_exact(model, holed(model), lambda n: images(n, 2, 8, 8))

    def model(self, padding, mode) -> Any:
        last = nn.Conv2d(3, 2, 3, padding=padding, padding_mode=mode)
        model = unsettled(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), last))
        nn.init.constant_(model[0].bias, 0.7)
        return model


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": 2, "padding_mode": "circular"},
        {"padding": "same", "padding_mode": "reflect"},
        {"stride": (2, 1), "dilation": (1, 2), "bias": False},
    ],
)
def test_a_narrower_convolution_keeps_its_form(options):
    model = unsettled(nn.Sequential(nn.Conv2d(3, 8, 3, **options), nn.ReLU(), nn.Conv2d(8, 8, 3, **options)))
    model.append(nn.Conv2d(8, 2, 1).double())
    for seed in range(3):
        found = assert_exact(model, holed(model, seed), lambda n: images(n, 3, 9, 9))
        narrow = found.module.get_submodule("2")
        assert isinstance(narrow, nn.Conv2d)
        for attribute in ("stride", "padding", "dilation", "padding_mode", "kernel_size"):
            assert getattr(narrow, attribute) == getattr(model[2], attribute)


def test_one_dimension():
    model = unsettled(
        nn.Sequential(
            nn.Conv1d(3, 8, 3, padding=1),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Conv1d(8, 8, 3, bias=False),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
            nn.Linear(16, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, 3),
        )
    )
    found = assert_exact(model, holed(model), lambda n: images(n, 3, 12))
    assert found.folded == {"1": "0", "9": "8"}
    assert widths(found)["4"][0] < 8 and widths(found)["8"][0] < 16


def test_an_image_without_a_batch():
    model = unsettled(nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 2)))
    assert_exact(model, holed(model), lambda _: images(2, 8, 8), batches=(1,))


def test_flatten_takes_channels_with_all_their_positions():
    model = unsettled(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 2)))
    keep = np.ones((2, 16), bool)
    keep[:, 4:9] = False  # channel 1 as a whole, and one position of channel 2
    found = assert_exact(model, Mask({"3.weight": keep}), lambda n: images(n, 1, 4, 4))
    assert widths(found) == {"0": (1, 3), "3": (12, 2)}


class TestGroups:
    def test_depthwise_channels_go_in_pairs(self):
        model = unsettled(
            nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.ReLU(), nn.Conv2d(12, 2, 1))
        )
        keep = np.ones((2, 12, 1, 1), bool)
        keep[:, 4:6] = False  # both channels that input 2 feeds
        keep[:, 9] = False  # one of the two that input 4 feeds
        found = assert_exact(model, Mask({"3.weight": keep}), lambda n: images(n, 3, 5, 5))
        assert widths(found) == {"0": (3, 5), "1": (5, 10), "3": (10, 2)}
        assert found.mask["1.weight"].reshape(10, -1).all(1).tolist() == [True] * 7 + [False] + [True] * 2

    def test_a_dead_depthwise_filter_is_its_bias(self):
        model = unsettled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)))
        found = assert_exact(model, rows(model, **{"1": [2]}), lambda n: images(n, 3, 5, 5))
        assert widths(found) == {"0": (3, 3), "1": (3, 3), "2": (3, 2)}

    def test_what_feeds_a_dead_filter_does_not_matter(self):
        model = unsettled(
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 3, padding=1))
        )
        found = assert_exact(model, rows(model, **{"1": [2]}), lambda n: images(n, 3, 5, 5))
        assert widths(found) == {"0": (3, 4), "1": (4, 4), "2": (4, 2)}, "its constant meets a border"
        assert found.mask["0.weight"].reshape(4, -1).any(1).tolist() == [True, True, False, True]

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("padding", [0, 1])
    @pytest.mark.parametrize(("wide", "groups"), [(6, 6), (12, 6), (12, 3), (6, 2)])
    def test_groups_stay_together(self, wide, groups, padding, seed):
        model = unsettled(
            nn.Sequential(
                nn.Conv2d(2, 6, 1),
                nn.Tanh(),
                nn.Conv2d(6, wide, 3, groups=groups, padding=padding, bias=seed % 2 == 0),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
                nn.Conv2d(wide, 3, 1),
            )
        )
        found = assert_exact(model, holed(model, seed), lambda n: images(n, 2, 6, 6))
        assert found.folded == {"3": "2"}


class Dense(nn.Module):
    """A dense net of one block: every layer sees all before it (Huang et al. 2017)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * index) for index in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * index, 4, 3, padding=1, bias=False) for index in range(3))
        self.last = nn.Linear(18, 5)

    def forward(self, x):
        x = self.first(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.last(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("seed", range(4))
def test_concatenation(seed):
    model = unsettled(Dense())
    found = assert_exact(model, holed(model, seed), lambda n: images(n, 3, 6, 6))
    assert found.opaque == {} and widths(found)["last"][0] < 18


class Joined(nn.Module):
    """The input itself beside a layer, along channels; two layers along positions."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.last = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(7, 2, 1),
        )

    def forward(self, x):
        tall = torch.cat((self.one(x), self.other(x)), dim=2)
        return self.last(torch.cat([torch.cat((x, x + 1), -2), tall], dim=-3))


def test_concatenation_with_inputs_and_along_positions():
    model = unsettled(Joined())
    for seed in range(3):
        assert_exact(model, holed(model, seed), lambda n: images(n, 3, 4, 4))
    keep = np.ones((2, 7, 1, 1), bool)
    keep[:, 5] = False
    found = assert_exact(model, Mask({"last.weight": keep}), lambda n: images(n, 3, 4, 4))
    assert widths(found) == {"one": (3, 3), "other": (3, 3), "last": (6, 2)}
    both = rows(model, one=[1], other=[1])
    assert widths(assert_exact(model, both, lambda n: images(n, 3, 4, 4)))["last"] == (7, 2)
    with torch.no_grad():
        model.one.bias[1] = model.other.bias[1]
    assert widths(assert_exact(model, both, lambda n: images(n, 3, 4, 4)))["last"] == (6, 2)


class Gated(nn.Module):
    """Squeeze and excitation: channels scaled by what is made of their means (Hu et al. 2018)."""

    def __init__(self):
        super().__init__()
        self.conv, self.down, self.up, self.last = (
            nn.Conv2d(2, 8, 3),
            nn.Conv2d(8, 3, 1),
            nn.Conv2d(3, 8, 1),
            nn.Conv2d(8, 2, 3),
        )

    def forward(self, x):
        x = torch.relu(self.conv(x))
        return self.last(x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))))


@pytest.mark.parametrize("seed", range(4))
def test_gates(seed):
    model = unsettled(Gated())
    found = assert_exact(model, holed(model, seed), lambda n: images(n, 2, 7, 7))
    assert widths(found)["up"][1] < 8


def test_transposed_convolutions_and_other_layers_stay():
    model = unsettled(
        nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2), nn.GroupNorm(1, 5), nn.Conv2d(5, 2, 1)
        )
    )
    found = assert_exact(model, holed(model), lambda n: images(n, 2, 6, 6))
    assert found.module.get_parameter("2.weight").shape == (6, 5, 2, 2) and "2.weight" in found.mask


def test_a_batch_norm_without_statistics_looks_at_the_batch():
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.Conv2d(6, 2, 1)).double()
    found = assert_exact(model, holed(model), lambda n: images(n, 2, 6, 6))
    assert found.folded == {}


def test_a_batch_norm_before_its_layer_is_narrowed():
    model = unsettled(nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)))
    found = assert_exact(model, rows(model, **{"0": [1, 4]}), lambda n: images(n, 2, 6, 6))
    assert found.folded == {} and found.module.get_buffer("2.running_var").shape == (4,)


def test_a_masked_scale_leaves_the_shift():
    model = unsettled(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    mask = Mask({"1.weight": [1, 0, 1, 1]})
    found = assert_exact(model, mask, lambda n: images(n, 2, 6, 6))
    assert widths(found) == {"0": (2, 3), "3": (3, 2)} and found.mask["1.weight"].tolist() == [True] * 3
