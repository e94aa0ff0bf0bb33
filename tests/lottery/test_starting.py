"""What a search pays for before its first step: the modules that it uses, and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.optimizers.named import make_optimizer

SEARCH = """
import sys
from lottery.cli.app import run

code = run(["prune", "--steps", "2", "--levels", "1", "--quiet"])
slow = ("torch._dynamo", "jax", "scipy.stats", "sklearn.datasets", "pandas")
print(code, [name for name in slow if name in sys.modules])
"""


def test_a_search_loads_no_library_that_it_does_not_use(tmp_path):
    """Each of these takes a second or two to import."""
    ran = subprocess.run([sys.executable, "-c", SEARCH], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert ran.stdout.splitlines()[-1] == "0 []", ran.stderr


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_steps_as_that_of_torch_bit_by_bit(name):
    """It is made without the wrappers that import torch's compiler."""
    settings = GDConfig(optimizer=name, lr=0.1, momentum=0.9 if name == "sgd" else 0.0, weight_decay=0.01)
    given = {"momentum": 0.9, "nesterov": False} if name == "sgd" else {}
    theirs_of = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    ours, theirs = (nn.Linear(5, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = (
        (ours, make_optimizer(ours, settings)),
        (theirs, theirs_of(theirs.parameters(), lr=0.1, weight_decay=0.01, fused=True, **given)),
    )
    for step in range(4):
        inputs = torch.randn(7, 5, generator=torch.Generator().manual_seed(step))
        for model, optimizer in optimizers:
            assert isinstance(optimizer, theirs_of)
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
