"""Named models have the sizes of their papers; callers bring their own in every form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lottery.data import Data
from lottery.data.parts import prepare
from lottery.networks.initializers.first import FIRST
from lottery.networks.models import MODELS
from lottery.networks.sources.choosing import torch_source
from lottery.networks.sources.redrawing import check_initializer
from lottery.settings.recipes import recipe_layers
from pruning.errors import BadValue, DataError, UnknownName
from pruning.torch_modules import prunable
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
PARTS = prepare(Data(train=blobs(40)), 0)


def weights(name, shape=CIFAR, kind=None):
    model = MODELS[name].value(shape, 10)
    layers = {n: m for n, m in model.named_modules() if kind is None or isinstance(m, kind)}
    return sum(int(np.prod(s)) for n, s in prunable(model).items() if n.rpartition(".")[0] in layers)


@pytest.mark.parametrize("entry", list(MODELS), ids=lambda entry: entry.name)
@pytest.mark.parametrize("shape", [MNIST, CIFAR], ids=str)
def test_every_model_maps_images_to_outputs_and_can_be_pruned(entry, shape):
    model = entry.value(shape, 7).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)
    assert prunable(model) and entry.summary and entry.source


@pytest.mark.parametrize(
    ("name", "shape", "total", "convolutions"),
    [
        ("lenet-300-100", MNIST, 266_200, 0),
        ("conv-2", CIFAR, 4_300_992, 38_592),  # the paper: 4.3M / 38K
        ("conv-4", CIFAR, 2_425_024, 259_776),  # the paper: 2.4M / 260K
        ("conv-6", CIFAR, 2_261_184, 1_144_512),  # its convolutions: 1.1M (the paper's total, 1.7M, is not its sum)
        ("cnn-8-16", MNIST, 11_240, 3_400),  # the ES paper: 11,240 weights
    ],
)
def test_sizes_of_the_papers(name, shape, total, convolutions):
    assert weights(name, shape) == total
    assert weights(name, shape, nn.Conv2d) == convolutions


def test_resnet_20_has_the_sizes_of_the_paper():
    """Frankle & Carbin 2019, figure 2: 270K convolution weights; 2,560 in downsampling and 640 in the output."""
    model = MODELS["resnet-20"].value(CIFAR, 10)
    sizes = {name: int(np.prod(shape)) for name, shape in prunable(model).items()}
    assert sum(size for name, size in sizes.items() if ".shortcut." in name) == 2_560
    assert sizes["fc.weight"] == 640
    assert round(sum(sizes.values()), -3) == 271_000


def test_the_cnn_of_the_es_paper_has_11274_parameters():
    assert sum(p.numel() for p in MODELS["cnn-8-16"].value(MNIST, 10).parameters()) == 11_274


def test_mlp_is_sized_for_the_data():
    assert [shape for _, shape in prunable(MODELS["mlp"].value((1, 8, 8), 10)).items()] == [
        (64, 64),
        (32, 64),
        (10, 32),
    ]
    assert next(iter(prunable(MODELS["mlp"].value(MNIST, 10)).values())) == (300, 784)


@pytest.mark.parametrize("name", ["conv-6", "vgg-16", "resnet-20", "cnn-8-16"])
def test_image_models_refuse_other_inputs(name):
    with pytest.raises(DataError, match=r"takes images .* have shape \[6\]"):
        MODELS[name].value((6,), 3)


@pytest.mark.parametrize(
    ("name", "variance"),
    [("glorot-normal", 2 / (400 + 200)), ("kaiming-normal", 2 / 400), ("lecun-normal", 1 / 400)],
)
def test_initializers_have_their_variance(name, variance):
    torch.manual_seed(0)
    layer = nn.Linear(400, 200)
    FIRST[name](layer)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert layer.bias.abs().max() == 0


def test_openlth_keeps_the_biases_that_pytorch_draws():
    torch.manual_seed(0)
    network = MODELS["lenet-300-100"].value(MNIST, 10)
    FIRST[str(recipe_layers("openlth-lenet")[-1]["init"])](network)
    for layer in (layer for layer in network.modules() if isinstance(layer, nn.Linear)):
        bound = layer.in_features**-0.5
        assert layer.weight.var().item() == pytest.approx(2 / layer.in_features, rel=0.1)
        assert 0.8 * bound < layer.bias.abs().max().item() <= bound


class TestSource:
    def test_a_seed_decides_and_the_callers_generator_does_not_move(self):
        source = torch_source("mlp", PARTS, "model")
        torch.manual_seed(9)
        before = torch.random.get_rng_state()
        assert_same_arrays(source.initial_state(0), source.initial_state(0))
        assert source.fingerprint(0) != source.fingerprint(1)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_module_gives_its_own_weights(self):
        model = tiny_model()
        source = torch_source(model, PARTS, "model")
        assert not source.varies
        assert np.array_equal(source.initial_state(3)["0.weight"], model[0].weight.detach().numpy())  # pyright: ignore

    @pytest.mark.parametrize(
        "make",
        [
            tiny_model,
            lambda: nn.Linear(6, 3),
            lambda seed: tiny_model(seed),
            lambda s: tiny_model(s),
            lambda width=8, *, seed: nn.Linear(6, width),
        ],
    )
    def test_callables_with_and_without_a_seed(self, make):
        source = torch_source(make, PARTS, "model")
        assert source.fingerprint(0) == source.fingerprint(0) != source.fingerprint(1)

    def test_a_callable_of_the_registered_kind_is_sized_for_the_data(self):
        assert source_shape(lambda shape, outputs: nn.Linear(shape[0], outputs)) == (3, 6)

    def test_a_seed_is_not_mistaken_for_a_width(self):
        def make(hidden=5):
            return nn.Linear(hidden, 3)

        assert source_shape(make) == (3, 5)

    def test_an_initializer_beats_the_models_own(self):
        source = torch_source(tiny_model(), PARTS, "kaiming-normal")
        assert source.varies and source.fingerprint(0) != source.fingerprint(1)

    def test_an_initializer_that_leaves_a_prunable_tensor_as_it_was_is_refused(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale, self.fc = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

        source = torch_source(lambda seed: Scaled(), PARTS, "kaiming-normal")
        check_initializer(source, "kaiming-normal", 0, ["fc.weight"])
        with pytest.raises(BadValue, match="'kaiming-normal' does not redraw the prunable tensor 'scale'"):
            check_initializer(source, "kaiming-normal", 0, ["fc.weight", "scale"])
        check_initializer(torch_source(lambda seed: Scaled(), PARTS, "model"), "model", 0, ["scale"])

    def test_a_users_module_by_path(self, tmp_path, monkeypatch):
        (tmp_path / "users_nets.py").write_text(
            "from torch import nn\ndef net():\n    return nn.Linear(6, 3)\nready = net()\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        assert torch_source("users_nets:net", PARTS, "model").build(0).weight.shape == (3, 6)
        assert not torch_source("users_nets:ready", PARTS, "model").varies
        with pytest.raises(UnknownName, match="did you mean users_nets:net"):
            torch_source("users_nets:nett", PARTS, "model")

    @pytest.mark.parametrize(
        ("model", "error", "message"),
        [
            ("lenet", UnknownName, "did you mean 'lenet-300-100'"),
            (3, BadValue, "not int"),
            (lambda a, b: None, BadValue, "needs the arguments a, b; give one"),
            (lambda: 3, BadValue, "returned int"),
        ],
    )
    def test_what_is_not_a_model(self, model, error, message):
        with pytest.raises(error, match=message):
            torch_source(model, PARTS, "model").build(0)

    def test_names_cannot_size_models_for_other_pytrees(self):
        from torch.utils.data import DataLoader

        loader = DataLoader([{"x": 1.0}] * 4, batch_size=2)  # pyright: ignore[reportArgumentType]
        with pytest.raises(DataError, match="needs tensors as inputs"):
            torch_source("mlp", prepare(Data(train=loader, validation=loader), 0), "model")


def source_shape(make):
    return tuple(torch_source(make, PARTS, "model").build(1).get_parameter("weight").shape)
