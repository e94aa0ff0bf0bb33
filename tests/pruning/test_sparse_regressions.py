"""What was once wrong with sparse modules on people's own networks, one test each."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.closeness import relative_error
from pruning.sparse.module import sparse_module
from pruning.torch_modules import prunable

BAGS = Choosing(backend="bags", cache=None)
DENSE = Choosing(backend="dense", cache=None)
BY_MODEL = Choosing(by="model", cache=None)
X = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


def mask_of(model, density=0.3):
    rng = np.random.default_rng(0)
    return Mask({name: rng.random(shape) < density for name, shape in prunable(model).items()})


def step(module, inputs=X):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(inputs).square().sum().backward()
    optimizer.step()
    return module.state_dict()


def none_back(state, mask):
    return all(not state[name][torch.from_numpy(~keep)].any() for name, keep in mask.items())


def test_masks_hold_after_parameters_were_replaced():
    mask = mask_of(mlp())
    module = sparse_module(mlp(), mask, X, choosing=BY_MODEL)
    module.load_state_dict(module.state_dict(), assign=True)
    assert none_back(step(module.train()), mask)


def test_masks_hold_in_a_network_that_was_frozen_when_it_was_made():
    model = mlp()
    mask = mask_of(model)
    module = sparse_module(model.requires_grad_(False), mask, X, choosing=BY_MODEL).requires_grad_(True)
    assert none_back(step(module.train()), mask)


def test_masks_hold_after_pickling():
    mask = mask_of(mlp())
    for choosing in (BAGS, BY_MODEL):
        module = sparse_module(mlp(), mask, X, choosing=choosing).eval()
        with torch.no_grad():
            wanted = module(X)
            file = io.BytesIO()
            torch.save(module, file)
            again = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
            assert torch.equal(again(X), wanted)
        assert none_back(step(again.train()), mask) and again.mask == mask


@pytest.mark.parametrize(
    "change",
    [
        lambda s: [p.data.mul_(3) for p in s.parameters()] and s.train().eval(),
        lambda s: s.network.load_state_dict({n: 2 * v for n, v in s.network.state_dict().items()}, assign=True),
        lambda s: s.network.register_buffer("scale", torch.ones(4)),
    ],
    ids=["through .data", "assigned", "another buffer"],
)
def test_changed_weights_are_seen(change):
    module = sparse_module(mlp(), mask_of(mlp()), X, choosing=BAGS).eval()
    with torch.no_grad():
        module(X)
        change(module)
        assert torch.allclose(module(X), module.network(X), rtol=1e-5, atol=1e-6)


def test_parameters_handed_over_for_one_call_are_used():
    module = sparse_module(mlp(), mask_of(mlp()), X, choosing=BAGS).eval()
    with torch.no_grad():
        before = module(X)
        larger = {name: 3 * p.detach() for name, p in module.named_parameters()}
        assert not torch.allclose(torch.func.functional_call(module, larger, (X,)), before)
        assert torch.equal(module(X), before)


def test_layers_left_in_training_mode_and_hooks_are_respected():
    model = nn.Sequential(nn.Linear(12, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    module = sparse_module(model, mask_of(model), X, choosing=BAGS).eval()
    calls = []
    with torch.no_grad():
        assert torch.equal(module(X), module(X))
        module.network.get_submodule("1").train()
        assert not torch.equal(module(X), module(X))
        module.eval()
        handle = module.network.get_submodule("0").register_forward_hook(lambda *_: calls.append(1))
        module(X)
        assert calls == [1]
        handle.remove()
        module(X)
        assert calls == [1]


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x) + self.calls


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(x.sub_(1))


def test_a_network_that_changes_its_buffers_runs_itself():
    model = Counting()
    mask = mask_of(model)
    module = sparse_module(model, mask, X, choosing=BY_MODEL).eval()
    assert "changes its buffers" in module.report.text()
    dense = mask.apply(copy.deepcopy(model)).eval()
    with torch.no_grad():
        for _ in range(3):
            assert torch.allclose(module(X), dense(X))
    assert module.state_dict()["calls"] == 3 and model.calls == 0


def test_a_network_that_writes_into_its_inputs_leaves_the_example_alone():
    model, example = InPlace(), X.clone()
    mask = mask_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = sparse_module(model, mask, example, choosing=Choosing(cache=None, seconds=0.0)).eval()
    assert torch.equal(example, X)
    assert "writes into its inputs" in module.report.text()
    with torch.no_grad():
        assert torch.allclose(module(X.clone()), mask.apply(model).eval()(X.clone()))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body, self.out = nn.Embedding(9, 12), nn.Linear(12, 12), nn.Linear(12, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens):
        return self.out(torch.relu(self.body(self.embed(tokens))))


def test_tied_parameters_stay_tied():
    model, tokens = Tied(), torch.arange(9).reshape(3, 3)
    mask = mask_of(model)
    module = sparse_module(model, mask, tokens, choosing=BAGS).eval()
    dense = module.dense()
    assert dense.get_parameter("out.weight") is dense.get_parameter("embed.weight")
    with torch.no_grad():
        assert torch.allclose(module(tokens), mask.apply(model).eval()(tokens), atol=1e-5)


def test_what_is_not_a_number_is_no_small_difference():
    assert relative_error(torch.tensor([torch.nan, 1.0]), torch.ones(2)) == float("inf")
    assert relative_error(torch.tensor([torch.nan, 1.0]), torch.tensor([torch.nan, 1.0])) == 0.0


class Joining(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).view(-1).view(-1, 16))


def test_a_view_that_only_another_batch_forbids():
    model = Joining()
    mask = mask_of(model)
    module = sparse_module(model, mask, X[:1], choosing=BAGS).eval()
    dense = mask.apply(copy.deepcopy(model)).eval()
    with torch.no_grad():
        assert torch.allclose(module(X), dense(X), atol=1e-5)
    assert torch.allclose(module.train()(X), dense(X), atol=1e-5)


@pytest.mark.parametrize("choosing", [BAGS, DENSE, Choosing(backend="csr", cache=None)], ids=["bags", "dense", "csr"])
def test_autocast_and_other_types_of_numbers(choosing):
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    mask = mask_of(model)
    dense = mask.apply(copy.deepcopy(model))
    module = sparse_module(model, mask, X, choosing=choosing).train()
    with torch.autocast("cpu", torch.bfloat16):
        found, wanted = module(X), dense(X)
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted.float(), atol=0.05)
    found.float().sum().backward()
    for dtype in (torch.bfloat16, torch.float64):
        module = module.to(dtype).eval()
        with torch.no_grad():
            assert torch.allclose(module(X.to(dtype)).double(), dense.double()(X.double()), atol=0.05)


class AsksForTheType(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x):
        return self.fc(x.to(self.fc.weight.dtype).to(self.fc.weight.device))


def test_networks_may_ask_a_weight_for_its_type_and_device():
    model = AsksForTheType()
    module = sparse_module(model, mask_of(model), X, choosing=BAGS)
    assert module(X).shape == (8, 4)


def test_a_mask_of_a_bias_alone_leaves_the_layer_dense():
    model = nn.Sequential(nn.Linear(12, 6), nn.Conv1d(8, 3, 1))
    mask = Mask({"0.bias": np.arange(6) % 2 == 0, "1.bias": [1, 0, 1]})
    module = sparse_module(model, mask, X, choosing=BAGS).eval()
    with torch.no_grad():
        assert torch.allclose(module(X), mask.apply(model).eval()(X), atol=1e-6)
    assert "0.bias: it is no matrix" in module.report.text()


def test_no_example_at_all_goes_through_convolutions():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3 * 16, 2))
    mask = mask_of(model)
    module = sparse_module(model, mask, torch.randn(4, 2, 6, 6), choosing=BAGS).eval()
    with torch.no_grad():
        assert module(torch.randn(0, 2, 6, 6)).shape == (0, 2)


def test_nested_examples_follow_to_another_type():
    lstm, state = nn.LSTM(12, 5), (torch.zeros(1, 5), torch.zeros(1, 5))
    module = sparse_module(lstm, mask_of(lstm), X, state, choosing=BAGS).eval().double()
    with torch.no_grad():
        output, _ = module(X.double(), tuple(part.double() for part in state))
    assert output.dtype == torch.float64


@pytest.mark.parametrize("content", ['{"a":', "[]", '{"x": 3}'])
def test_a_broken_cache_is_said_and_measured_again(tmp_path, content):
    path = tmp_path / "choices.json"
    path.write_text(content)
    choosing = Choosing(cache=path, seconds=0.0)
    if content == '{"x": 3}':
        sparse_module(mlp(), mask_of(mlp()), X, choosing=choosing)
    else:
        with pytest.warns(RuntimeWarning, match="measured again"):
            sparse_module(mlp(), mask_of(mlp()), X, choosing=choosing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparse_module(mlp(), mask_of(mlp()), X, choosing=choosing)


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        sparse_module(
            mlp(), mask_of(mlp()), X, choosing=Choosing(cache=tmp_path / "file" / "choices.json", seconds=0.0)
        )


def test_it_is_made_and_runs_in_inference_mode():
    mask = mask_of(mlp())
    with torch.inference_mode():
        module = sparse_module(mlp().eval(), mask, X.clone(), choosing=Choosing(cache=None, seconds=0.0))
        found = module(X)
    assert torch.allclose(found, mask.apply(mlp()).eval()(X), atol=1e-6)


class TakesAnArray(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x, table):
        return self.fc(x) * float(table.sum())


def test_other_arguments_may_be_anything():
    model, table = TakesAnArray(), np.ones(3)
    mask = mask_of(model)
    module = sparse_module(model, mask, X, table, choosing=BAGS).eval()
    dense = mask.apply(copy.deepcopy(model)).eval()
    with torch.no_grad():
        for each in (table, np.full(3, 2.0)):
            assert torch.allclose(module(X, each), dense(X, each), atol=1e-5)


class Named(nn.Module):
    """Its own names are those that the module uses inside."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(12, 12)
        self.weight = nn.Parameter(torch.ones(12))

    def forward(self, x):
        return self.network(x) * self.weight


def test_names_inside_do_not_clash_with_the_networks():
    model = Named()
    module = sparse_module(model, mask_of(model), X, choosing=BAGS)
    assert set(module.state_dict()) == set(model.state_dict())
    module.load_state_dict(module.state_dict())


class KeepsAWord(nn.Linear):
    def get_extra_state(self):
        return {"word": "kept"}

    def set_extra_state(self, state):
        self.word = state["word"]


def test_extra_state_is_carried_along():
    model = nn.Sequential(nn.Linear(12, 6), KeepsAWord(6, 2))
    module = sparse_module(model, mask_of(model), X, choosing=BAGS).eval()
    with torch.no_grad():
        module(X)
    assert module.dense().get_submodule("1").word == "kept"


def test_a_compiled_module_may_run_without_gradients_first():
    mask = mask_of(mlp())
    module = sparse_module(mlp(), mask, X, choosing=BAGS).eval()
    compiled = torch.compile(module, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(X), mask.apply(mlp()).eval()(X), atol=1e-6)


def test_a_cache_that_is_no_path_is_one_line():
    with pytest.raises(BadValue, match="pathlib.Path or None, not 'c.json'"):
        Choosing(cache="c.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadValue, match="did you mean 'model'"):
        Choosing(by="modl")
