"""Learning from examples: the same losses as in PyTorch, over the whole of every part."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from es import objectives
from es.tasks.supervised import MEASURED_AT_ONCE
from lottery.networks.objectives import objective as torch_objectives
from pruning.errors import DataError
from tests.es.helpers import apply, initial, task
from tests.lottery.helpers import blobs

RNG = np.random.Generator(np.random.PCG64(0))
LOGITS, DENSE = RNG.standard_normal((7, 4), np.float32), RNG.standard_normal((7, 4, 3), np.float32)
ONE, MANY = RNG.standard_normal((7, 1), np.float32), RNG.standard_normal((7, 2), np.float32)
LABELS, MAPS, TRUTHS = np.arange(7) % 4, np.arange(21).reshape(7, 3) % 4, np.arange(7) % 2 == 0

CASES = [
    (objectives.cross_entropy, F.cross_entropy, LOGITS, LABELS),
    (objectives.cross_entropy, F.cross_entropy, DENSE, MAPS),
    (objectives.cross_entropy, F.cross_entropy, LOGITS, np.where(LABELS == 1, -100, LABELS)),
    (objectives.squared_error, torch_objectives.squared_error, ONE, MANY[:, 0]),
    (objectives.squared_error, torch_objectives.squared_error, MANY, MANY[::-1].copy()),
    (objectives.binary_cross_entropy, torch_objectives.binary_loss, ONE, TRUTHS),
]


@pytest.mark.parametrize(("ours", "theirs", "outputs", "targets"), CASES)
def test_the_same_numbers_as_in_torch(ours, theirs, outputs, targets):
    expected = theirs(torch.as_tensor(outputs), torch.as_tensor(targets)).item()
    assert float(ours(jnp.asarray(outputs), jnp.asarray(targets))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_large_logits_do_not_overflow(scale):
    assert np.isfinite(objectives.cross_entropy(scale * jnp.eye(3), jnp.arange(3)))
    assert np.isfinite(objectives.binary_cross_entropy(scale * jnp.ones(3), jnp.array([True, False, True])))


def test_sizes_that_do_not_belong_together():
    with pytest.raises(DataError, match="the model returns shape"):
        objectives.squared_error(jnp.ones((3, 2)), jnp.ones(3))


def test_a_part_is_measured_whole_whatever_the_batches():
    """The last batch is smaller than the others, and counts less."""
    few = task(batch_size=2)
    assert len(few.validation[0]) % (2 * MEASURED_AT_ONCE)
    params = {name: jnp.asarray(value) for name, value in initial().items()}
    measured = few.measure(params)
    x, y = blobs(30, seed=1)
    assert measured.validation == pytest.approx(np.mean(np.asarray(apply(initial(), x)).argmax(1) == y))
    assert measured.validation_loss == pytest.approx(task().measure(params).validation_loss, rel=1e-5)


def test_batches_cover_the_data():
    one = task(batch_size=16)
    seen = {
        tuple(row)
        for n in range(60)
        for row in np.asarray(one._minibatch(one.data, jnp.asarray([0, n], jnp.uint32))[0]).tolist()
    }
    assert len(seen) == 96
    assert len(task(batch_size=500)._minibatch(one.data, jnp.zeros(2, jnp.uint32))[0]) == 96
