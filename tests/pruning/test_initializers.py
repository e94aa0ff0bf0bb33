"""Initializers: what every registered one keeps to, whatever the weight and its mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from pruning.errors import BadValue, UnknownName
from pruning.initializers import INITIALIZERS, Chosen, draw, get_initializer
from pruning.starts.tensor import Layout, Tensor
from pruning.starts.weight import Array, Weight
from tests.pruning.initializer_cases import DENSE, EXAMPLES, NEEDED, draw_one, example, refusal, served, values_of

# `model` draws nothing: what it does is tested by itself.
REGISTERED = [entry.name for entry in INITIALIZERS if entry.name != "model"]
CHOOSING = {entry.name for entry in INITIALIZERS if entry.value.chooses_mask}
GIVEN = [name for name in REGISTERED if name not in CHOOSING]
SEEDS = range(200)


def gaussian(variance: Callable[[Weight], float]) -> Callable[[Weight, np.random.Generator], Array]:
    return lambda weight, rng: math.sqrt(variance(weight)) * rng.standard_normal(weight.shape, np.float32)


def fan_in(weight: Weight) -> int:
    return math.prod(weight.shape[1:])


def uniform(weight: Weight, rng: np.random.Generator) -> Array:
    return (2 * rng.random(weight.shape, np.float32) - 1) / math.sqrt(fan_in(weight))


def constant(weight: Weight, rng: np.random.Generator) -> Array:
    return np.sign(rng.standard_normal(weight.shape, np.float32)) * math.sqrt(2 / fan_in(weight))


def haar(weight: Weight, rng: np.random.Generator) -> Array:
    rows, columns = weight.outputs, fan_in(weight)
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return math.sqrt(2) * (q if rows >= columns else q.T).reshape(weight.shape)


def truncated_by_rank(weight: Weight, rng: np.random.Generator) -> Array:
    drawn = rng.standard_normal((weight.outputs, fan_in(weight)))
    u, s, v = np.linalg.svd(drawn, full_matrices=False)
    one = s[0] * np.outer(u[:, 0], v[0])
    norm = np.linalg.norm(drawn) * math.sqrt(2 / fan_in(weight))
    return (one / np.linalg.norm(one) * norm).reshape(weight.shape)


def small(weight: Weight, rng: np.random.Generator) -> Array:
    attention = weight.kind in ("query", "attention output")
    fan = 5 * fan_in(weight) if attention else fan_in(weight) + weight.outputs * weight.taps
    return math.sqrt(2 / fan) * rng.standard_normal(weight.shape, np.float32)


def almost_orthogonal(weight: Weight, rng: np.random.Generator) -> Array:
    drawn = rng.standard_normal(weight.shape)
    return drawn / np.sqrt(np.abs(drawn.T @ drawn).sum(1) + 1e-6)


def sdp(weight: Weight, rng: np.random.Generator) -> Array:
    drawn = rng.standard_normal(weight.shape)
    return drawn / np.sqrt(np.abs(drawn @ drawn.T).sum(1))[:, None]


LINEAR = {"linear": DENSE["linear"], "more outputs": DENSE["more outputs"]}
COUNTERPARTS: Mapping[str, tuple[Callable[[Weight, np.random.Generator], Array], Mapping[str, Weight]]] = {
    "unit-scaled": (gaussian(lambda weight: 2 / fan_in(weight)), DENSE),
    "layer-scaled": (gaussian(lambda weight: 2 / fan_in(weight)), DENSE),
    "kaiming-normal": (gaussian(lambda weight: 2 / fan_in(weight)), DENSE),
    "glorot-normal": (gaussian(lambda weight: 2 / (fan_in(weight) + weight.outputs * weight.taps)), DENSE),
    "torch-default": (uniform, DENSE),
    "signed-constant": (constant, DENSE),
    "orthogonal": (haar, DENSE),
    "delta-orthogonal": (haar, LINEAR),
    "conv-aware": (haar, LINEAR),
    "low-rank": (truncated_by_rank, DENSE),
    "small-init": (small, {name: weight for name, weight in DENSE.items() if name != "embedding"}),
    "identity": (lambda weight, rng: np.eye(weight.outputs, weight.inputs), LINEAR),
    "aol": (almost_orthogonal, LINEAR),
    "sll": (sdp, LINEAR),
}
"""Schemes without a mask, as their papers have them, for the same draws of the generator."""


@pytest.mark.parametrize("name", sorted(COUNTERPARTS))
def test_1_density_1_equals_the_dense_counterpart(name):
    dense, weights = COUNTERPARTS[name]
    drawn = served(name, weights)
    assert drawn
    for weight in drawn.values():
        expected = dense(weight, np.random.default_rng(0))
        np.testing.assert_allclose(values_of(name, weight), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REGISTERED)
def test_1_a_mask_that_removes_one_weight_changes_next_to_nothing(name):
    def energy(weight):
        return np.mean([(values_of(name, weight, seed) ** 2).sum() for seed in range(20)])

    one_less = np.ones((24, 24), bool)
    one_less[3, 14] = False
    kind = next(iter(served(name, EXAMPLES).values())).kind
    try:
        full, masked = energy(example((24, 24), kind)), energy(example((24, 24), kind, one_less))
    except BadValue:
        # A scheme that chooses the mask need not reach every number of weights.
        assert name in CHOOSING
        return
    assert masked == pytest.approx(full, rel=0.1)


@pytest.mark.parametrize("name", REGISTERED)
class TestEveryInitializer:
    def test_draws_an_example_at_least_and_says_in_one_line_why_not_the_others(self, name):
        assert served(name, EXAMPLES)
        for each in EXAMPLES:
            why = refusal(name, each)
            assert "\n" not in why and (not why or len(why.split(": ", 1)[1]) > 20)

    def test_returns_finite_numbers_of_the_weights_shape(self, name):
        for weight in served(name, EXAMPLES).values():
            made = draw_one(name, weight)
            assert made.values.shape == made.keep.shape == weight.shape
            assert np.isfinite(made.values).all() and np.issubdtype(made.values.dtype, np.floating)

    def test_keeps_as_many_weights_as_the_mask_and_those_of_the_mask_where_it_is_given(self, name):
        for weight in served(name, EXAMPLES).values():
            keep = draw_one(name, weight).keep
            assert keep.sum() == weight.keep.sum()
            assert name in CHOOSING or np.array_equal(keep, weight.keep)

    def test_is_a_function_of_weight_and_generator_alone(self, name):
        for weight in served(name, EXAMPLES).values():
            before = weight.keep.copy()
            first, second = draw_one(name, weight, 3), draw_one(name, weight, 3)
            assert np.array_equal(first.values, second.values) and np.array_equal(first.keep, second.keep)
            assert np.array_equal(weight.keep, before)

    def test_refuses_a_setting_that_it_does_not_have(self, name):
        with pytest.raises(UnknownName, match=f"unknown setting of {name} .no_such_setting"):
            get_initializer(name, {"no_such_setting": 1})

    def test_says_what_it_is_and_where_it_comes_from(self, name):
        entry = INITIALIZERS[name]
        assert entry.summary and entry.source

    def test_draws_whole_tensors_with_nothing_outside_the_mask(self, name):
        weight = next(iter(served(name, EXAMPLES).values()))
        tensor = Tensor(
            "layer",
            weight.keep,
            Layout(weight.shape, (), (0,), (1,)),
            (weight.kind,),
            activation="relu",
            place=weight.place,
        )
        drawn = draw([tensor], get_initializer(name, NEEDED.get(name)), seed=1)
        assert not drawn.left and not drawn.values["layer"][~drawn.keep["layer"]].any()


@pytest.mark.parametrize("name", GIVEN)
class TestEveryInitializerThatIsGivenAMask:
    def test_gives_a_unit_without_live_inputs_a_zero_row(self, name):
        for weight in served(name, EXAMPLES).values():
            assert not values_of(name, weight)[weight.fan_in == 0].any()

    def test_moves_its_distribution_with_the_columns_of_the_mask(self, name):
        keep = np.random.default_rng(1).random((16, 16)) < np.linspace(0.2, 1, 16)
        order = np.random.default_rng(2).permutation(16)
        kind = next(iter(served(name, EXAMPLES).values())).kind

        def energies(mask):
            weight = example(mask.shape, kind, mask)
            return np.stack([values_of(name, weight, seed).astype(float) ** 2 for seed in SEEDS])

        try:
            here, there = energies(keep)[:, :, order], energies(keep[:, order])
        except BadValue:
            # Schemes that need certain entries tell the columns apart.
            assert name in ("identity", "delta-orthogonal", "lru")
            return
        for axis in (1, 2):
            one, other = here.sum(axis), there.sum(axis)
            error = np.sqrt((one.var(0) + other.var(0)) / len(SEEDS))
            assert (abs(one.mean(0) - other.mean(0)) <= 4.5 * error + 1e-5).all()


@pytest.mark.parametrize("name", ["unit-scaled", "signed-constant", "torch-default", "conv-aware", "layer-scaled"])
def test_14_an_ablated_unit_has_a_zero_row_and_finite_gradients(name):
    keep = np.random.default_rng(0).random((6, 5)) < 0.6
    keep[2] = False
    weight = values_of(name, example((6, 5), keep=keep)).astype(np.float32)
    assert not weight[2].any() and weight[[0, 1, 3, 4, 5]].any(axis=1).all()
    x = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)

    in_torch = torch.tensor(weight, requires_grad=True)
    (torch.relu(torch.tensor(x) @ in_torch.T) ** 2).sum().backward()
    in_jax = jax.grad(lambda w: (jax.nn.relu(jnp.asarray(x) @ w.T) ** 2).sum())(jnp.asarray(weight))

    assert in_torch.grad is not None and torch.isfinite(in_torch.grad).all()
    np.testing.assert_allclose(in_torch.grad.numpy(), np.asarray(in_jax), rtol=1e-5, atol=1e-5)
    assert np.isfinite(np.asarray(in_jax)).all() and not np.asarray(in_jax)[2].any()


def test_each_part_of_a_tensor_is_drawn_with_its_own_fans():
    gates = Tensor("lstm", np.ones((8, 50), bool), Layout((4, 2, 50), (0,), (1,), (2,)), ("recurrent input",), "gate")
    groups = np.ones((4, 30), bool)
    groups[2:, 10:] = False
    grouped = Tensor("grouped", groups, Layout((2, 2, 30), (0,), (1,), (2,)), part="group")
    drawn = draw([gates, grouped], get_initializer("signed-constant"), 0)
    np.testing.assert_allclose(np.abs(drawn.values["lstm"]), 1 / math.sqrt(50), rtol=1e-6)
    np.testing.assert_allclose(np.abs(drawn.values["grouped"][:2]), 1 / math.sqrt(30), rtol=1e-6)
    np.testing.assert_allclose(np.abs(drawn.values["grouped"][2:, :10]), 1 / math.sqrt(10), rtol=1e-6)


def test_what_a_scheme_leaves_alone_is_named_with_its_reason():
    tensor = Tensor("embed", np.ones((5, 3), bool), Layout((5, 3), (), (1,), (0,)), ("embedding",))
    drawn = draw([tensor], get_initializer("unit-scaled"), 0)
    assert not drawn.values and "looked up" in drawn.left["embed"]


def test_the_models_own_start_is_left_as_it_is():
    assert {refusal("model", each) for each in EXAMPLES} == {"LeftAlone: 'layer' keeps the model's own start"}


@pytest.mark.parametrize(
    ("name", "weight", "said"),
    [
        ("delta-orthogonal", example((4, 8, 3, 3), "convolution"), "'layer' has 4 for 8; init 'orthogonal' serves"),
        ("delta-orthogonal", EXAMPLES["convolution, masked"], "removes 22 of 32 of 'layer'; init 'exact-orthogonal'"),
        ("delta-orthogonal", EXAMPLES["even kernel"], "of odd size: 'layer' has 2 × 2; init 'orthogonal'"),
        ("identity", EXAMPLES["even kernel"], "of odd size"),
        ("identity", example((2, 2), keep=np.array([[0, 1], [1, 1]]) > 0), "removes 1 of 2 entries of 'layer'; keep"),
        ("lru", example((4, 4), "recurrent", np.tri(4) > 0), "cuts those of 2 of 4 units of 'layer', unit 0 first"),
        ("unit-scaled", Weight("w", np.ones((2, 2), bool), activation=None), "--set init_params.activation=relu"),
    ],
)
def test_a_weight_that_cannot_be_served_is_refused_with_what_would_work(name, weight, said):
    with pytest.raises(BadValue) as refused:
        draw_one(name, weight)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("unit-scaled", {"fan": "sideways"}, "unknown fan 'sideways'"),
        ("unit-scaled", {"distribution": "norml"}, "did you mean 'normal'"),
        ("unit-scaled", {"activation": "rellu"}, "did you mean 'relu'"),
        ("layer-scaled", {"fan": "sideways"}, "unknown fan 'sideways'"),
        ("low-rank", {"rank": 0}, "init_params.rank is 0: expected 1 or more"),
        ("conv-aware", {"noise": -1}, "init_params.noise is -1"),
        ("virgo", {"toward": "sideways"}, "unknown way to choose the variance"),
    ],
)
def test_a_value_that_a_setting_does_not_take_is_an_error(name, settings, said):
    with pytest.raises((BadValue, UnknownName), match=said):
        draw_one(name, DENSE["linear"], **settings)


def test_a_scheme_of_ones_own_needs_no_registration():
    def halves(weight, rng, *, size=0.5):
        return np.full(weight.shape, size)

    scheme = get_initializer(halves, {"size": 0.25})
    assert isinstance(scheme.draw(DENSE["linear"], np.random.default_rng(0), **scheme.to), np.ndarray | Chosen)
    assert scheme.settings() == {"size": 0.5} and scheme.to == {"size": 0.25}
