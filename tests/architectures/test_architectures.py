"""Every step with every architecture is right, or refused in the one line that the list expects.

The whole list takes more than an hour and is marked `slow`; a few always run. What they are worth: `steps.py`.
"""

import re

import pytest

from tests.architectures.listing import architectures
from tests.architectures.steps import STEPS
from tests.architectures.verdicts import NOT_REACHED, REFUSED, RIGHT, verdicts

# One of each root: containers, state, randomness, sharing, recurrence, attention, convolutions, types.
FAST = (
    "perceptron", "residual", "depthwise", "fused-attention", "gru-bidirectional", "shared-module", "two-heads",
    "returns-dataclass", "auxiliary-head", "variational", "running-mean", "float64",
)  # fmt: skip
QUICK_STEPS = tuple(step for step in STEPS if step not in ("onnx", "es"))  # the others compile for seconds each


def check(name, steps):
    architecture = architectures()[name]
    for found in verdicts(architecture, steps):
        expected = architecture.refused.get(found.step)
        refused = found.verdict == REFUSED and expected is not None and re.search(expected, found.reason)
        no_ticket = found.verdict == NOT_REACHED and "gd" in architecture.refused
        assert found.verdict == RIGHT or refused or no_ticket, found


@pytest.mark.parametrize("name", FAST)
def test_a_few_go_right(name):
    check(name, QUICK_STEPS)


def test_evolution_and_onnx_of_one():
    check("perceptron", ("onnx", "es"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", architectures())
def test_all_go_right_or_are_refused_by_name(name):
    check(name, tuple(STEPS))


def test_names_are_given_once():
    assert len(architectures()) >= 130 and set(FAST) <= architectures().keys()
