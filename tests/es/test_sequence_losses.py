"""The loss of connectionist temporal classification in JAX is torch's, and so are models that learn by it."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from es.translation.arrays import to_jax
from es.translation.functions import torch_batch_function, torch_network
from pruning.errors import BadValue

STEPS, BATCH, CLASSES = 9, 5, 4
LOG_PROBS = torch.randn(STEPS, BATCH, CLASSES, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
LABELS = torch.tensor([[1, 1, 2, 3], [2, 3, 2, 1], [3, 3, 3, 3], [1, 2, 3, 1], [2, 2, 2, 2]])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("joined", [False, True], ids=["padded", "one after the other"])
@pytest.mark.parametrize(
    ("inputs", "targets"),
    [([9, 9, 9, 9, 9], [4, 4, 4, 4, 4]), ([9, 7, 8, 9, 3], [4, 2, 1, 0, 3]), ([1, 2, 9, 9, 9], [0, 1, 4, 3, 2])],
    ids=["all", "shorter ones", "barely enough"],
)
def test_it_is_torchs(inputs, targets, joined, reduction):
    lengths = torch.tensor(inputs), torch.tensor(targets)
    labels = torch.cat([row[:count] for row, count in zip(LABELS, targets, strict=True)]) if joined else LABELS

    def loss(outputs, given):
        return nn.functional.ctc_loss(outputs, *given, reduction=reduction, zero_infinity=True)

    given = (labels, *lengths)
    found = torch_batch_function(loss, LOG_PROBS, given)(to_jax(LOG_PROBS), to_jax(given))
    np.testing.assert_allclose(found, loss(LOG_PROBS, given).item(), rtol=1e-5)


class Speaks(nn.Module):
    """Its labels are selected by what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, CLASSES)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        counts = labels >= 0
        probabilities = self.fc(x).log_softmax(-1).transpose(0, 1)
        steps = torch.full((len(x),), x.shape[1])
        return nn.functional.ctc_loss(probabilities, labels.masked_select(counts), steps, counts.sum(-1))


def test_labels_without_padding_are_selected():
    model, x = Speaks(), torch.randn(BATCH, STEPS, 3)
    network = torch_network(model, (x, LABELS))
    params = to_jax(dict(model.named_parameters()))
    np.testing.assert_allclose(network.apply(params, to_jax((x, LABELS))), model(x, LABELS).item(), rtol=1e-5)
    padded = jnp.asarray(LABELS.numpy()).at[0, 3].set(-100)
    assert jnp.isnan(network.apply(params, (to_jax(x), padded)))


def test_padded_labels_are_refused():
    labels = LABELS.clone()
    labels[0, 3] = -100
    with pytest.raises(BadValue, match="masked_select, whose result is as large as the values"):
        torch_network(Speaks(), (torch.randn(BATCH, STEPS, 3), labels))


class Classifies(Speaks):
    """Its labels are counted by where they are."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        places = (labels[:, 0] >= 0).nonzero()
        if places.size(0) == 0:
            return x.sum()
        logits = torch.gather(self.fc(x[:, 0]), 0, places.expand(-1, CLASSES))
        return nn.functional.cross_entropy(logits, torch.gather(labels[:, 0], 0, places.view(-1)))


def test_places_of_labels_without_padding_are_known():
    model, x = Classifies(), torch.randn(BATCH, STEPS, 3)
    network = torch_network(model, (x, LABELS))
    params = to_jax(dict(model.named_parameters()))
    np.testing.assert_allclose(network.apply(params, to_jax((x, LABELS))), model(x, LABELS).item(), rtol=1e-5)
    padded = LABELS.clone()
    padded[0, 0] = -100
    assert jnp.isnan(network.apply(params, to_jax((x, padded))))
    with pytest.raises(BadValue, match="nonzero, whose result is as large as the values"):
        torch_network(model, (x, padded))
