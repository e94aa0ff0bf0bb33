"""The sparse form of attention against masked dense attention, alone and inside transformers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from pruning.errors import BadValue, MaskMismatch, UnknownName
from pruning.mask import Mask
from pruning.sparse.choosing.choosing import sparse_parts
from pruning.sparse.forms import sparse_form
from pruning.sparse.layers import LAYERS, NoSparseForm
from pruning.sparse.layers.attention import avoid_fused_encoder_kernels
from pruning.sparse.weights.weight import SparseWeight, named_as_dense
from pruning.torch_modules import apply_mask, hold_mask, prunable

L, S, B, E, HEADS = 4, 5, 3, 8, 2
FORMS = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 5, "vdim": 3},
    "other widths without bias, batch first": {"kdim": 8, "vdim": 3, "bias": False, "batch_first": True},
    "learnt key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True, "batch_first": True},
    "both keys": {"add_bias_kv": True, "add_zero_attn": True},
}
BACKENDS = [("dense", torch.float64), ("csr", torch.float64), ("bags", torch.float32), ("csr", torch.float32)]
HIDDEN = torch.zeros(B, S, dtype=torch.bool)
HIDDEN[0, 3:] = HIDDEN[2, 1:2] = True
CAUSAL = torch.ones(L, S, dtype=torch.bool).triu(1)
EACH = (torch.arange(B * HEADS * L * S) % 3 == 1).reshape(B * HEADS, L, S)
EACH[:, :, 0] = False
CALLS = {
    "no mask": {},
    "padding": {"key_padding_mask": HIDDEN},
    "float padding": {"key_padding_mask": HIDDEN.double().mul(-2)},
    "mask": {"attn_mask": CAUSAL},
    "float mask": {"attn_mask": torch.linspace(-1, 1, L * S, dtype=torch.float64).reshape(L, S)},
    "a mask for each head": {"attn_mask": EACH},
    "a float mask for each head": {"attn_mask": EACH.double().mul(-3)},
    "mask and padding": {"attn_mask": CAUSAL, "key_padding_mask": HIDDEN},
    "a mask for each head and padding": {"attn_mask": CAUSAL.expand(B * HEADS, L, S), "key_padding_mask": HIDDEN},
    "causal": {"attn_mask": CAUSAL, "is_causal": True},
    "causal and padding": {"attn_mask": CAUSAL, "is_causal": True, "key_padding_mask": HIDDEN},
}
SHOWN = {
    "none": {"need_weights": False},
    "mean": {"need_weights": True},
    "each": {"need_weights": True, "average_attn_weights": False},
}
# PyTorch says so once of the dense encoder in eval mode.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
every_form = pytest.mark.parametrize("form", FORMS)
every_view = pytest.mark.parametrize("shown", SHOWN)


def masks_of(model, density=0.5, seed=0):
    """Random masks of every prunable weight, each with an empty row."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(shape) < density for name, shape in prunable(model).items()}
    for mask in masks.values():
        mask[1] = False
    return masks


def use(module, backend):
    for child in module.modules():
        if isinstance(child, SparseWeight):
            child.backend = backend
    return module


def pair(masks=None, backend="csr", dtype=torch.float64, **options):
    """Masked dense attention and its sparse form; biases are random too."""
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(E, HEADS, **options).to(dtype)
    randomize(layer)
    masks = masks_of(layer) if masks is None else masks
    apply_mask(layer, Mask(masks))
    return layer, use(sparse_form(layer, masks), backend), masks


def randomize(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)


def inputs_of(layer, dtype=torch.float64):
    """Query, key and value, all different, in the layout of the layer."""
    widths = ((L, E), (S, layer.kdim), (S, layer.vdim))
    shapes = [(B, steps, width) if layer.batch_first else (steps, B, width) for steps, width in widths]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def replaced(model, masks, backend="csr"):
    """A copy of a model whose masked layers are sparse, as a caller makes it."""
    model = copy.deepcopy(model)
    kinds = tuple(entry.value[0] for entry in LAYERS)
    for path, module in list(model.named_modules()):
        own = {name.removeprefix(f"{path}."): mask for name, mask in masks.items() if name.startswith(f"{path}.")}
        if own and type(module) in kinds:
            model.set_submodule(path, sparse_form(module, own))
    avoid_fused_encoder_kernels(model)
    return use(model, backend)


def gradients(outputs, model, masks, inputs):
    for tensor in [*inputs, *model.parameters()]:
        tensor.grad = None
    weights = [torch.linspace(-1, 2, output.numel(), dtype=output.dtype).reshape(output.shape) for output in outputs]
    torch.stack([(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]).sum().backward()
    found = {f"input {number}": tensor.grad for number, tensor in enumerate(inputs)}
    for name, parameter in model.named_parameters():
        name, grad = named_as_dense(name.removesuffix(".values")), parameter.grad
        if grad is not None and grad.ndim == 2 and name in masks:
            grad = grad[torch.from_numpy(masks[name])]
        found[name] = grad
    return found


def same(found, expected, dtype=torch.float64):
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape and one.dtype == other.dtype
            assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def agree(dense, sparse, masks, call, inputs, dtype=torch.float64):
    """Both give the same outputs and the same gradients."""
    expected, found = [x for x in call(dense) if x is not None], [x for x in call(sparse) if x is not None]
    same(found, expected, dtype)
    by_dense, by_sparse = gradients(expected, dense, masks, inputs), gradients(found, sparse, masks, inputs)
    assert by_sparse.keys() == by_dense.keys()
    same([by_sparse[name] for name in by_dense], by_dense.values(), dtype)


@every_form
@every_view
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_outputs_weights_and_gradients_are_those_of_the_masked_layer(form, shown, backend, dtype):
    dense, sparse, masks = pair(backend=backend, dtype=dtype, **FORMS[form])
    inputs = inputs_of(dense, dtype)
    agree(dense, sparse, masks, lambda layer: layer(*inputs, **SHOWN[shown]), inputs, dtype)


@every_view
@pytest.mark.parametrize("form", ["plain", "batch first", "both keys"])
@pytest.mark.parametrize("call", [call for call in CALLS if call != "causal"])
def test_masks_of_every_kind(call, form, shown):
    dense, sparse, masks = pair(**FORMS[form])
    inputs = inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(*inputs, **CALLS[call], **SHOWN[shown]), inputs)


@every_view
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_causal_hint(shown, batch_first):
    dense, sparse, masks = pair(batch_first=batch_first)
    inputs = inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(*inputs, **CALLS["causal"], **SHOWN[shown]), inputs)
    mask = CALLS["mask"]["attn_mask"]
    hinted, plain = (sparse(*inputs, attn_mask=mask, is_causal=hint, **SHOWN[shown])[0] for hint in (True, False))
    same([hinted], [plain])


@every_view
@pytest.mark.parametrize("form", [form for form in FORMS if "widths" not in form])
@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_inputs_that_are_one_tensor(form, shown, backend):
    dense, sparse, masks = pair(backend=backend, **FORMS[form])
    query, key, _ = inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(query, query, query, **SHOWN[shown]), [query])
    agree(dense, sparse, masks, lambda layer: layer(query, key, key, **SHOWN[shown]), [query, key])


@every_form
@every_view
def test_one_example_needs_no_batch(form, shown):
    dense, sparse, masks = pair(**FORMS[form])
    inputs = [torch.randn(n, w, dtype=torch.float64) for n, w in ((L, E), (S, dense.kdim), (S, dense.vdim))]
    inputs = [each.requires_grad_() for each in inputs]
    for call in ({}, {"key_padding_mask": HIDDEN[0]}, {"attn_mask": EACH[:HEADS]}, {"attn_mask": CAUSAL}):
        agree(dense, sparse, masks, lambda layer, call=call: layer(*inputs, **call, **SHOWN[shown]), inputs)


@every_view
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_seed_drops_the_same_weights(shown, batch_first):
    dense, sparse, masks = pair(dropout=0.5, batch_first=batch_first)
    inputs = inputs_of(dense)

    def call(layer):
        torch.manual_seed(3)
        return layer(*inputs, **SHOWN[shown])

    agree(dense.train(), sparse.train(), masks, call, inputs)
    dropped = call(sparse)[0]
    agree(dense.eval(), sparse.eval(), masks, call, inputs)
    assert not torch.equal(dropped, call(sparse)[0])


@every_view
@pytest.mark.parametrize("batch_first", [False, True])
def test_inference_without_gradients_is_the_same(shown, batch_first):
    dense, sparse, _ = pair(batch_first=batch_first)
    query = inputs_of(dense)[0]
    with torch.no_grad():
        for call in ({}, {"key_padding_mask": HIDDEN[:, :L]}):
            expected = dense.eval()(query, query, query, **call, **SHOWN[shown])
            same(sparse.eval()(query, query, query, **call, **SHOWN[shown]), expected)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(("backend", "dtype"), BACKENDS)
def test_weights_without_and_with_all_connections(kept, backend, dtype):
    masks = {"in_proj_weight": np.full((3 * E, E), kept), "out_proj.weight": np.full((E, E), kept)}
    dense, sparse, masks = pair(masks, backend, dtype)
    inputs = inputs_of(dense, dtype)
    agree(dense, sparse, masks, lambda layer: layer(*inputs), inputs, dtype)
    agree(dense, sparse, masks, lambda layer: layer(inputs[0], inputs[0], inputs[0]), inputs[:1], dtype)


@pytest.mark.parametrize("backend", ["dense", "csr"])
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_projection_without_connections(backend, dead):
    masks = masks_of(nn.MultiheadAttention(E, HEADS))
    masks["in_proj_weight"][dead * E : (dead + 1) * E] = False
    dense, sparse, masks = pair(masks, backend)
    inputs = inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(*inputs), inputs)


@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_a_surviving_zero_is_a_survivor(backend):
    dense, _, masks = pair()
    with torch.no_grad():
        dense.out_proj.weight.zero_()
        dense.in_proj_weight[::2].zero_()
    sparse, inputs = use(sparse_form(dense, masks), backend), inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(*inputs), inputs)
    assert (gradients([sparse(*inputs)[0]], sparse, masks, inputs)["out_proj.weight"] != 0).all()


@pytest.mark.parametrize("masked", ["in_proj_weight", "out_proj.weight", "q_proj_weight", "v_proj_weight"])
def test_weights_without_a_mask_stay_parameters(masked):
    options = {} if masked in ("in_proj_weight", "out_proj.weight") else FORMS["other widths"]
    masks = masks_of(nn.MultiheadAttention(E, HEADS, **options))
    dense, sparse, masks = pair({masked: masks[masked]}, **options)
    assert list(sparse_parts(sparse)) == [masked]
    plain = {name for name, _ in sparse.named_parameters() if not name.endswith(".values")}
    assert plain == {name for name, _ in dense.named_parameters()} - {masked}
    inputs = inputs_of(dense)
    agree(dense, sparse, masks, lambda layer: layer(*inputs), inputs)


@pytest.mark.parametrize("form", ["plain", "other widths"])
def test_hooks_see_products_of_every_weight(form):
    dense, sparse, masks = pair(backend="dense", **FORMS[form])
    inputs, seen = inputs_of(dense), set()
    for name, part in sparse_parts(sparse).items():
        assert isinstance(part, nn.Module)
        part.register_forward_pre_hook(lambda _, args, name=name: seen.add(name))
    agree(dense, sparse, masks, lambda layer: layer(*inputs), inputs)
    assert seen == set(masks)


@pytest.mark.parametrize("form", ["plain", "other widths", "both keys"])
@pytest.mark.parametrize("backend", ["dense", "csr"])
def test_training_takes_the_steps_of_masked_training(form, backend):
    dense, sparse, masks = pair(backend=backend, **FORMS[form])
    dense = hold_mask(copy.deepcopy(dense), Mask(masks))
    for layer in (dense, sparse):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for step in range(5):
            torch.manual_seed(step)
            optimizer.zero_grad()
            (layer(*inputs_of(dense))[0] - 1).square().mean().backward()
            optimizer.step()
    state = sparse.state_dict()
    same([state[name] for name in dense.state_dict()], dense.state_dict().values())


@every_form
def test_state_dicts_travel_both_ways(form):
    dense, sparse, masks = pair(**FORMS[form])
    state = sparse.state_dict()
    assert state.keys() == dense.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in dense.state_dict().items())
    other = copy.deepcopy(dense)
    randomize(other)
    apply_mask(other, Mask(masks))
    sparse.load_state_dict(other.state_dict(), strict=True)
    dense.load_state_dict(sparse.state_dict(), strict=True)
    assert all(torch.equal(dense.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    inputs = inputs_of(dense)
    same(sparse(*inputs), other(*inputs))


@every_form
def test_a_deep_copy_is_independent(form):
    dense, sparse, _ = pair(**FORMS[form])
    duplicate, inputs = copy.deepcopy(sparse), inputs_of(dense)
    before = sparse(*inputs)[0]
    assert torch.equal(duplicate(*inputs)[0], before)
    randomize(duplicate)
    assert not torch.equal(duplicate(*inputs)[0], before)
    assert torch.equal(sparse(*inputs)[0], before)


ENCODERS = {
    "batch first": {"batch_first": True},
    "steps first": {},
    "norm first": {"batch_first": True, "norm_first": True},
    "gelu": {"batch_first": True, "activation": "gelu"},
    "no bias": {"batch_first": True, "bias": False},
}
LEFT_DENSE = {
    "nothing": (),
    "the first attention": ("0.self_attn",),
    "the first layer": ("layers.0.",),
    "all attention": ("self_attn",),
    "all linear layers": ("linear",),
}


def encoder(options, left_dense=()):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(E, HEADS, 12, dropout=0.0, **options)
    nested = options.get("batch_first", False) and not options.get("norm_first") and options.get("bias", True)
    model = nn.TransformerEncoder(block, 2, enable_nested_tensor=nested).double()
    randomize(model)
    masks = {name: mask for name, mask in masks_of(model).items() if not any(part in name for part in left_dense)}
    apply_mask(model, Mask(masks))
    return model, replaced(model, masks), masks


@pytest.mark.parametrize("options", ENCODERS)
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_encoders_in_eval_mode(options, gradient, padded):
    dense, sparse, _ = encoder(ENCODERS[options])
    inputs = torch.randn((B, L, E) if "batch_first" in ENCODERS[options] else (L, B, E), dtype=torch.float64)
    hidden = torch.arange(L) >= torch.tensor([[4], [2], [3]])
    seen = ~hidden if "batch_first" in ENCODERS[options] else ~hidden.t()
    with torch.set_grad_enabled(gradient):
        expected = dense.eval()(inputs, src_key_padding_mask=hidden if padded else None)
        found = sparse.eval()(inputs, src_key_padding_mask=hidden if padded else None)
    # PyTorch's kernel of nested tensors writes 0 where the padding is, and its slow path does not.
    same([found[seen]], [expected[seen]])
    assert padded or torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("left", LEFT_DENSE)
@pytest.mark.parametrize("causal", [False, True])
def test_encoders_with_some_dense_layers(left, causal):
    dense, sparse, masks = encoder({"batch_first": True}, LEFT_DENSE[left])
    inputs = torch.randn(B, L, E, dtype=torch.float64)
    hidden = torch.arange(L) >= torch.tensor([[4], [2], [3]])
    mask = {"mask": torch.ones(L, L, dtype=torch.bool).triu(1), "is_causal": True} if causal else {}
    for call in ({"src_key_padding_mask": hidden, **mask}, mask):
        with torch.no_grad():
            same([sparse.eval()(inputs, **call)[~hidden]], [dense.eval()(inputs, **call)[~hidden]])
    agree(dense.train(), sparse.train(), masks, lambda model: [model(inputs, **mask)], [])


def test_an_encoder_layer_alone_runs_in_both_modes():
    torch.manual_seed(0)
    dense = nn.TransformerEncoderLayer(E, HEADS, 12, batch_first=True).double()
    masks = masks_of(dense)
    apply_mask(dense, Mask(masks))
    sparse = replaced(dense, masks)
    inputs = torch.randn(B, L, E, dtype=torch.float64)
    with torch.no_grad():
        same([sparse.eval()(inputs)], [dense.eval()(inputs)])
        same([copy.deepcopy(sparse)(inputs)], [dense.eval()(inputs)])
    assert sparse.state_dict().keys() == dense.state_dict().keys()


def test_attention_put_into_an_encoder_layer_by_hand_needs_no_more():
    torch.manual_seed(0)
    dense = nn.TransformerEncoderLayer(E, HEADS, 12, batch_first=True).double().eval()
    masks = masks_of(dense.self_attn)
    apply_mask(dense.self_attn, Mask(masks))
    sparse = copy.deepcopy(dense)
    sparse.set_submodule("self_attn", use(sparse_form(dense.self_attn, masks), "csr"))
    inputs = torch.randn(B, L, E, dtype=torch.float64)
    for gradient in (False, True):
        with torch.set_grad_enabled(gradient):
            same([sparse(inputs)], [dense(inputs)])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_decoder_layers(batch_first, norm_first, mode):
    torch.manual_seed(0)
    dense = nn.TransformerDecoderLayer(E, HEADS, 12, 0.0, batch_first=batch_first, norm_first=norm_first).double()
    randomize(dense)
    masks = masks_of(dense)
    apply_mask(dense, Mask(masks))
    sparse = replaced(dense, masks)
    shapes = [(B, L, E), (B, S, E)] if batch_first else [(L, B, E), (S, B, E)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.ones(L, L, dtype=torch.bool).triu(1)

    def call(model):
        model.train(mode == "train")
        return [model(*inputs, tgt_mask=mask, tgt_is_causal=True, memory_key_padding_mask=HIDDEN)]

    agree(dense, sparse, masks, call, inputs)


def test_nested_tensors_are_refused_with_the_way_out():
    _, sparse, _ = pair(batch_first=True)
    nested = torch.nested.nested_tensor([torch.zeros(2, E), torch.zeros(1, E)], dtype=torch.float64)
    with pytest.raises(BadValue, match="call avoid_fused_encoder_kernels"):
        sparse(nested, nested, nested)


def test_a_model_without_sparse_layers_keeps_its_kernels():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, HEADS, 12, batch_first=True), 1)
    avoid_fused_encoder_kernels(model)
    assert model.use_nested_tensor and model.layers[0].activation_relu_or_gelu


def test_inputs_of_any_strides_are_read():
    dense, sparse, masks = pair()
    inputs = [torch.randn(2 * E, B, n, dtype=torch.float64)[::2].permute(2, 1, 0).requires_grad_() for n in (L, S, S)]
    mask = torch.randn(S, L, B * HEADS, dtype=torch.float64).permute(2, 1, 0)
    agree(dense, sparse, masks, lambda layer: layer(*inputs, attn_mask=mask), inputs)


def zeros(*shape, dtype=torch.float64):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ([zeros(L, B, E + 1), zeros(S, B, E), zeros(S, B, E)], {}, "widths 8, 8 and 8"),
        ([zeros(L, B, E), zeros(S, B, E), zeros(L, B, E)], {}, "of one batch"),
        ([zeros(L, B, E), zeros(S, 2, E), zeros(S, 2, E)], {}, "of one batch"),
        ([zeros(L, B, E), zeros(S, E), zeros(S, E)], {}, "of one batch"),
        ([zeros(E), zeros(E), zeros(E)], {}, "of one batch"),
        ([zeros(L, B, E)] * 3, {"attn_mask": zeros(L, S)}, r"expected \(4, 4\) or \(6, 4, 4\)"),
        ([zeros(L, B, E)] * 3, {"key_padding_mask": zeros(L, B)}, r"expected \(3, 4\)"),
        ([zeros(L, B, E)] * 3, {"attn_mask": zeros(L, L, dtype=torch.int64)}, "not torch.int64"),
        ([zeros(L, B, E)] * 3, {"is_causal": True}, "attn_mask, which is missing"),
    ],
)
def test_arguments_that_do_not_fit_are_named(inputs, options, message):
    _, sparse, _ = pair()
    with pytest.raises(BadValue, match=message):
        sparse(*inputs, **options)


def test_masks_that_no_weight_fits_are_named():
    layer = nn.MultiheadAttention(E, HEADS)
    with pytest.raises(UnknownName, match="did you mean 'out_proj.weight'"):
        sparse_form(layer, {"out_proj.wieght": np.ones((E, E), bool)})
    with pytest.raises(NoSparseForm, match="in_proj_bias"):
        sparse_form(layer, {"in_proj_bias": np.ones(3 * E, bool)})
    with pytest.raises(MaskMismatch, match="shape"):
        sparse_form(layer, {"in_proj_weight": np.ones((E, E), bool)})
