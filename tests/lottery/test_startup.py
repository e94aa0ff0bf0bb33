"""The time that a search takes to its first step, as the benchmark measures it."""

from __future__ import annotations

import math

import pytest

from lottery.bench import startup
from lottery.bench.startup import PHASES, seconds_to_first_step, start_up
from pruning.errors import RunError


def test_every_phase_is_timed_and_imports_take_longest():
    phases = start_up("digits", "mlp")
    assert list(phases) == list(PHASES)
    assert all(0 < seconds < 600 for seconds in phases.values())
    assert max(phases, key=phases.__getitem__) == "imports and data"


def test_the_whole_is_the_sum_of_its_phases(monkeypatch):
    asked = []
    monkeypatch.setattr(startup, "start_up", lambda *given: asked.append(given) or {"one": 0.25, "other": 1.5})
    assert math.isclose(seconds_to_first_step("fashion-mnist", "lenet-300-100"), 1.75)
    assert asked == [("fashion-mnist", "lenet-300-100")]


def test_a_command_that_takes_no_step_is_an_error_with_its_own_words():
    with pytest.raises(RunError, match="took no step on 'digit': lottery: unknown data 'digit': did you mean 'digits'"):
        start_up("digit", "mlp")
