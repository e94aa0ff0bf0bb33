"""The trainer of a run: it chooses how to compute as it did when the run was begun, so that the bits are the same."""

from __future__ import annotations

from pathlib import Path

from lottery.runs.records import read_environment
from lottery.state.machine.environment import environment
from lottery.trainers import Setup
from pruning.disk.files import is_there, write_json
from pruning.jobs import Calibrated, Trainer

_ENTRY = "calibration"


def recorded_trainer(run: Path, setup: Setup) -> Trainer:
    """Return the trainer of a run, and record what it depends on where the run begins.

    A run that was made before anything was recorded goes on as it was begun: choosing nothing.

    Args:
        run: the run directory.
        setup: the trainer, as it would choose now.
    """
    trainer, path = setup.trainer, run / "environment.json"
    if not is_there(path):
        found = {_ENTRY: trainer.calibration} if isinstance(trainer, Calibrated) else {}
        write_json(path, environment(setup.device) | found)
        return trainer
    if not isinstance(trainer, Calibrated):
        return trainer
    return trainer.calibrated(read_environment(run).get(_ENTRY))
