"""Sparse forms of recurrent layers against masked dense ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pruning.errors import BadValue, UnknownName
from pruning.mask import Mask
from pruning.sparse.forms import sparse_form
from pruning.sparse.layers import NoSparseForm
from pruning.sparse.layers.recurrent import SparseRecurrent
from pruning.sparse.weights.weight import SparseWeight
from pruning.torch_modules import apply_mask, hold_mask

T, B, IN, H = 4, 3, 5, 6
KINDS = {
    "lstm": lambda **options: nn.LSTM(IN, H, **options),
    "lstm projected": lambda **options: nn.LSTM(IN, H, proj_size=4, **options),
    "gru": lambda **options: nn.GRU(IN, H, **options),
    "rnn tanh": lambda **options: nn.RNN(IN, H, **options),
    "rnn relu": lambda **options: nn.RNN(IN, H, nonlinearity="relu", **options),
}
OPTIONS = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "everything": {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.4},
}
BACKENDS = [("dense", torch.float64), ("csr", torch.float64), ("bags", torch.float32), ("csr", torch.float32)]
# PyTorch says so once of the dense layer in float32.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
every_kind = pytest.mark.parametrize("kind", KINDS)


def masks_of(layer, density=0.4):
    """Random masks, with an empty row, of every weight."""
    rng = np.random.default_rng(0)
    masks = {name: rng.random(p.shape) < density for name, p in layer.named_parameters() if name.startswith("weight")}
    for mask in masks.values():
        mask[0] = False
    return masks


def pair(kind, masks=None, backend="csr", dtype=torch.float64, **options):
    """A masked dense layer and its sparse form."""
    torch.manual_seed(0)
    layer = KINDS[kind](**options).to(dtype)
    masks = masks_of(layer) if masks is None else masks
    if masks:
        apply_mask(layer, Mask(masks))
    return layer, use(sparse_form(layer, masks), backend), masks


def use(module, backend):
    for child in module.modules():
        if isinstance(child, SparseWeight):
            child.backend = backend
    return module


def states(layer, *batch, dtype=torch.float64):
    """Random states to begin with, as the layer takes them."""
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    hidden = torch.randn(rows, *batch, layer.proj_size or H, dtype=dtype, requires_grad=True)
    if layer.mode != "LSTM":
        return hidden
    return hidden, torch.randn(rows, *batch, H, dtype=dtype, requires_grad=True)


def leaves(output):
    """Every tensor of an output, padded where it is packed."""
    if isinstance(output, PackedSequence):
        return [pad_packed_sequence(output)[0]]
    return [output] if isinstance(output, torch.Tensor) else [leaf for part in output for leaf in leaves(part)]


def gradients(outputs, layer, masks, *inputs):
    """Gradients of a loss that reads every output: to inputs, to kept weights, to what is dense, by name."""
    for tensor in [*inputs, *layer.parameters()]:
        tensor.grad = None
    weights = [torch.linspace(-1, 2, leaf.numel(), dtype=leaf.dtype).reshape(leaf.shape) for leaf in outputs]
    torch.stack([(leaf * weight).sum() for leaf, weight in zip(outputs, weights, strict=True)]).sum().backward()
    found = {f"input {number}": tensor.grad for number, tensor in enumerate(inputs)}
    for name, parameter in layer.named_parameters():
        name = name.removesuffix(".values")
        grad = parameter.grad
        found[name] = grad[torch.from_numpy(masks[name])] if grad.ndim == 2 and name in masks else grad
    return found


def same(found, expected, dtype=torch.float64):
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def agree(dense, sparse, masks, call, *inputs, dtype=torch.float64):
    """Both give the same outputs and the same gradients."""
    expected, found = leaves(call(dense)), leaves(call(sparse))
    same(found, expected, dtype)
    by_dense = gradients(expected, dense, masks, *inputs)
    by_sparse = gradients(found, sparse, masks, *inputs)
    assert by_sparse.keys() == by_dense.keys()
    same([by_sparse[name] for name in by_dense], by_dense.values(), dtype)


@every_kind
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_outputs_states_and_gradients_are_those_of_the_masked_layer(kind, options, backend, dtype):
    dense, sparse, masks = pair(kind, backend=backend, dtype=dtype, **OPTIONS[options])
    shape = (B, T, IN) if dense.batch_first else (T, B, IN)
    inputs, start = torch.randn(shape, dtype=dtype, requires_grad=True), states(dense, B, dtype=dtype)
    given = [start] if isinstance(start, torch.Tensor) else list(start)
    agree(dense.eval(), sparse.eval(), masks, lambda layer: layer(inputs, start), inputs, *given, dtype=dtype)


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_states_begin_at_zero(kind, backend):
    dense, sparse, masks = pair(kind, backend=backend, num_layers=2)
    inputs = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_example_needs_no_batch(kind, backend, batch_first):
    dense, sparse, masks = pair(kind, backend=backend, bidirectional=True, batch_first=batch_first)
    inputs, start = torch.randn(T, IN, dtype=torch.float64, requires_grad=True), states(dense)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)
    agree(dense, sparse, masks, lambda layer: layer(inputs, start), inputs)


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
@pytest.mark.parametrize("lengths", [[4, 4, 2, 1], [1, 3, 1, 4]])
def test_packed_sequences_of_any_length(kind, backend, lengths):
    dense, sparse, masks = pair(kind, backend=backend, num_layers=2, bidirectional=True)
    inputs, start = torch.randn(T, 4, IN, dtype=torch.float64, requires_grad=True), states(dense, 4)

    def call(layer):
        packed = pack_padded_sequence(inputs, torch.tensor(lengths), enforce_sorted=False)
        return [layer(packed, start), layer(packed)]

    agree(dense, sparse, masks, call, inputs)
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), enforce_sorted=False)
    assert pad_packed_sequence(sparse(packed)[0])[1].tolist() == lengths


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
@pytest.mark.parametrize("packed", [False, True])
def test_one_seed_drops_the_same_activations(kind, backend, packed):
    dense, sparse, masks = pair(kind, backend=backend, num_layers=3, bidirectional=True, dropout=0.5)
    padded = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)

    def call(layer):
        torch.manual_seed(7)
        return layer(pack_padded_sequence(padded, torch.tensor([4, 2, 1])) if packed else padded)

    agree(dense.train(), sparse.train(), masks, call, padded)
    assert not torch.equal(leaves(call(sparse))[0], leaves(call(sparse.eval()))[0])


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_weights_without_and_with_all_connections(kept, backend, dtype):
    layer = nn.LSTM(IN, H, proj_size=4)
    masks = masks_of(layer) | {"weight_hh_l0": np.full((4 * H, 4), kept), "weight_ih_l0": np.full((4 * H, IN), kept)}
    dense, sparse, masks = pair("lstm projected", masks, backend, dtype)
    inputs = torch.randn(T, B, IN, dtype=dtype, requires_grad=True)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs, dtype=dtype)


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_a_surviving_zero_is_a_survivor(kind, backend):
    dense, _, masks = pair(kind)
    with torch.no_grad():
        for name in masks:
            dense.get_parameter(name).zero_()
    sparse = use(sparse_form(dense, masks), backend)
    inputs = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)
    assert gradients(leaves(sparse(inputs)), sparse, masks)["weight_ih_l0"].abs().sum() > 0


@pytest.mark.parametrize("masked", [["weight_hh_l0"], ["weight_ih_l0_reverse", "weight_hr_l0"], []])
def test_weights_without_a_mask_stay_parameters(masked):
    layer = nn.LSTM(IN, H, proj_size=4, bidirectional=True)
    masks = {name: mask for name, mask in masks_of(layer).items() if name in masked}
    dense, sparse, masks = pair("lstm projected", masks, bidirectional=True)
    assert {name for name, child in sparse.named_children() if isinstance(child, SparseWeight)} == set(masked)
    plain = {name for name, _ in sparse.named_parameters(recurse=False)}
    assert plain == {name for name, _ in dense.named_parameters()} - set(masked)
    inputs = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)


def test_backends_of_one_layer_may_differ():
    dense, sparse, masks = pair("lstm", num_layers=2)
    for name in ("weight_hh_l0", "weight_ih_l1"):
        getattr(sparse, name).backend = "dense"
    inputs = torch.randn(T, B, IN, dtype=torch.float64, requires_grad=True)
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)


@every_kind
@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_training_takes_the_steps_of_masked_training(kind, backend):
    dense, sparse, masks = pair(kind, backend=backend, num_layers=2, bidirectional=True)
    dense = hold_mask(copy.deepcopy(dense), Mask(masks))
    for layer in (dense, sparse):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(5):
            torch.manual_seed(step)
            optimizer.zero_grad()
            (layer(torch.randn(T, B, IN, dtype=torch.float64))[0] - 1).square().mean().backward()
            optimizer.step()
    state = sparse.state_dict()
    same([state[name] for name in dense.state_dict()], dense.state_dict().values())


@every_kind
def test_state_dicts_travel_both_ways(kind):
    dense, sparse, masks = pair(kind, num_layers=2, bidirectional=True)
    state = sparse.state_dict()
    assert state.keys() == dense.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in dense.state_dict().items())
    torch.manual_seed(1)
    other = apply_mask(KINDS[kind](num_layers=2, bidirectional=True).double(), Mask(masks))
    sparse.load_state_dict(other.state_dict(), strict=True)
    dense.load_state_dict(sparse.state_dict(), strict=True)
    assert all(torch.equal(dense.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    inputs = torch.randn(T, B, IN, dtype=torch.float64)
    same(leaves(sparse(inputs)), leaves(other(inputs)))


@every_kind
def test_a_deep_copy_is_independent(kind):
    _, sparse, _ = pair(kind)
    duplicate, inputs = copy.deepcopy(sparse), torch.randn(T, B, IN, dtype=torch.float64)
    before = leaves(sparse(inputs))
    same(leaves(duplicate(inputs)), before)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.add_(1)
    assert not torch.equal(duplicate(inputs)[0], before[0])
    assert all(torch.equal(one, other) for one, other in zip(leaves(sparse(inputs)), before, strict=True))


def test_inputs_of_any_strides_are_read():
    dense, sparse, masks = pair("gru")
    inputs = torch.randn(2 * IN, B, T, dtype=torch.float64)[::2].permute(2, 1, 0).requires_grad_()
    agree(dense, sparse, masks, lambda layer: layer(inputs), inputs)


@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_an_empty_batch_and_a_single_step(backend):
    dense, sparse, _ = pair("lstm", backend=backend)
    for shape in ((T, 0, IN), (1, B, IN), (1, IN)):
        inputs = torch.randn(shape, dtype=torch.float64)
        same(leaves(sparse(inputs)), leaves(dense(inputs)))


@every_kind
def test_hooks_see_every_product_of_every_weight(kind):
    dense, sparse, masks = pair(kind, backend="dense", num_layers=2, bidirectional=True)
    inputs, seen = torch.randn(T, B, IN, dtype=torch.float64), []
    for name in masks:
        part = sparse.get_submodule(name)
        part.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, len(args[0]))))
    same(leaves(sparse(inputs)), leaves(dense(inputs)))
    once = [(name, T * B) for name in masks if "_ih_" in name]
    each = [(name, B) for name in masks if "_ih_" not in name] * T
    assert sorted(seen) == sorted(once + each)


def test_modules_that_flatten_their_parameters_need_no_change():
    dense, sparse, _ = pair("lstm")
    assert isinstance(sparse, SparseRecurrent)
    sparse.flatten_parameters()
    inputs = torch.randn(T, B, IN, dtype=torch.float64)
    same(leaves(sparse(inputs)), leaves(dense(inputs)))


@pytest.mark.parametrize("backend", ["dense", "csr"])
@pytest.mark.parametrize(
    ("shape", "start", "message"),
    [
        ((T, B, IN + 1), None, "takes steps of 5 inputs"),
        ((T, IN + 1), None, "takes steps of 5 inputs"),
        ((0, B, IN), None, "takes steps of 5 inputs"),
        ((IN,), None, "2 or 3 dimensions"),
        ((T, B, IN), (1, B + 1, H), "begins with states of the shapes"),
        ((T, IN), (1, B, H), "begins with states of the shapes"),
    ],
)
def test_shapes_that_do_not_fit_are_named(backend, shape, start, message):
    _, sparse, _ = pair("gru", backend=backend)
    start = None if start is None else torch.zeros(start, dtype=torch.float64)
    with pytest.raises(BadValue, match=message):
        sparse(torch.zeros(shape, dtype=torch.float64), start)


def test_an_lstm_needs_both_states():
    _, sparse, _ = pair("lstm")
    with pytest.raises(BadValue, match="begins with states of the shapes"):
        sparse(torch.zeros(T, B, IN, dtype=torch.float64), torch.zeros(1, B, H, dtype=torch.float64))


def test_masks_that_no_weight_fits_are_named():
    layer = nn.GRU(IN, H)
    with pytest.raises(UnknownName, match="did you mean 'weight_hh_l0'"):
        sparse_form(layer, {"weight_hh_l9": np.ones((3 * H, H), bool)})
    with pytest.raises(NoSparseForm, match="bias_hh_l0"):
        sparse_form(layer, {"bias_hh_l0": np.ones(3 * H, bool)})


def test_the_layer_itself_is_left_as_it_was():
    layer = nn.LSTM(IN, H)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    sparse_form(layer, masks_of(layer))
    assert all(torch.equal(layer.state_dict()[name], tensor) for name, tensor in before.items())
