"""Seeing every operation costs no import of torch's compiler: it takes two seconds."""

from __future__ import annotations

import subprocess
import sys

LOOKS = """
import sys
import torch
from es.translation.functions import torch_network
from lottery.networks.flops import forward_flops
from pruning.uses.following import Following

model, inputs = torch.nn.Linear(2, 1), torch.ones(4, 2)
assert forward_flops(model, inputs) == 16
torch_network(model, inputs)
with Following(dict(model.named_parameters()), [inputs]):
    model(inputs)
print("torch._dynamo" in sys.modules)
"""


def test_the_compiler_of_torch_is_not_loaded():
    ran = subprocess.run([sys.executable, "-c", LOOKS], capture_output=True, text=True, timeout=250)
    assert (ran.stdout, ran.returncode) == ("False\n", 0), ran.stderr
