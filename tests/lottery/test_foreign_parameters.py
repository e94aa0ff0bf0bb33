"""A model whose copies would train another one is refused by every trainer, also where checkpointing hides that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lottery import find_ticket
from pruning.errors import BadValue
from tests.lottery.helpers import blobs

# Of a forward pass in evaluation mode, where nothing is recorded.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")

DATA = tuple(torch.from_numpy(array) for array in blobs(60))
WAYS: dict[str, dict[str, Any]] = {
    "gd": {"steps": 2},
    "es": {"trainer": "es", "generations": 1, "population": 4, "batch_size": 16},
    "function": {"train": lambda model, mask: model},
}
ORIGINAL: Any = None


class Checkpointed(nn.Module):
    def __init__(self, outside: bool, reentrant: bool) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.outside, self.reentrant = outside, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = ORIGINAL.inner if self.outside else self.inner
        h: Any = checkpoint(lambda h: torch.relu(inner(h)), self.first(x), use_reentrant=self.reentrant)
        return self.last(h)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("trainer", WAYS)
def test_checkpointing_around_the_original(tmp_path, trainer, reentrant):
    global ORIGINAL
    ORIGINAL = Checkpointed(True, reentrant)
    before = ORIGINAL.inner.weight.clone()
    with pytest.raises(BadValue, match="Checkpointed computes with 2 trainable parameters that it does not hold"):
        find_ticket(ORIGINAL, DATA, levels=1, out=tmp_path, quiet=True, **WAYS[trainer])
    assert ORIGINAL.inner.weight.grad is None and torch.equal(ORIGINAL.inner.weight, before)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("trainer", ["gd", "function"])
def test_checkpointing_around_its_own(tmp_path, trainer, reentrant):
    model = Checkpointed(False, reentrant)
    ticket = find_ticket(model, DATA, levels=1, out=tmp_path, quiet=True, tolerance=1.0, **WAYS[trainer])
    trained = ticket.trained(model)
    assert trainer == "function" or not torch.equal(trained.inner.bias, model.inner.bias)
