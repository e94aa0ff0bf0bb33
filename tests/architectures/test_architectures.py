"""Every step with every architecture is right, or refused in the one line that the list expects.

The whole list takes more than an hour and is marked `slow`; a few always run. What they are worth: `steps.py`.
"""

import re
from pathlib import Path

import pytest

from tests.architectures.listing import architectures
from tests.architectures.refused import REFUSED
from tests.architectures.steps import STEPS
from tests.architectures.table import read
from tests.architectures.verdicts import REFUSED as A_REFUSAL
from tests.architectures.verdicts import RIGHT, verdicts

# One of each root: containers, state, randomness, sharing, recurrence, attention, convolutions, types.
FAST = (
    "perceptron", "residual", "depthwise", "fused-attention", "gru-bidirectional", "shared-module", "two-heads",
    "returns-dataclass", "auxiliary-head", "variational", "running-mean", "float64",
)  # fmt: skip
QUICK_STEPS = tuple(step for step in STEPS if step not in ("onnx", "es"))  # the others compile for seconds each


def check(name, steps):
    architecture = architectures()[name]
    for found in verdicts(architecture, steps):
        expected = REFUSED.get(name, {}).get(found.step)
        refused = found.verdict == A_REFUSAL and expected is not None and re.search(expected, found.reason)
        assert refused if expected is not None else found.verdict == RIGHT, found


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
    assert len(architectures()) >= 160 and set(FAST) | REFUSED.keys() <= architectures().keys()


def test_the_stored_table_is_of_this_list_and_holds_what_is_promised():
    rows = read(Path(__file__).parents[2] / "results" / "any-model")
    assert rows.keys() == architectures().keys()
    right = {step: sum(row[step].verdict == RIGHT for row in rows.values()) / len(rows) for step in STEPS}
    assert min(right["gd"], right["sparse"], right["csr"], right["unchanged"]) == 1
    assert right["es"] >= 0.95 and right["onnx"] >= 0.8
    for name, row in rows.items():
        for step, found in row.items():
            expected = REFUSED.get(name, {}).get(step)
            assert found.verdict == (RIGHT if expected is None else A_REFUSAL), found
            assert expected is None or re.search(expected, found.reason), found
