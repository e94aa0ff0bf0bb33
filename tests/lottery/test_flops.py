"""Operations are counted where that can be done, and nothing depends on whether it can."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lottery.networks.flops import forward_flops
from lottery.networks.threads import threads_for
from tests.lottery.helpers import blobs, search

INPUTS, LABELS = (torch.from_numpy(array) for array in blobs(60))


class Summarizing(nn.Module):
    """Attention whose query is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(1, 4), nn.Linear(4, 3)
        self.attention, self.query = nn.MultiheadAttention(4, 2, batch_first=True), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x[..., None])
        return self.out(self.attention(self.query.expand(len(x), -1, -1), tokens, tokens)[0][:, 0])


class Shy(nn.Module):
    """Does not stand being listened to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.utils._python_dispatch._len_torch_dispatch_stack():  # pyright: ignore[reportAttributeAccessIssue]
            raise NotImplementedError("not under a mode")
        return self.second(torch.relu(self.first(x)))


def test_the_count_is_that_of_pytorch():
    from torch.utils.flop_counter import FlopCounterMode

    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
    inputs = torch.ones(5, 1, 6, 6)
    with FlopCounterMode(display=False) as counter:
        network(inputs)
    assert forward_flops(network, inputs) == counter.get_total_flops()


def test_counting_changes_nothing():
    network, drawn = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout()), torch.get_rng_state()
    before: Any = {name: value.clone() for name, value in network.state_dict().items()}
    assert forward_flops(network, INPUTS) == 2 * 60 * 6 * 4
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize("seeds", [1, 6])
@pytest.mark.parametrize("kind", [Summarizing, Shy])
def test_what_cannot_be_counted_is_trained_all_the_same(tmp_path, kind, seeds):
    """Alone, and where six replicates would be stacked."""
    made = kind() if seeds == 1 else lambda seed: kind()
    found = search(tmp_path, made, (INPUTS, LABELS), replicates=seeds)
    assert len(found.levels) == 2


def test_what_cannot_be_counted_is_worth_the_threads_that_there_are():
    assert forward_flops(Shy(), INPUTS) is None
    assert threads_for(Shy(), INPUTS) == torch.get_num_threads()


def test_the_command_line_starts_without_pytorch_and_its_compiler():
    code = "import sys, lottery, lottery.cli.app; print([m for m in ('torch', 'torch._dynamo') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
