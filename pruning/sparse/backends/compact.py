"""The dense product without dead rows and columns."""

from __future__ import annotations

import torch

from pruning.sparse.backends import backend
from pruning.sparse.plans.cost import Machine, dense_seconds
from pruning.sparse.plans.plan import Plan


def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    return True


def _seconds(plan: Plan, batch: int, rates: Machine) -> float:
    rows, columns = len(plan.live_rows), len(plan.live_columns)
    if (rows, columns) == plan.shape:
        return float("inf")
    copied = 4.0 * batch * (2 * columns * (columns < plan.shape[1]) + 2 * plan.shape[0] * (rows < plan.shape[0]))
    return dense_seconds(rows, columns, batch, rates) + 2 * rates.call + copied / rates.memory


@backend("compact", runs=_runs, seconds=_seconds, source="results/sparse-forward")
def compact(values: torch.Tensor, inputs: torch.Tensor, plan: Plan) -> torch.Tensor:
    """A dense product of the rows and columns that keep a weight.

    An input that no weight reads is never read: what stands there, infinities too, has no effect.

    >>> compact(torch.tensor([2.0]), torch.ones(2, 1), Plan.of([[0, 1], [0, 0]])).flatten().tolist()
    [2.0, 0.0]
    """
    rows, columns, places = _places(plan, inputs.device)
    matrix = values.new_zeros(len(rows) * len(columns)).index_copy(0, places, values)
    outputs = matrix.reshape(len(rows), len(columns)) @ inputs.index_select(0, columns)
    return inputs.new_zeros(plan.shape[0], inputs.shape[1]).index_copy(0, rows, outputs)


def _places(plan: Plan, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return live rows, live columns, and where each kept weight lies among them."""
    key = "compact", device
    if key not in plan.made:
        live = plan.mask[plan.live_rows][:, plan.live_columns]
        found = plan.live_rows, plan.live_columns, live.reshape(-1).nonzero()[0]
        plan.made[key] = tuple(torch.from_numpy(array).to(device) for array in found)
    return plan.made[key]
