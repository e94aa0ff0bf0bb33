"""A sparse module drops in for the dense network: same outputs, same training, same state dict, never slower."""

from __future__ import annotations

import copy
import json
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_flatten

from lottery.networks.models import MODELS
from pruning.errors import BadValue, DeviceError, MaskMismatch, UnknownName
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing import choosing as choosing_file
from pruning.sparse.module import SparseModule, sparse_module
from pruning.sparse.network import inference as inference_file
from pruning.sparse.network import training as training_file
from pruning.sparse.weights.weight import SparseWeight
from pruning.torch_modules import hold_mask, prunable

BY_MODEL = Choosing(by="model", cache=None)
QUICK = Choosing(cache=None, seconds=0.0)
FORCED = Choosing(backend="bags", cache=None)


class Conv1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean(2))


class Views(nn.Module):
    """Takes its activations apart with `view`, which wants them in one order in memory."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)).view(x.size(0), 3, 4).view(-1, 12))


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x, scale=1.0):
        return {"logits": self.fc(x) * scale}


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 5))


def named(name, shape):
    return lambda: MODELS[name].value(shape, 10)


CASES = {
    "mlp": (mlp, (9, 3, 4)),
    "one linear layer": (lambda: nn.Linear(6, 4), (9, 6)),
    "sequence": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), (3, 5, 6)),
    "conv1d": (Conv1d, (5, 3, 9)),
    "views": (Views, (6, 8)),
    "conv-2": (named("conv-2", (3, 16, 16)), (4, 3, 16, 16)),
    "resnet-20": (named("resnet-20", (3, 8, 8)), (4, 3, 8, 8)),
    "lstm": (lambda: nn.LSTM(5, 6, batch_first=True), (4, 7, 5)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (4, 5, 8)),
}


def sparse_report(*arguments, choosing):
    return sparse_module(*arguments, choosing=choosing).report


def masked(make, density=0.3, seed=0):
    torch.manual_seed(seed)
    model = make()
    rng = np.random.default_rng(seed)
    mask = Mask({name: rng.random(shape) < density for name, shape in prunable(model).items()})
    return model, mask


def leaves(outputs):
    return [leaf for leaf in tree_flatten(outputs)[0] if isinstance(leaf, torch.Tensor)]


def close(found, wanted, error=2e-5):
    pairs = list(zip(leaves(found), leaves(wanted), strict=True))
    assert pairs
    return all(torch.allclose(f, w, rtol=0, atol=error * float(w.detach().abs().max())) for f, w in pairs)


def example(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("choosing", [BY_MODEL, QUICK, FORCED], ids=["by model", "measured", "bags"])
@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES.keys())
def test_outputs_are_those_of_the_masked_network_for_any_batch(make, shape, choosing):
    model, mask = masked(make)
    before = copy.deepcopy(model.state_dict())
    module = sparse_module(model, mask, example(shape), choosing=choosing).eval()
    dense = mask.apply(copy.deepcopy(model)).eval()
    for batch in (shape[0], 1, 17):
        inputs = example((batch, *shape[1:]), seed=2)
        with torch.no_grad():
            assert close(module(inputs), dense(inputs))
            assert all(leaf.is_contiguous() for leaf in leaves(module(inputs)))
        assert close(module(inputs.requires_grad_()), dense(inputs))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("choosing", [BY_MODEL, FORCED], ids=["by model", "bags"])
@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES.keys())
def test_training_is_masked_dense_training_step_by_step(make, shape, choosing):
    model, mask = masked(make)
    # dropout draws its numbers in another order in another form
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.MultiheadAttention):
            layer.dropout = 0.0
    inputs = example(shape)
    with torch.no_grad():
        target = torch.randn(leaves(model(inputs))[0].shape, generator=torch.Generator().manual_seed(7))
    module = sparse_module(model, mask, inputs, choosing=choosing).train()
    dense = hold_mask(copy.deepcopy(model), mask).train()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.02, momentum=0.9, weight_decay=0.01) for m in (module, dense)]
    for _ in range(3):
        for network, optimizer in zip((module, dense), optimizers, strict=True):
            optimizer.zero_grad()
            (leaves(network(inputs))[0] - target).square().mean().backward()
            optimizer.step()
        state, wanted = module.state_dict(), dense.state_dict()
        assert set(state) == set(wanted)
        for name, value in wanted.items():
            scale = float(value.abs().max()) if value.numel() else 0.0
            assert torch.allclose(state[name].double(), value.double(), rtol=0, atol=1e-4 * scale), name
        for name, keep in mask.items():
            assert not state[name][torch.from_numpy(~keep)].any()


def test_a_trained_module_is_compacted_again_with_its_new_weights():
    model, mask = masked(mlp)
    inputs = example((9, 3, 4))
    module = sparse_module(model, mask, inputs, choosing=FORCED)
    with torch.no_grad():
        before = module.eval()(inputs)
        for parameter in module.parameters():
            parameter.add_(0.1)
        assert not close(module(inputs), before)
        assert close(module(inputs), module.dense().eval()(inputs))


@pytest.mark.parametrize("choosing", [BY_MODEL, FORCED], ids=["by model", "bags"])
@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES.keys())
def test_state_dicts_are_those_of_the_dense_network_in_both_directions(make, shape, choosing):
    model, mask = masked(make)
    module = sparse_module(model, mask, example(shape), choosing=choosing).eval()
    fresh = make()
    fresh.load_state_dict(module.state_dict())
    other, _ = masked(make, seed=5)
    module.load_state_dict(other.state_dict())
    inputs = example(shape, seed=3)
    with torch.no_grad():
        assert close(module(inputs), mask.apply(other).eval()(inputs))


def test_a_state_dict_of_another_shape_is_refused():
    model, mask = masked(lambda: nn.Sequential(nn.Linear(6, 4)))
    module = sparse_module(model, mask, example((9, 6)), choosing=FORCED)
    with pytest.raises(RuntimeError, match=r"shape \(5, 6\), expected \(4, 6\)"):
        module.load_state_dict(nn.Sequential(nn.Linear(6, 5)).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected"):
        module.load_state_dict({**model.state_dict(), "more": torch.ones(1)})


def test_copies_stay_masked_and_train_on_their_own():
    model, mask = masked(mlp)
    inputs = example((9, 3, 4))
    for choosing in (FORCED, Choosing(backend="dense", cache=None)):
        module = sparse_module(model, mask, inputs, choosing=choosing).train()
        duplicate = copy.deepcopy(module)
        optimizer = torch.optim.Adam(duplicate.parameters(), lr=0.1)
        duplicate(inputs).square().mean().backward()
        optimizer.step()
        state = duplicate.state_dict()
        assert all(not state[name][torch.from_numpy(~keep)].any() for name, keep in mask.items())
        assert not torch.equal(state["1.weight"], module.state_dict()["1.weight"])


def test_it_moves_to_another_type_of_numbers():
    model, mask = masked(mlp)
    inputs = example((9, 3, 4))
    module = sparse_module(model, mask, inputs, choosing=BY_MODEL).eval().double()
    with torch.no_grad():
        assert close(module(inputs.double()), mask.apply(copy.deepcopy(model)).double().eval()(inputs.double()), 1e-12)


def test_attributes_keywords_and_structures_are_the_networks_own():
    model, mask = masked(Keyword)
    module = sparse_module(model, mask, example((4, 5)), choosing=FORCED).eval()
    assert module.fc.out_features == 3
    with torch.no_grad():
        out = module(example((4, 5)), scale=2.0)
        assert close(out["logits"], 2 * mask.apply(model).eval()(example((4, 5)))["logits"])
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


def test_the_report_names_every_tensor_and_says_whether_it_pays():
    model, mask = masked(lambda: nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10), nn.Bilinear(1, 1, 1)))
    model = model[:3]
    mask = Mask({name: mask[name] for name in ("0.weight", "2.weight")})
    report = sparse_module(model, mask, example((9, 40)), choosing=QUICK).report
    assert [layer.name for layer in report.layers] == ["0.weight", "2.weight"]
    assert report.dense_seconds and report.sparse_seconds
    assert "pay" in report.verdict and report.speedup is not None
    text = report.text()
    assert "0.weight" in text and "30×40" in text and text.endswith(report.verdict)
    plain = json.loads(json.dumps(report.as_json()))
    assert plain["verdict"] == report.verdict and len(plain["layers"]) == 2


def test_bytes_are_those_of_compressed_rows():
    mask = Mask({"weight": np.eye(8, 10, dtype=bool)})
    report = sparse_report(nn.Linear(10, 8), mask, example((5, 10)), choosing=FORCED)
    (layer,) = report.layers
    assert layer.dense_bytes == 8 * 10 * 4
    assert layer.sparse_bytes == 8 * (4 + 4) + 9 * 4


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.more = nn.Bilinear(6, 6, 4)

    def forward(self, x):
        x = self.two(torch.relu(self.one(x)))
        return self.more(x, x)


def test_a_layer_without_a_sparse_form_stays_dense_and_is_named():
    model, mask = masked(Tied)
    module = sparse_module(model, mask, example((5, 6)), choosing=FORCED).eval()
    reasons = {layer.name: (layer.backend, layer.reason) for layer in module.report.layers}
    assert reasons["more.weight"][0] == "dense" and "Bilinear has no sparse form" in reasons["more.weight"][1]
    assert "Bilinear has no sparse form" in module.report.text()
    with torch.no_grad():
        assert close(module(example((7, 6), 3)), mask.apply(model).eval()(example((7, 6), 3)))
    assert module.network.get_parameter("one.weight") is module.network.get_parameter("two.weight")


def test_wrong_numbers_lose_with_a_warning(monkeypatch):
    model, mask = masked(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU()))
    monkeypatch.setattr(SparseWeight, "forward", lambda self, x, bias=None: x[..., :4] * 0 + 1)
    with pytest.warns(RuntimeWarning, match="differs from the dense layer by .* stays dense"):
        report = sparse_report(model, mask, example((9, 6)), choosing=QUICK)
    assert report.layers[0].backend == "dense"


def told(times):
    """Return a race whose times are handed over, so that no clock decides."""

    def fastest(runs, *_):
        return min(runs, key=times.__getitem__), {name: times[name] for name in runs}

    return fastest


def test_a_slower_network_is_never_chosen(monkeypatch):
    model, mask = masked(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU()))
    layer = {"dense": 2.0, "sparse": 1.0, "compiled": 1.0, "bags": 1.0, "csr": 3.0, "compact": 3.0}
    monkeypatch.setattr(choosing_file, "fastest", told(layer))
    for whole, way in (
        ({"dense": 1.0, "compacted": 1.1, "sparse": 1.02}, "dense"),
        ({"dense": 1.0, "sparse": 0.5}, "sparse"),
    ):
        for file in (inference_file, training_file):
            monkeypatch.setattr(file, "fastest", told({"compacted": 9.0, **whole}))
        module = sparse_module(model, mask, example((9, 6)), choosing=QUICK)
        assert module.report.way == way
        assert module.report.layers[0].backend in (("bags", "compiled") if way == "sparse" else ("dense",))
        assert [name for name, _ in module.network.named_parameters() if "weight" in name] == (
            ["0.kept_weight.values"] if way == "sparse" else ["0.weight"]
        )


def test_what_was_measured_once_is_not_measured_again(tmp_path, monkeypatch):
    model, mask = masked(lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU()))
    remembering = Choosing(cache=tmp_path / "deep" / "choices.json", seconds=0.0)
    first = sparse_report(model, mask, example((9, 6)), choosing=remembering)
    monkeypatch.setattr(choosing_file, "fastest", lambda *_: pytest.fail("measured again"))
    again = sparse_report(model, mask, example((9, 6)), choosing=remembering)
    assert [layer.sparse_seconds for layer in first.layers] == [layer.sparse_seconds for layer in again.layers]
    stored = json.loads((tmp_path / "deep" / "choices.json").read_text())
    assert all({"backends", "winner", "dense", "sparse", "key"} <= set(entry) for entry in stored.values())
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        sparse_report(model, mask, example((10, 6)), choosing=remembering)


def test_the_cost_model_alone_decides_the_same_every_time(monkeypatch):
    for file in (choosing_file, inference_file, training_file):
        monkeypatch.setattr(file, "fastest", lambda *_: pytest.fail("measured"))
    model, mask = masked(lambda: nn.Sequential(nn.Linear(400, 300), nn.ReLU(), nn.Linear(300, 10)), density=0.03)
    reports = [sparse_report(model, mask, example((128, 400)), choosing=BY_MODEL) for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].layers[0].backend in ("bags", "csr", "compiled") and reports[0].dense_seconds is None
    assert "nothing was measured" in reports[0].verdict


def test_a_mask_that_keeps_nothing_leaves_the_biases():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    mask = Mask({"0.weight": np.zeros((4, 6)), "2.weight": np.ones((3, 4))})
    module = sparse_module(model, mask, example((9, 6)), choosing=QUICK).eval()
    with torch.no_grad():
        assert close(module(example((9, 6))), mask.apply(model)(example((9, 6))))
    assert isinstance(module, SparseModule)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.ones(4, 7),), BadValue, r"Linear does not take the example \(\[4, 7\] torch.float32\)"),
        ((), BadValue, "an example is needed"),
        ((torch.ones(4, 6).half(),), BadValue, r"does not take the example \(\[4, 6\] torch.float16\)"),
    ],
)
def test_an_example_that_does_not_fit_is_one_line(arguments, error, message):
    model, mask = masked(lambda: nn.Linear(6, 4))
    with pytest.raises(error, match=message):
        sparse_module(model, mask, *arguments, choosing=QUICK)


def test_other_wrong_requests_are_one_line():
    model, mask = masked(lambda: nn.Linear(6, 4))
    with pytest.raises(MaskMismatch, match="closest: weight"):
        sparse_module(model, Mask({"weigth": mask["weight"]}), torch.ones(4, 6))
    with pytest.raises(UnknownName, match="did you mean 'bags'"):
        sparse_module(model, mask, torch.ones(4, 6), choosing=Choosing(backend="bag", cache=None))
    with pytest.raises(DeviceError, match="'bags' does not run on cpu in torch.float64"):
        sparse_module(model.double(), mask, torch.ones(4, 6).double(), choosing=FORCED)
    with pytest.raises(BadValue, match="measure or model, not by 'measured'"):
        Choosing(by="measured")


def test_nothing_warns_on_the_way():
    model, mask = masked(mlp)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparse_module(model, mask, example((9, 3, 4)), choosing=QUICK)
