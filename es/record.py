"""What is kept of one evolution on the host while it runs, and how that becomes a checkpoint and comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pruning.errors import FileFormatError
from pruning.jobs import Evaluation, Params
from pruning.watch import Arrays

_STATE, _BEST, _SNAPSHOT = "state/", "best/", "step-"


@dataclass(frozen=True)
class Record:
    """One evolution so far.

    Attributes:
        best: parameters and buffers of the evaluated mean with the smallest validation loss.
        best_loss: that loss.
        history: evaluations in the order of their steps.
        snapshots: step to parameters and buffers.
    """

    best: Params
    best_loss: float = math.inf
    history: tuple[Evaluation, ...] = ()
    snapshots: Mapping[int, Params] = field(default_factory=dict)

    def evaluated(self, evaluation: Evaluation, params: Params) -> Record:
        """Return the record with one more evaluation, of the network with these parameters."""
        record = replace(self, history=(*self.history, evaluation))
        loss = evaluation.validation_loss
        better = loss is not None and math.isfinite(loss) and loss < self.best_loss
        return replace(record, best=params, best_loss=loss) if better else record

    def with_snapshot(self, step: int, params: Params) -> Record:
        """Return the record with the parameters at a step."""
        return replace(self, snapshots={**self.snapshots, step: params})


def to_arrays(states: Any, records: Sequence[Record]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a checkpoint: arrays with one row for each job, and plain JSON for each job.

    >>> arrays, facts = to_arrays({"mean": jnp.ones((1, 2))}, [Record({"w": np.zeros(3)}, best_loss=0.5)])
    >>> {name: array.shape for name, array in arrays.items()}, facts
    ({"state/['mean']": (1, 2), 'best/w': (1, 3)}, [{'best_loss': 0.5, 'history': []}])
    """
    arrays = {f"{_STATE}{name}": np.asarray(leaf) for name, leaf in _named_leaves(states)}
    for name in records[0].best:
        arrays[f"{_BEST}{name}"] = np.stack([record.best[name] for record in records])
    for step, params in records[0].snapshots.items():
        for name in params:
            arrays[f"{_SNAPSHOT}{step}/{name}"] = np.stack([record.snapshots[step][name] for record in records])
    facts = [{"best_loss": r.best_loss, "history": [asdict(point) for point in r.history]} for r in records]
    return arrays, facts


def from_arrays(like: Any, arrays: Arrays, facts: Sequence[Mapping[str, Any]]) -> tuple[Any, list[Record]]:
    """Return states and records from a checkpoint; `like` gives the states' structure.

    Raises:
        FileFormatError: a checkpoint of other states.

    >>> states, record = {"mean": jnp.ones((1, 2))}, Record({"w": np.zeros(3)}, best_loss=0.5)
    >>> again, records = from_arrays(states, *to_arrays(states, [record]))
    >>> again["mean"].tolist(), records[0].best["w"].tolist(), records[0].best_loss
    ([[1.0, 1.0]], [0.0, 0.0, 0.0], 0.5)
    """
    wanted = {f"{_STATE}{name}": (leaf.shape, leaf.dtype) for name, leaf in _named_leaves(like)}
    found = {name: (a.shape, a.dtype) for name, a in arrays.items() if name.startswith(_STATE)}
    if wanted != found:
        raise FileFormatError(
            "the checkpoint of this level is of another strategy or version: delete the run's checkpoint-*.safetensors"
        )
    states = jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in wanted])
    records = []
    for row, fact in enumerate(facts):
        best = {name.removeprefix(_BEST): rows[row] for name, rows in arrays.items() if name.startswith(_BEST)}
        snapshots: dict[int, dict[str, Any]] = {}
        for name, rows in arrays.items():
            if name.startswith(_SNAPSHOT):
                step, _, tensor = name.removeprefix(_SNAPSHOT).partition("/")
                snapshots.setdefault(int(step), {})[tensor] = rows[row]
        loss = math.inf if fact["best_loss"] is None else fact["best_loss"]
        history = tuple(Evaluation(**point) for point in fact["history"])
        records.append(Record(best, loss, history, snapshots))
    return states, records


def generation_of(arrays: Arrays) -> int:
    """Return the generation that a checkpoint's first job had reached; -1 where there is none.

    >>> generation_of({"state/.generation": np.array([7, 7])}), generation_of({})
    (7, -1)
    """
    rows = arrays.get(f"{_STATE}.generation")
    return int(rows[0]) if rows is not None and len(rows) else -1


def _named_leaves(states: Any) -> list[tuple[str, jax.Array]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(states)[0]]
