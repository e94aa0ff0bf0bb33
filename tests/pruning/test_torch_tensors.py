"""The weights of PyTorch's layers as initializers see them: each kind is drawn right, or named as left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from pruning.initializers import draw, get_initializer
from pruning.starts.torch_tensors import torch_tensors

GAIN = 1.3
LAYERS = {
    "linear": lambda: nn.Linear(60, 40),
    "convolution in groups": lambda: nn.Conv1d(24, 36, 5, groups=3),
    "depthwise": lambda: nn.Conv2d(16, 16, 7, groups=16),
    "volume": lambda: nn.Conv3d(6, 20, 3),
    "transposed in groups": lambda: nn.ConvTranspose2d(24, 30, 3, groups=2),
    "bilinear": lambda: nn.Bilinear(9, 11, 30),
    "attention, packed": lambda: nn.MultiheadAttention(48, 4),
    "attention, apart": lambda: nn.MultiheadAttention(48, 4, kdim=30, vdim=20),
    "lstm": lambda: nn.LSTM(30, 40, num_layers=2, bidirectional=True),
    "lstm that projects": lambda: nn.LSTM(30, 40, proj_size=20),
    "gru": lambda: nn.GRU(30, 40),
    "rnn": lambda: nn.RNN(30, 40),
    "cell": lambda: nn.LSTMCell(30, 40),
    "weight norm": lambda: weight_norm(nn.Linear(50, 40)),
}
PARTS = {"convolution in groups": 3, "depthwise": 16, "attention, packed": 3, "lstm": 4, "gru": 3, "cell": 4}


def masks_of(layer: nn.Module) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(tuple(p.shape)) < 0.3 for name, p in layer.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("name", LAYERS)
def test_every_part_has_unit_variance_over_its_own_live_inputs(name):
    layer = LAYERS[name]()
    keep = masks_of(layer)
    owned = torch_tensors(layer, keep)
    assert len(owned[0].tensor.weights()) == PARTS.get(name, len(owned[0].tensor.weights()))
    assert {name for name in keep if not name.endswith("original0")} == {each.tensor.name for each in owned}
    drawn = draw([each.tensor for each in owned], get_initializer("unit-scaled", {"gain": GAIN}), 0)
    sums: list[float] = []
    for each in owned:
        assert each.write(drawn.values[each.tensor.name])
        written = getattr(each.layer, each.attribute).detach().numpy()
        for weights, part in zip(each.tensor.layout.cut(written), each.tensor.weights(), strict=True):
            assert not weights[~part.keep].any()
            live = part.fan_in > 0
            sums += (np.square(weights.reshape(len(weights), -1)).sum(1)[live] / GAIN**2).tolist()
    assert np.mean(sums) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("computed", [spectral_norm, orthogonal])
def test_a_weight_that_cannot_be_set_stays_as_the_model_made_it(computed):
    layer = computed(nn.Linear(30, 30))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    (owned,) = torch_tensors(layer, {})
    assert not owned.write(np.random.default_rng(0).standard_normal((30, 30), np.float32))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name
