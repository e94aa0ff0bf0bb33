"""Killed at any moment and started again: the same bits as a run that nobody disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `python -m lottery` that takes Ctrl-C also where the tests run in the background, whose children ignore it.
LOTTERY = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('lottery', run_name='__main__')"
)
COMMAND = [sys.executable, "-c", LOTTERY, "prune", "--levels", "5", "--steps", "150", "--replicates", "2"]
COMMAND += ["--rewind", "20", "--set", "momentum=0.9", "--optimizer", "sgd", "--lr", "0.05", "--json", "--quiet"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(folder):
    return subprocess.Popen(
        COMMAND, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def bits(folder):
    """A hash of everything that does not tell the time."""
    (run,) = (folder / "runs").glob("digits*")
    found = {}
    for path in sorted(run.rglob("*")):
        if path.suffix in (".safetensors", ".jsonl", ".md") or path.name in ("history.json",):
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return bits(folder), json.loads(out)


def test_sigkill_at_random_moments(undisturbed, tmp_path):
    rng = random.Random(0)
    kills = 0
    while True:
        process = start(tmp_path)
        levels = len(list(tmp_path.glob("runs/digits*/seed-*/level-*")))
        # Wait until this attempt has written something, then kill it somewhere in the levels that follow.
        deadline = time.monotonic() + 60
        while kills < 4 and process.poll() is None and time.monotonic() < deadline:
            if len(list(tmp_path.glob("runs/digits*/seed-*/level-*"))) > levels:
                time.sleep(rng.uniform(0.15 * kills, 0.15 * (kills + 1)))  # soon after, later, and later still
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        out, err = process.communicate(timeout=240)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
    assert kills >= 3
    expected_bits, expected = undisturbed
    found = json.loads(out)
    assert bits(tmp_path) == expected_bits
    assert found["levels"] == expected["levels"]
    assert found["winning"] == expected["winning"]


def test_interrupted_by_the_keyboard_is_exit_code_130_and_one_line(tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/digits*/seed-*/level-00")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "lottery: interrupted; the same command goes on from the last finished level\n"
