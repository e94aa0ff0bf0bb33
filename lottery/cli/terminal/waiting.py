"""How long PyTorch's threads wait for each other by spinning, in a process of the command line.

A thread that spins keeps a core from the one that it waits for. By default they spin for milliseconds: up to 25 times
the time beside one process that computes. A shorter wait holds that to about 2 times; what it costs alone is within the
noise of these timings (a tenth or so, on a machine that others used too). Milliseconds a training step (batch 64,
float32, two cores; alone, and beside one process that computes all the time):

    spins       conv-2        resnet-20
    300,000     132    511    145   3584    (libgomp's default)
    30,000      116    251    152    859
    3,000       121    248    199    321
    300         132    223    160    287
    0           123    212    197    281    (OMP_WAIT_POLICY=passive)
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping

SPINS = "1000"

_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Let the threads of libgomp, which reads the environment when PyTorch is loaded, soon sleep when they wait.

    Nothing is set where the user has said how they wait, or where PyTorch is there already.

    >>> environment: dict[str, str] = {}
    >>> wait_briefly(environment)
    >>> set(environment) <= {"GOMP_SPINCOUNT"}
    True
    """
    if "torch" not in sys.modules and not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
