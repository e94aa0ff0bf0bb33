"""The steps of the table: what each architecture goes through, and how the result is checked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from lottery import Ticket, find_ticket
from lottery.exports.exporting import export
from tests.architectures.entry import Architecture
from tests.architectures.plainly import Wrong, arguments, batches, call, compare, fewer, learned, measured

BATCH = 6
PRUNE_RATE = 0.6
# Relative to the largest value; sums in another order.
CLOSE = {torch.bfloat16: 2e-2, torch.float64: 1e-6}
CLOSE_OTHERWISE = 1e-3


@dataclass
class Trial:
    """One architecture on its way through the steps.

    Attributes:
        architecture: which.
        folder: for runs and files.
        model: the module that is handed to every call; nothing may change it.
        tickets: those of the search by gradient descent, level 0 first.
        dense: masked tensors that the sparse forward left dense.
    """

    architecture: Architecture
    folder: Path
    model: nn.Module
    tickets: list[Ticket] = field(default_factory=list)
    dense: list[str] = field(default_factory=list)

    @property
    def close(self) -> float:
        """How far results may differ."""
        kinds = {p.dtype for p in self.model.parameters()}
        return max((CLOSE.get(kind, CLOSE_OTHERWISE) for kind in kinds), default=CLOSE_OTHERWISE)

    def search(self, model: nn.Module, **settings: Any) -> list[Ticket]:
        """Return the tickets of a search, level 0 first."""
        mine = self.architecture
        given = {key: value for key, value in (("loss", mine.loss), ("metric", mine.metric)) if value is not None}
        ticket = find_ticket(
            model, mine.data(), **given, **settings,
            prune_rate=PRUNE_RATE, batch_size=BATCH, tolerance=1e6, device="cpu", out=self.folder / "runs", quiet=True,
        )  # fmt: skip
        assert ticket.search is not None
        return [Ticket.load(level.replicates[0].path) for level in ticket.search.levels]

    def trained(self, ticket: Ticket) -> nn.Module:
        """Return the ticket's network, in evaluation mode."""
        return ticket.trained(self.architecture.model()).eval()

    def example(self) -> Any:
        """Return the first validation batch's inputs."""
        return next(iter(batches(self.model, self.architecture.data().validation, BATCH)))[0]

    def examples(self, count: int) -> Any:
        """Return a batch of exactly so many training examples, which a file for one batch size takes."""
        part = self.architecture.data().train
        if isinstance(part, DataLoader):
            part = DataLoader(part.dataset, count, collate_fn=part.collate_fn)
        return next(iter(batches(self.model, part, count)))[0]


def gd(trial: Trial) -> None:
    """Two levels of gradient descent: what is recorded, kept, removed and trained is what it says."""
    trial.tickets = trial.search(trial.model, levels=2, steps=8, eval_every=4, lr=5e-3)
    dense, *_ = trial.tickets
    total = dense.mask.total
    for level, ticket in enumerate(trial.tickets):
        if abs(ticket.mask.kept - total * (1 - PRUNE_RATE) ** level) > level:
            raise Wrong(f"level {level} keeps {ticket.mask.kept} of {total}")
        check_recorded(trial, ticket)
        check_removed(trial, ticket)
    moved = {
        name
        for name, value in (dense.trained_params or {}).items()
        if name in dense.params and not np.array_equal(value, dense.params[name], equal_nan=value.dtype.kind == "f")
    }
    still = learned(trial.architecture, trial.architecture.model(), BATCH) - moved
    if still:
        raise Wrong(
            f"{len(still)} parameters have gradients and did not move in training: {', '.join(sorted(still)[:3])}"
        )


def check_recorded(trial: Trial, ticket: Ticket) -> None:
    """Compare the recorded validation metric with an evaluation of what the ticket delivers."""
    recorded, own = ticket.info["validation"], measured(trial.architecture, trial.trained(ticket), BATCH)
    close = 0.2 if trial.architecture.draws else trial.close
    if abs(recorded - own) > close * max(1.0, abs(own)):
        raise Wrong(f"level {ticket.info['level']} recorded {recorded:.6g}, and its ticket gives {own:.6g}")


def check_removed(trial: Trial, ticket: Ticket) -> None:
    """See that removed weights are 0 in the stored weights and in the module that is delivered."""
    parameters = dict(ticket.trained(trial.architecture.model()).named_parameters(remove_duplicate=False))
    for name, keep in ticket.mask.items():
        stored = (ticket.trained_params or {})[name]
        if np.any(stored[~keep]) or bool(parameters[name].detach()[torch.from_numpy(~keep)].any()):
            raise Wrong(f"{name} has removed weights that are not 0")


def sparse(trial: Trial) -> None:
    """The sparse forward gives what the masked dense network gives, in the same classes, for two batch sizes."""
    ticket, inputs = trial.tickets[-1], trial.example()
    args, kwargs = arguments(inputs)
    network = ticket.sparse(trial.model, *args, **kwargs)
    trial.dense = [layer.name for layer in network.report.layers if layer.backend == "dense"]
    compare_calls(trial, lambda given: call(network, given), ticket, inputs)


def compare_calls(
    trial: Trial,
    forward: Callable[[Any], Any],
    ticket: Ticket,
    inputs: Any,
    *,
    flat: bool = False,
    resizable: bool = True,
) -> None:
    """Compare a function of a batch with the ticket's network, on the batch and on fewer examples."""
    reference = trial.trained(ticket)
    sizes = [inputs, fewer(inputs, 3)] if resizable and trial.architecture.resizable else [inputs]
    with torch.no_grad():
        for given in sizes:
            found, wanted = forward(given), call(reference, given)
            if flat:
                found, wanted = (
                    [leaf for leaf in tree_leaves(each) if isinstance(leaf, torch.Tensor)] for each in (found, wanted)
                )
            compare(found, wanted, trial.close)


def exported(trial: Trial, to: str) -> Any:
    """Export the last ticket and return the module that its `load.py` is."""
    folder = trial.folder / to
    export(trial.tickets[-1], to, trial.model, trial.architecture.data(), out=folder)
    spec = importlib.util.spec_from_file_location(f"load_{to}", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def csr(trial: Trial) -> None:
    """Compressed rows, read by their own loader, hold as many weights as the mask and give the same outputs."""
    module = exported(trial, "csr")
    stored = module.read()
    for name, keep in trial.tickets[-1].mask.items():
        if name in stored and (stored[name].layout != torch.sparse_csr or stored[name]._nnz() != int(keep.sum())):
            raise Wrong(f"{name} is not stored as {int(keep.sum())} weights in compressed rows")
    model = module.load(trial.architecture.model()).eval()
    compare_calls(trial, lambda given: call(model, given), trial.tickets[-1], trial.example())


def onnx(trial: Trial) -> None:
    """onnxruntime gives what PyTorch gives."""
    session = exported(trial, "onnx").load()
    names = [each.name for each in session.get_inputs()]

    def forward(given: Any) -> list[torch.Tensor]:
        args, kwargs = arguments(given)
        feeds = kwargs if set(names) <= set(kwargs) else dict(zip(names, tree_leaves((args, kwargs)), strict=True))
        found = session.run(None, {name: feeds[name].numpy() for name in names})
        return [torch.from_numpy(np.asarray(each)) for each in found]

    # What could be exported for one batch size only says so, and has a number in the place of a name.
    fixed = next(
        (each.shape[0] for each in session.get_inputs() if each.shape and isinstance(each.shape[0], int)), None
    )
    inputs = trial.example() if fixed is None else trial.examples(fixed)
    compare_calls(trial, forward, trial.tickets[-1], inputs, flat=True, resizable=fixed is None)


def es(trial: Trial) -> None:
    """Two generations of evolution: what is recorded is what PyTorch measures, and removed weights are 0."""
    model = trial.architecture.model()
    for ticket in trial.search(model, trainer="es", levels=1, generations=2, population=8):
        check_recorded(trial, ticket)
        check_removed(trial, ticket)
    check_unchanged(model, trial.architecture.model())


def unchanged(trial: Trial) -> None:
    """The caller's module is, bit for bit, what it was: weights, buffers, gradients, modes, hooks, plain attributes."""
    check_unchanged(trial.model, trial.architecture.model())


def check_unchanged(model: nn.Module, fresh: nn.Module) -> None:
    """Compare every module with that of a model that nobody used."""
    was = dict(fresh.named_modules())
    for name, module in model.named_modules():
        compare(_state(module), _state(was[name]), 0.0, name or "the model")
        grads = [key for key, p in module.named_parameters(name, recurse=False) if p.grad is not None]
        if grads:
            raise Wrong(f"{grads[0]} has a gradient now")


def _state(module: nn.Module) -> dict[str, Any]:
    hooks = {key: len(value) for key, value in vars(module).items() if key.endswith("_hooks") and value is not None}
    tensors = {key: p.detach() for key, p in (*module._parameters.items(), *module._buffers.items()) if p is not None}
    plain = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
    return {"hooks": hooks, "tensors": tensors, "plain": plain, "replaced": "forward" in vars(module)}


STEPS: Mapping[str, Callable[[Trial], None]] = {
    "gd": gd, "sparse": sparse, "csr": csr, "onnx": onnx, "es": es, "unchanged": unchanged,
}  # fmt: skip
NEED_A_TICKET = ("sparse", "csr", "onnx")
