"""What a search pays for before its first step: the modules that it uses, and no others."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.optimizers.named import make_optimizer

RUN = """
import json
import sys
from lottery.cli.app import run

code, slow = run(sys.argv[2:]), json.loads(sys.argv[1])
print(code, [name for name in slow if name in sys.modules])
"""
# Each of these takes a tenth of a second to two seconds to import. A search of a network of rectifiers uses the first
# ones at its end only, for the figure and the intervals, and the others not at all.
AT_THE_END = ("matplotlib", "scipy")
NEVER = (
    *("jax", "sklearn", "pandas", "scipy.stats", "scipy.optimize", "scipy.linalg", "scipy.sparse", "sympy", "networkx"),
    *("torch._dynamo", "torch._inductor", "torch.onnx", "torch.fx.experimental.symbolic_shapes"),
)


def _ran(folder, slow, *words):
    """Return the exit code of a command in a process of its own, and which of some modules it imported."""
    command = [sys.executable, "-c", RUN, json.dumps(slow), *words]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)
    assert ran.stdout, ran.stderr
    return ran.stdout.splitlines()[-1]


def test_a_search_loads_no_library_that_it_does_not_use(tmp_path):
    assert _ran(tmp_path, NEVER, "prune", "--steps", "2", "--levels", "1", "--quiet") == "0 []"


def test_a_search_takes_its_first_step_before_it_loads_what_its_end_needs(tmp_path):
    """The clock of the benchmark interrupts the search at its first step: exit code 130."""
    words = ("prune", "--steps", "2", "--levels", "1", "--quiet", "--trainer", "lottery.bench.startup:CLOCKED")
    assert _ran(tmp_path, (*NEVER, *AT_THE_END), *words) == "130 []"


def test_the_flags_of_a_search_need_no_framework(tmp_path):
    """Its help, and what is wrong with a command, come at once."""
    assert _ran(tmp_path, ("torch", "jax", "scipy"), "prune", "--help") == "0 []"
    assert _ran(tmp_path, ("torch", "jax", "scipy"), "prune", "--levles", "2") == "2 []"


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
