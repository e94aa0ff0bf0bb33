"""Learned masks: removed weights never take part, irrelevant inputs go first, a good subnetwork is found untrained."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottery import find_ticket
from lottery.data.datasets import load_data
from lottery.data.parts import Tensors, prepare
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import objective_for
from lottery.runs.directory import RunDirectory
from lottery.search.probes import PROBES, TorchProber
from lottery.search.probes.continuous_sparsification import continuous_sparsification
from lottery.search.probes.edge_popup import edge_popup
from lottery.state.tensors import state_of
from pruning.criteria import get_criterion
from pruning.errors import BadValue
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from pruning.selection import select
from pruning.torch_modules import apply_mask, prunable
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model

NAMES = ("edge-popup", "continuous-sparsification")
CPU = torch.device("cpu")


def learned(name, model, part, density=0.5, mask=None, seed=3, **settings):
    """What a probe sees of a model's own weights."""
    defaults = {"examples": 8, "steps": 60, "lr": None, "batch_size": 16}
    prober = TorchProber(model, part, F.cross_entropy, tuple(part.inputs.shape[1:]), CPU, **(defaults | settings))
    job = Job(state_of(model), mask or Mask.dense(prunable(model)), seed, Budget(0, 0))
    return prober.look(job, density, frozenset({name}))[name]


def part(*arrays):
    x, y = arrays or blobs(96)
    return Tensors(torch.as_tensor(np.asarray(x, np.float32)), torch.as_tensor(np.asarray(y)))


def plain(seed=0, inputs=6, hidden=16):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 3))


@pytest.mark.parametrize("name", NAMES)
class TestEveryLearnedMask:
    def test_is_a_criterion_at_the_rewind_point(self, name):
        found = get_criterion(name)
        assert found.at == "rewind" and found.needs == {name}

    def test_the_same_seed_gives_the_same_bits_and_another_one_others(self, name):
        model = tiny_model()
        before = state_of(model)
        torch.manual_seed(1)
        one = learned(name, model, part())
        torch.manual_seed(2)
        assert_same_arrays(one, learned(name, model, part()))
        assert not np.array_equal(one["0.weight"], learned(name, model, part(), seed=4)["0.weight"])
        assert_same_arrays(before, state_of(model))

    def test_the_inputs_of_removed_weights_change_nothing(self, name):
        """With every weight of an input removed, its values can matter to nobody."""
        model = plain()
        mask = Mask({n: np.ones(shape) for n, shape in prunable(model).items()})
        first = mask["0.weight"].copy()
        first[:, [1, 4]] = False
        mask = Mask({**mask, "0.weight": first})
        x, y = blobs(96)
        other = x.copy()
        other[:, [1, 4]] += 100
        one, two = (learned(name, model, part(inputs, y), mask=mask) for inputs in (x, other))
        assert_same_arrays(one, two)
        assert (one["0.weight"][~first] == 0).all()
        assert (one["0.weight"][first] != 0).all()

    def test_irrelevant_inputs_go_first(self, name):
        rng = np.random.Generator(np.random.PCG64(0))
        x, y = blobs(240, features=3)
        noisy = np.concatenate([x, rng.standard_normal((240, 9)).astype(np.float32)], axis=1)
        model = plain(inputs=12, hidden=32)
        scores = learned(name, model, part(noisy, y), density=0.3, steps=300)
        counts = {n: round(0.3 * s.size) for n, s in scores.items()}
        kept = select(scores, Mask.dense(prunable(model)), counts)["0.weight"]
        assert kept[:, :3].mean() > 1.5 * kept[:, 3:].mean()

    def test_is_finite_with_convolutions_and_batch_norms(self, name):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(64, 3)
        )
        images = torch.randn(32, 1, 6, 6)
        scores = learned(name, net, Tensors(images, torch.arange(32) % 3), steps=20)
        assert {n: s.shape for n, s in scores.items()} == prunable(net)
        assert all(np.isfinite(s).all() and s.std() > 0 for s in scores.values())

    def test_recurrent_layers_learn_too(self, name):
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn, self.out = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

            def forward(self, x):
                return self.out(self.rnn(x)[0][:, -1])

        torch.manual_seed(0)
        data = Tensors(torch.randn(32, 3, 2), torch.arange(32) % 3)
        few, more = (learned(name, Last(), data, steps=steps, seed=1) for steps in (1, 20))
        assert all(not np.array_equal(few[n], more[n]) for n in few)

    def test_a_training_that_diverges_is_one_clear_line(self, name):
        x, y = blobs(96)
        with pytest.raises(BadValue, match="score_lr"):
            learned(name, plain(), part(x * 1e20, y), lr=1e20)

    def test_a_search_keeps_exact_counts(self, name, tmp_path):
        settings = {"levels": 2, "steps": 10, "score_steps": 10, "tolerance": 1.0, "out": tmp_path}
        search = find_ticket(tiny_model, blobs(96), criterion=name, **settings).search
        assert search is not None
        run = RunDirectory(search.run)
        assert [run.read_mask(0, level).kept for level in range(3)] == [72, 58, 46]
        assert run.read_mask(0, 2).issubset(run.read_mask(0, 1))


def test_a_supermask_of_random_weights_beats_a_random_mask_without_training():
    parts = prepare(load_data("digits"), 0)
    assert isinstance(parts.train, Tensors)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    scores = learned("edge-popup", model, parts.train, steps=250, batch_size=64)
    rng = np.random.Generator(np.random.PCG64(0))
    chance = {name: rng.random(s.shape) for name, s in scores.items()}
    dense = Mask.dense(prunable(model))

    def untrained_accuracy(ranking):
        network = apply_mask(copy.deepcopy(model), select(ranking, dense, dense.total // 2))
        return evaluate(network, parts.validation, objective_for(parts.example[1]), CPU, 512)[1]

    assert untrained_accuracy(chance) < 0.3
    assert untrained_accuracy(scores) > 0.6


def test_edge_popup_computes_with_the_weights_that_both_scopes_then_keep():
    model = plain()
    scores = learned("edge-popup", model, part(), density=0.5)
    dense = Mask.dense(prunable(model))
    counts = {name: size // 2 for name, size in dense.counts().items()}
    assert {name: int((s >= 1).sum()) for name, s in scores.items()} == counts
    assert select(scores, dense, sum(counts.values())) == select(scores, dense, counts)


def test_edge_popup_takes_its_first_step_straight_through_the_choice():
    """One linear weight vector, one step of gradient descent by hand."""
    model = nn.Linear(4, 1, bias=False)
    x, y = torch.eye(4)[:2], torch.zeros(2)
    prober = TorchProber(
        model, Tensors(x, y), lambda out, target: out.sum(), (4,), CPU, examples=2, steps=1, lr=0.5, batch_size=2
    )
    job = Job(state_of(model), Mask.dense({"weight": (1, 4)}), 3, Budget(0, 0))
    assert PROBES["edge-popup"].value.look is edge_popup
    found = prober.look(job, 0.5, frozenset({"edge-popup"}))["edge-popup"]["weight"]
    torch.manual_seed(3)
    start = nn.init.kaiming_uniform_(torch.empty(1, 4), a=5**0.5)
    # d loss / d mask = x summed, for chosen weights and others alike; d |s| / d s is the sign; then weight decay.
    slope = torch.tensor([[1.0, 1.0, 0.0, 0.0]]) * model.weight.detach() * start.sign() + 1e-4 * start
    after = (start - 0.5 * slope).abs()
    expected = after / after.flatten().topk(2).values.min()
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_continuous_sparsification_takes_its_first_step_as_the_chain_rule_says():
    """d loss / d s = g w σ'(0) / σ(0) = g w / 2, plus λ / 4 from the penalty."""
    model = nn.Linear(4, 1, bias=False)
    prober = TorchProber(
        model,
        Tensors(torch.eye(4)[:2], torch.zeros(2)),
        lambda out, target: out.sum(),
        (4,),
        CPU,
        examples=2,
        steps=1,
        lr=0.5,
        batch_size=2,
    )
    job = Job(state_of(model), Mask.dense({"weight": (1, 4)}), 3, Budget(0, 0))
    name = "continuous-sparsification"
    assert PROBES[name].value.look is continuous_sparsification
    found = prober.look(job, 0.5, frozenset({name}))[name]["weight"]
    weight = model.weight.detach().numpy()
    # With a single step, the learning rate has fallen tenfold once at most: the sign and the ratios are what counts.
    assert (np.sign(found[0, :2]) == -np.sign(weight[0, :2])).all()
    np.testing.assert_allclose(found[0, 0] / found[0, 1], weight[0, 0] / weight[0, 1], rtol=1e-4)
    assert (np.abs(found[0, 2:]) < 1e-8).all() and (found[0, 2:] < 0).all()
