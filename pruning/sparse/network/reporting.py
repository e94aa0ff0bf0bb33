"""From what was chosen to the report that says so."""

from __future__ import annotations

import torch

from pruning.calls.call import Call
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.network.inference import InferenceRecipe
from pruning.sparse.network.report import SparseReport, layer_reports
from pruning.sparse.network.training import Trainable


def report_of(
    recipe: InferenceRecipe, trainable: Trainable, mask: Mask, call: Call, choosing: Choosing
) -> SparseReport:
    """Return the report of what was chosen for a masked network and an example of its calls.

    >>> from pruning.sparse.network.inference import run_itself
    >>> layer, mask = torch.nn.Linear(2, 1), Mask({"weight": [[1, 0]]})
    >>> recipe, trainable = run_itself(mask, "it writes into its inputs"), Trainable(layer, None, None)
    >>> report = report_of(recipe, trainable, mask, Call((torch.ones(5, 2),)), Choosing(cache=None))
    >>> report.way, report.batch, report.layers[0].reason
    ('dense', (5, 2), 'it writes into its inputs')
    """
    tensors = call.tensors
    first = tensors[0] if tensors else torch.empty(0)
    floats = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    tf32 = first.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 and floats.dtype == torch.float32
    precision = str(floats.dtype).removeprefix("torch.") + (", TF32 products" if tf32 else "")
    layers = layer_reports(recipe, mask, floats.element_size())
    return SparseReport(
        layers=layers,
        dense_seconds=recipe.dense_seconds,
        sparse_seconds=recipe.sparse_seconds,
        step_dense_seconds=trainable.dense_seconds,
        step_sparse_seconds=trainable.sparse_seconds,
        way=f"{recipe.way}, as one CUDA graph" if recipe.graph else recipe.way,
        opaque=recipe.opaque,
        batch=tuple(first.shape),
        device=torch.cuda.get_device_name(first.device) if first.device.type == "cuda" else first.device.type,
        precision=precision,
        threads=torch.get_num_threads(),
        asked=choosing.backend,
        dense_spread=recipe.dense_spread,
        rival_spread=recipe.rival_spread,
        refused=recipe.refused,
        in_training=trainable.reason,
    )
