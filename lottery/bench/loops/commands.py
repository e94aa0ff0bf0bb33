"""Whole commands, each in a process of its own: a ladder of levels, and what comes before the first step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lottery.bench.loops.lenet import BATCH, LR, synthetic
from pruning.errors import RunError

LEVELS, EPOCHS = 21, 2


def ladder(data: str, device: str, examples: int) -> Callable[[], float]:
    """Return a run: the seconds of `lottery prune` over a ladder of LeNet-300-100, evaluated every epoch.

    Args:
        data: a data set or a path, or `synthetic`.
        device: where to train.
        examples: in the training part, of which an epoch follows.
    """
    every = max(1, examples // BATCH)
    command = ["--model", "lenet-300-100", "--levels", str(LEVELS - 1), "--epochs", str(EPOCHS), "--optimizer", "sgd"]
    command += ["--lr", str(LR), "--batch-size", str(BATCH), "--device", device, "--set", f"eval_every={every}"]

    def seconds() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = data if data != "synthetic" else str(_stored(Path(folder)))
            return _timed(["-m", "lottery", "prune", "--data", path, *command, "--out", folder, "--quiet"])

    return seconds


def import_torch() -> float:
    """Return the seconds of a process that imports PyTorch and ends."""
    return _timed(["-c", "import torch"])


def _stored(folder: Path) -> Path:
    given = synthetic()
    (x_train, y_train), (x_test, y_test) = given.train, given.test or ((), ())
    path = folder / "synthetic.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def _timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    # 1 is a search without a winning ticket: random labels have none.
    if done.returncode not in (0, 1) or "Error" in done.stderr:
        raise RunError(f"{' '.join(arguments[:3])} failed: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - began
