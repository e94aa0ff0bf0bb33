"""Promises of bits, on the programs that users get: conftest.py has those of the tests compiled in less time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Going on after a stop, and sharing the members among devices, have their own: tests/lottery/test_evolving.py,
# tests/es/test_devices.py.
PROMISES = (
    "tests/es/test_trainer.py::TestBits::test_how_many_generations_run_at_a_time_changes_nothing[stacked]",
    "tests/es/test_trainer.py::TestBits::test_an_interrupted_evolution_goes_on_bit_by_bit[stacked-2]",
    "tests/es/test_trainer.py::TestBits::test_one_after_the_other_under_one_mask_they_share_a_program",
)


def test_programs_as_users_get_them_keep_the_promises_of_bits():
    plain = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *plain, *PROMISES]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(PROMISES)} passed" in done.stdout, done.stdout + done.stderr
