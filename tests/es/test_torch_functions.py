"""Torch modules and losses as JAX functions: equal to torch's, pure, and refused where they cannot be."""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from es.translation.functions import to_jax, torch_batch_function, torch_network
from es.translation.randomness import noisy_layers
from pruning.errors import BadValue


class Code(nn.Module):
    """A module whose forward is a plain function."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x), inplace=True)
        x = x + self.norm(self.conv(x))
        return self.head(x.mean(dim=(2, 3)))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight
        self.scale = nn.Buffer(torch.full((1,), 0.5))
        self.shift = nn.Buffer(torch.tensor([1.0, 2.0, 3.0, 4.0]), persistent=False)
        self.attribute = torch.tensor([0.5, 1.0, 1.5, 2.0])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(ids) * self.scale + self.shift * self.attribute)


def views(_: Code, x: torch.Tensor) -> torch.Tensor:
    x = torch.einsum("bij,bkj->bik", x.view(2, 3, 4), x.reshape(2, 3, 4)).permute(0, 2, 1).contiguous()
    first, second = x.flatten(1).split([4, 5], dim=1)
    return torch.cat([first, second[:, 1:].roll(1, 1).flip(1), x.transpose(1, 2)[:, 0]], dim=1) / math.sqrt(x.size(1))


def in_place(_: Code, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(2, 5, device=x.device)
    out[:, 1:4] = x
    out[0] = out[0] * 2
    out[:, 0].fill_(3.0)
    out[1].zero_()
    row = torch.empty(2, 3)
    row.copy_(x[0])
    x[x > 0] = 0.0
    x.mul_(2).add_(row)
    return torch.cat([out, x, row.unsqueeze_(0).squeeze_(0)], 1)


def numbers(_: Code, x: torch.Tensor) -> torch.Tensor:
    mask = torch.triu(torch.ones(3, 3, dtype=torch.bool, device=x.device), 1)
    kept = x.masked_fill(mask, float("-inf")).softmax(-1)
    hot = F.one_hot(x.argmax(1), 3).float() @ torch.arange(3.0)
    return kept.sum(0) + hot + x.long().double().mean() + x.topk(2).values.sum() + x.std(1) + F.normalize(x).norm(dim=1)


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm)


def encoder(**settings: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **settings)


def activations() -> nn.Module:
    kinds = (nn.GELU(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.Mish(), nn.LeakyReLU(), nn.PReLU(), nn.Hardswish())
    return nn.Sequential(nn.Linear(4, 4), *kinds, nn.GELU("tanh"), nn.Tanh(), nn.Softmax(1), nn.LogSoftmax(1))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "mlp": (mlp, lambda: torch.randn(5, 4)),
    "cnn": (cnn, lambda: torch.randn(2, 1, 12, 12)),
    "batch norm": (batch_norm, lambda: torch.randn(2, 3, 6, 6)),
    "layer norm": (lambda: nn.LayerNorm([3, 5]), lambda: torch.randn(2, 3, 5)),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda: torch.randn(2, 4, 5, 5)),
    "attention": (
        lambda: Code(lambda m, x: m.a(x, x, x), a=nn.MultiheadAttention(8, 2, batch_first=True)),
        lambda: torch.randn(2, 3, 8),
    ),
    "attention without weights": (
        lambda: Code(lambda m, x: m.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(8, 2)),
        lambda: torch.randn(2, 3, 8),
    ),
    "encoder": (lambda: encoder(batch_first=True), lambda: torch.randn(2, 3, 8)),
    "encoder, norm first": (lambda: encoder(norm_first=True, activation="gelu"), lambda: torch.randn(2, 3, 8)),
    "lstm": (lambda: nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), lambda: torch.randn(3, 2, 4)),
    "gru": (lambda: nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), lambda: torch.randn(3, 2, 4)),
    "rnn": (lambda: nn.RNN(4, 3, 2, batch_first=True, bidirectional=True), lambda: torch.randn(3, 2, 4)),
    "embedding": (lambda: nn.Embedding(9, 4, padding_idx=0), lambda: torch.randint(0, 9, (3, 5))),
    "residual": (Residual, lambda: torch.randn(2, 3, 6, 6)),
    "grouped convolution": (
        lambda: nn.Conv2d(4, 8, 3, stride=2, dilation=2, groups=2, padding=1),
        lambda: torch.randn(2, 4, 9, 9),
    ),
    "transposed convolution": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        lambda: torch.randn(2, 4, 4, 4),
    ),
    "activations": (activations, lambda: torch.randn(3, 4)),
    "tied weights and buffers": (Tied, lambda: torch.randint(0, 7, (2, 3))),
    "several inputs": (
        lambda: Code(lambda m, x, y: m.f(x, y), f=nn.Bilinear(3, 4, 5)),
        lambda: (torch.randn(2, 3), torch.randn(2, 4)),
    ),
    "views": (lambda: Code(views), lambda: torch.randn(2, 12)),
    "in-place writes": (lambda: Code(in_place), lambda: torch.randn(2, 3)),
    "types and constructors": (lambda: Code(numbers), lambda: torch.randn(3, 3)),
    "half precision": (lambda: nn.Linear(4, 3).bfloat16(), lambda: torch.randn(2, 4).bfloat16()),
    "double precision": (lambda: nn.Linear(4, 3).double(), lambda: torch.randn(2, 4).double()),
}


def named(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    assert pairs
    for have, want in pairs:
        have, want = np.asarray(have, np.float64), np.asarray(want, np.float64)
        assert have.shape == want.shape
        size = np.sqrt(np.mean(want**2)) + 1e-9
        assert np.sqrt(np.mean((have - want) ** 2)) <= tolerance * size


@pytest.mark.parametrize("case", CASES)
def test_a_network_equals_torch_alone_and_over_a_population(case: str):
    torch.manual_seed(0)
    build, example = CASES[case]
    module, inputs = build(), example()
    network = torch_network(module, inputs)
    params, arrays = to_jax(named(module)), to_jax(inputs)
    others = [jax.tree.map(lambda a, k=k: a + (k * 0.1 if a.dtype.kind == "f" else 0), params) for k in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *others) if params else {}
    population = jax.jit(jax.vmap(network.apply, (0 if params else None, None), axis_size=2))(stacked, arrays)
    tolerance = 2e-2 if case == "half precision" else 1e-5
    for index, member in enumerate(others):
        copied = copy.deepcopy(module).eval()
        for name, tensor in named(copied).items():
            tensor.data.copy_(torch.from_numpy(np.array(member[name], dtype=np.float32)))
        with torch.no_grad():
            given = copy.deepcopy(inputs)
            expected = to_jax(copied(*given) if isinstance(given, tuple) else copied(given))
        close(jax.tree.map(lambda a, i=index: a[i], population), expected, tolerance)


def test_a_network_maps_over_parameters_and_inputs_at_once():
    module, x = mlp(), torch.randn(5, 4)
    network, params = torch_network(module, x), to_jax(named(module))
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    batches = jax.random.normal(jax.random.key(0), (2, 7, 4))
    both = jax.vmap(network.apply)(stacked, batches)
    close(both[1], network.apply(jax.tree.map(lambda a: 2 * a, params), batches[1]))
    close(jax.vmap(network.apply, (None, 0))(params, batches)[1], network.apply(params, batches[1]))


@pytest.mark.parametrize("case", ["cnn", "attention", "embedding", "residual"])
def test_gradients_equal_torch(case: str):
    torch.manual_seed(1)
    module, inputs = CASES[case][0]().eval(), CASES[case][1]()
    network = torch_network(module, inputs)

    def loss(evolved: Any) -> jax.Array:
        outputs = network.apply({**to_jax(named(module)), **evolved}, to_jax(inputs))
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs))  # pyright: ignore[reportReturnType]

    found = jax.jit(jax.grad(loss))({name: to_jax(named(module)[name]) for name in network.evolved})
    outputs = module(inputs)
    torch.stack([leaf.sin().sum() for leaf in jax.tree.leaves(outputs)]).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        close(found[name], to_jax(parameter.grad), 1e-4)


def test_names_are_the_modules_own_and_frozen_parameters_do_not_evolve():
    module = Tied()
    assert torch_network(module, torch.zeros(1, 2, dtype=torch.long)).evolved == ("embed.weight",)
    layers = mlp()
    layers.get_parameter("0.weight").requires_grad_(False)
    assert torch_network(layers, torch.ones(1, 4)).evolved == ("0.bias", "2.weight", "2.bias")
    network = torch_network(layers, torch.ones(1, 4))
    with pytest.raises(BadValue, match="tensor '0.weight' is not among"):
        network.apply({"0.bias": jnp.zeros(6)}, jnp.ones((1, 4)))


def test_inputs_may_be_keywords_and_outputs_any_container():
    module = Code(lambda m, x, y: {"sum": [x + y], "pair": (x, None)})
    module.forward = lambda y, x: module.function(module, x, y)  # pyright: ignore[reportAttributeAccessIssue]
    inputs = {"x": torch.ones(2), "y": torch.full((2,), 2.0)}
    outputs = torch_network(module, inputs).apply({}, to_jax(inputs))
    assert outputs["sum"][0].tolist() == [3.0, 3.0] and outputs["pair"][1] is None


def test_nothing_of_the_callers_changes():
    module = nn.Sequential(batch_norm(), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(64, 2))
    module.register_forward_hook(lambda *_: None)
    inputs = torch.randn(2, 3, 6, 6)
    before, given = copy.deepcopy(module.state_dict()), inputs.clone()
    random, modes = torch.get_rng_state(), [m.training for m in module.modules()]
    keys = [set(vars(m)) for m in module.modules()]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    network = torch_network(module, inputs)
    network.apply(to_jax(named(module)), to_jax(inputs))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(inputs, given) and torch.equal(random, torch.get_rng_state())
    assert modes == [m.training for m in module.modules()] and keys == [set(vars(m)) for m in module.modules()]
    assert fastpath == torch.backends.mha.get_fastpath_enabled()
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_a_forward_that_assigns_attributes_stays_pure():
    def forward(m: Code, x: torch.Tensor) -> torch.Tensor:
        m.last = x * m.get_parameter("w")
        return m.last

    module = Code(forward, w=nn.Parameter(torch.ones(3)))
    network = torch_network(module, torch.ones(2, 3))
    for value in (1.0, 2.0):
        assert jax.jit(network.apply)({"w": jnp.full(3, value)}, jnp.ones((2, 3))).tolist() == [[value] * 3] * 2
    assert not hasattr(module, "last")


def test_the_translation_adds_no_work():
    def primitives(module: nn.Module, inputs: torch.Tensor) -> list[str]:
        jaxpr = jax.make_jaxpr(torch_network(module, inputs).apply)(to_jax(named(module)), to_jax(inputs))
        return [str(equation.primitive) for equation in jaxpr.jaxpr.eqns]

    assert primitives(nn.Linear(4, 3), torch.ones(2, 4)) == ["dot_general", "broadcast_in_dim", "add"]
    assert primitives(nn.Conv2d(2, 3, 3), torch.ones(2, 2, 5, 5)) == ["conv_general_dilated", "reshape", "add"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Code(lambda m, x: x + torch.randn(4)).eval(), "Code draws random numbers even in evaluation mode"),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
            r"0 \(BatchNorm1d\) keeps no running statistics",
        ),
        (lambda: nn.Sequential(nn.LazyLinear(3)), r"0 \(LazyLinear\) does not know its shapes"),
        (
            lambda: nn.Sequential(Code(lambda m, x: x if x.sum() > 0 else -x)),
            r"0 \(Code\) reads the values of a tensor",
        ),
        (lambda: Code(lambda m, x: x * x.max().item()), "Code reads the values of a tensor"),
        (
            lambda: nn.Sequential(Code(lambda m, x: torch.special.airy_ai(x))),
            r"the model uses aten::special_airy_ai, which has no JAX form here \(in 0 \(Code\)\)",
        ),
        (lambda: Code(lambda m, x: {x.sum()}), "Code returns a set"),
        (lambda: nn.Linear(5, 1), "Linear fails on the example: RuntimeError"),
        (lambda: "linear", "expected a torch.nn.Module, not str"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_translated_is_refused(build: Callable[[], Any], message: str):
    with pytest.raises(BadValue, match=message) as caught:
        torch_network(build(), torch.rand(2, 4) + 0.1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [types.SimpleNamespace(x=torch.ones(2)), {"x": torch.ones(2), "id": "a"}, {1, 2}])
def test_a_batch_of_a_class_that_is_not_known_is_refused(batch: Any):
    with pytest.raises(
        BadValue, match=r"^a batch holds a (SimpleNamespace|str|set), which evolution cannot take apart"
    ):
        torch_network(nn.Linear(2, 1), batch)
    with pytest.raises(BadValue, match="takes holds a (SimpleNamespace|str|set)"):
        torch_batch_function(lambda outputs, targets: outputs.mean(), torch.ones(2), batch)


def test_plain_numbers_in_a_batch_are_taken():
    module = Code(lambda m, x, times, shift: x * times + shift).eval()
    apply = torch_network(module, (torch.ones(2, 4), 3, 0.5)).apply
    close(apply(to_jax(named(module)), (jnp.ones((2, 4)), 3, 0.5)), torch.full((2, 4), 3.5))


def test_packed_outputs_are_refused():
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 4)])
    with pytest.raises(BadValue, match="LSTM returns a PackedSequence, which has no JAX form: unpack it"):
        torch_network(nn.LSTM(4, 2).eval(), packed)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_is_nothing_in_evaluation_mode(training: bool):
    module = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).train(training)
    x = torch.randn(3, 4)
    close(torch_network(module, x).apply(to_jax(named(module)), to_jax(x)), module.eval()(x).detach())


NOISY = [
    (lambda: nn.Sequential(mlp(), nn.Dropout(0.5)), "1 (Dropout)"),
    (lambda: nn.Sequential(nn.RReLU()), "0 (RReLU)"),
    (lambda: nn.LSTM(4, 2, 2, dropout=0.1), "LSTM"),
    (lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2)), "0.self_attn (MultiheadAttention)"),
    (lambda: nn.Sequential(Code(lambda m, x: F.dropout(x, training=m.training))), "0 (Code)"),
]


@pytest.mark.parametrize(("build", "label"), NOISY)
def test_what_draws_random_numbers_in_training_mode_is_named(build: Callable[[], nn.Module], label: str):
    module, x = build(), torch.rand(2, 4)
    state = torch.get_rng_state()
    assert label in noisy_layers(module, x) and torch.equal(torch.get_rng_state(), state)
    assert noisy_layers(module.eval(), x) == []


@pytest.mark.parametrize(("build", "label"), NOISY)
def test_a_layer_left_in_training_mode_on_purpose_is_refused(build: Callable[[], nn.Module], label: str):
    """Monte Carlo dropout: the network would be another one in evaluation mode."""
    module = nn.Sequential(build()).eval()
    module[0].train()
    where = f"0.{label}" if label[0].isdigit() else f"0 ({label})"
    with pytest.raises(
        BadValue, match=rf"^{re.escape(where)} was left in training mode, where it draws random numbers"
    ):
        torch_network(module, torch.rand(2, 4))


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.inner(outputs, targets)


def top_two(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return (outputs.topk(2, dim=1).indices == targets[:, None]).any(1).float().mean().item() * 100


@pytest.mark.parametrize(
    "function",
    [F.cross_entropy, Smooth(), top_two, nn.MultiMarginLoss(), lambda o, t: (o.argmax(1) == t).sum() / len(t)],
)
def test_a_batch_function_equals_torch(function: Callable[..., Any]):
    torch.manual_seed(0)
    outputs, targets = torch.randn(2, 6, 3), torch.randint(0, 3, (6,))
    translated = torch_batch_function(function, outputs[0], targets)
    found = jax.jit(jax.vmap(translated, (0, None)))(to_jax(outputs), to_jax(targets))
    close(found, np.array([float(function(o, targets)) for o in outputs]))
    # arrays serve as examples, too
    assert torch_batch_function(function, to_jax(outputs[0]), to_jax(targets))(to_jax(outputs[0]), to_jax(targets)) >= 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda o, t: float(o.mean()), "reads the values of a tensor"),
        (lambda o, t: o.numpy().mean(), "reads the values of a tensor"),
        (lambda o, t: (o - t) ** 2, r"returns an array of shape \(3,\)"),
        (lambda o, t: torch.special.airy_ai(o).sum(), "aten::special_airy_ai"),
        (lambda o, t: "good", "returns a str"),
    ],
)
def test_a_batch_function_that_cannot_be_translated_is_refused(function: Callable[..., Any], message: str):
    with pytest.raises(BadValue, match=message):
        torch_batch_function(function, torch.ones(3), torch.zeros(3))


def test_data_becomes_arrays():
    tensor = torch.ones(2)
    found = to_jax({"a": [tensor, torch.tensor([True]), torch.ones(1).byte()], "b": torch.ones(1).half()})
    assert [a.dtype for a in found["a"]] == [jnp.float32, jnp.bool_, jnp.uint8] and found["b"].dtype == jnp.float16
    tensor.zero_()
    assert found["a"][0].tolist() == [1.0, 1.0]
    assert to_jax(torch.tensor([1.5, -2.0]).bfloat16()).tolist() == [1.5, -2.0]
    assert to_jax((np.arange(3), 4.0, None, torch.ones(1).double()))[0].dtype == jnp.int32
    with pytest.raises(BadValue, match="do not fit int32"):
        to_jax(torch.tensor([2**40]))


def test_importing_changes_nothing_of_torchs_own():
    script = """
        import os, torch, torch._decomp
        def state():
            tables = {k: set(t) for k, t in torch._decomp.global_decomposition_table.items()}
            return (torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), dict(os.environ),
                    torch.backends.mha.get_fastpath_enabled(), torch.accelerator.current_accelerator(), tables,
                    torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack(), set(dir(torch)),
                    torch.get_rng_state().tolist(), hasattr(torch.ops.aten.prod, "dim_Dimname"))
        before = state()
        import es.translation.functions
        es.translation.functions.torch_network(torch.nn.Linear(2, 1), torch.ones(1, 2))
        torch.manual_seed(torch.initial_seed())
        torch.set_rng_state(torch.tensor(before[-2], dtype=torch.uint8))
        after = state()
        assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], check=True, timeout=120)
