"""The settings of the process: how threads wait, and what freed memory is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from lottery.cli.terminal.waiting import SPINS, wait_briefly


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_threads_wait_briefly_unless_the_user_says_how(monkeypatch, given, expected):
    monkeypatch.delitem(sys.modules, "torch")
    environment = dict(given)
    wait_briefly(environment)
    assert environment == expected


def test_nothing_is_set_that_would_come_too_late():
    environment: dict[str, str] = {}
    wait_briefly(environment)
    assert torch.__name__ in sys.modules and environment == {}


def test_the_command_says_how_threads_wait_before_pytorch_is_loaded():
    code = """
import os, sys
os.environ.pop("GOMP_SPINCOUNT", None), os.environ.pop("OMP_WAIT_POLICY", None)
class Seen:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch", os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
sys.meta_path.insert(0, Seen())
from lottery.cli.app import main
main(["layers", "mlp", "--data", "digits"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"torch {SPINS}" in run.stderr, run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_memory_that_comes_back_at_once_is_kept():
    """A page that the kernel hands out anew is a fault; 64 MiB are 16,384 of them.

    In a process of its own, and at its least: where a small object lies in the place of a tensor, this needs new pages.
    """
    code = """
import resource, torch
from lottery.state.machine.memory import keeping_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.zeros(2**24).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with keeping_memory():
    kept = min(faults() for _ in range(5))
print(kept, min(faults() for _ in range(5)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, given_back = map(int, run.stdout.split())
    assert kept < 1_000 < given_back
