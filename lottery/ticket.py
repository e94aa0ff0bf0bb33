"""Tickets: a mask, the weights at the rewind point, and where they came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.card import card
from lottery.models.recorded import maker_of
from lottery.models.source import is_jax_pair
from lottery.randomness import seeded_everywhere
from lottery.results import Search
from lottery.torch_state import load_state
from lottery.users_code import users_code
from pruning.errors import BadValue, FileFormatError, MaskMismatch, UsageError
from pruning.files import atomic_directory, read_json, read_tensors, write_json, write_tensors, write_text
from pruning.mask import Mask
from pruning.torch_modules import clean_copy, hold_mask

if TYPE_CHECKING:
    from pruning.sparse.choices import Choosing
    from pruning.sparse.module import SparseModule

_OPTIONAL = ("trained", "best", "std")
_REQUIRED = ("level", "seed", "density", "sparsity", "kept", "prunable", "layers", "validation", "test", "metric")


@dataclass(frozen=True)
class Ticket:
    """A sparse sub-network and its saved initialization.

    Attributes:
        mask: which weights survive.
        params: parameters and buffers at the rewind point, by dotted name, not masked.
        trained_params: the trained, masked parameters and buffers, or None.
        info: where it came from and what it reached (`config.json`).
        best_params: parameters and buffers at the evaluation with the smallest validation loss, where they were kept.
        std: standard deviation of every weight at the end of training, where the criterion asked for it.
        path: where it is stored, or None.
        search: every level of every replicate, for a ticket that `find_ticket` returned.
    """

    mask: Mask
    params: Mapping[str, NDArray[Any]]
    trained_params: Mapping[str, NDArray[Any]] | None
    info: Mapping[str, Any]
    best_params: Mapping[str, NDArray[Any]] | None = None
    std: Mapping[str, NDArray[Any]] | None = None
    path: Path | None = None
    search: Search | None = None

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket directory.

        Raises:
            FileFormatError: not a ticket directory, or a file that is truncated, foreign or hostile.
            MaskMismatch: a mask that does not fit the stored weights.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileFormatError(f"{folder}: no such ticket directory")
        if (folder / "environment.json").exists():
            raise FileFormatError(f"{folder}: a run directory, not a ticket; its tickets are in seed-*/level-*")
        if not (folder / "config.json").exists():
            raise FileFormatError(f"{folder}: not a ticket directory; tickets are in runs/…/seed-S/level-LL")
        info = read_json(folder / "config.json")
        if not isinstance(info, dict) or info.get("kind") != "lottery-ticket":
            raise FileFormatError(f"{folder}: config.json does not describe a lottery ticket")
        missing = [key for key in _REQUIRED if key not in info]
        if missing:
            raise FileFormatError(f"{folder}: config.json lacks {', '.join(missing)}")
        params, _ = read_tensors(folder / "model.safetensors")
        mask = Mask.load(folder / "mask.safetensors").fit({name: value.shape for name, value in params.items()})
        optional = {name: _optional(folder, name) for name in _OPTIONAL}
        for name in ("trained", "best"):
            found = optional[name]
            if found is not None and _shapes(found) != _shapes(params):
                raise FileFormatError(f"{folder}: {name}.safetensors and model.safetensors hold different tensors")
        return cls(mask, params, optional["trained"], info, optional["best"], optional["std"], folder)

    def save(self, path: str | Path) -> Ticket:
        """Write a ticket directory and return the ticket that lies there.

        A new directory appears whole or not at all; in an existing one every file is replaced atomically.
        """
        folder = Path(path)
        if folder.exists():
            self._write(folder)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_directory(folder) as temporary:
                self._write(temporary)
        return dataclasses.replace(self, path=folder)

    def rewound(self, model: Any = None) -> Any:
        """Return a copy of `model` that is masked, at its rewind weights, ready to train.

        Train it with any loop: hooks zero the gradients of removed weights, so that they stay exactly 0 under the
        optimizers of `torch.optim`. (A `copy.deepcopy` loses the hooks; `pruning.torch_modules.hold_mask` sets them.)

        Args:
            model: the architecture (never changed), a callable that makes one (from a seed, if it takes one), the name
                of a registered model or `package.module:callable`; by default the registered model that the ticket
                was found in. For a JAX pair `(params, apply)` the result is such a pair; apply the mask yourself while
                you train it (`pruning.pytrees.apply_mask`).

        Raises:
            UsageError: no model, for a ticket that was not found in a registered one.
            MaskMismatch: names or shapes that are not this ticket's (with the closest names).
        """
        return self._into(model, self.params)

    def trained(self, model: Any = None) -> Any:
        """Return a copy of `model`, which is given as to `rewound`, that is masked and at its trained weights.

        Raises:
            UsageError: this ticket was stored without trained weights, or does not name a registered model.
            MaskMismatch: names or shapes that are not this ticket's.
        """
        if self.trained_params is None:
            raise UsageError("this ticket holds no trained weights; train `ticket.rewound(model)` first")
        return self._into(model, self.trained_params)

    def sparse(self, model: Any = None, *example: Any, choosing: Choosing | None = None) -> SparseModule:
        """Return a module that runs the sparse forward pass: never slower than dense, faster where that is possible.

        It has the trained weights where the ticket holds them, otherwise those of the rewind point, and is in
        evaluation mode. Run it under `torch.no_grad()`; `.train()` it to train the surviving weights alone. `.report`
        says layer by layer what runs and whether that pays on this machine.

        Args:
            model: as `rewound` takes it. It may be left out where the example begins with a tensor or an array.
            *example: the arguments of one call, tensors or arrays, with the batch size, type and device that matter.
            choosing: how backends are chosen; by default they are measured once and remembered.

        Raises:
            MaskMismatch: names or shapes that are not this ticket's.
            BadValue: an example that the model does not take, or a JAX pair.
        """
        from pruning.sparse.module import sparse_module

        if isinstance(model, torch.Tensor | np.ndarray):
            model, example = None, (model, *example)
        network = self._into(model, self.params if self.trained_params is None else self.trained_params)
        if not isinstance(network, nn.Module):
            raise BadValue(
                "the sparse forward pass is for PyTorch modules; a JAX pair has it while it is evolved (es/population)"
            )
        tensors = [torch.from_numpy(given) if isinstance(given, np.ndarray) else given for given in example]
        devices = {t.device for t in tensors if isinstance(t, torch.Tensor)}
        if len(devices) == 1:
            network = network.to(devices.pop())
        return sparse_module(network, self.mask, *tensors, choosing=choosing).eval()

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that survive."""
        return self.mask.density

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that were removed."""
        return self.mask.sparsity

    def __str__(self) -> str:
        from lottery.table import ticket_text

        return ticket_text(self)

    def __repr__(self) -> str:
        return f"Ticket(density={self.density:.4g}, level={self.info.get('level')}, path={str(self.path)!r})"

    def _into(self, model: Any, params: Mapping[str, NDArray[Any]]) -> Any:
        with seeded_everywhere(self.info["seed"]):
            make = maker_of(model, self.info, params)
            with users_code("the model"):
                made = make(self.info["seed"])
        if is_jax_pair(made):
            return _into_tree(made, params, self.mask)
        if not isinstance(made, nn.Module):
            raise MaskMismatch(f"expected a torch.nn.Module, not {type(made).__name__}")
        duplicate, _ = clean_copy(made)
        load_state(duplicate, dict(params))
        return hold_mask(duplicate, self.mask)

    def _write(self, folder: Path) -> None:
        write_tensors(folder / "model.safetensors", self.params, {"format": "pt"})
        self.mask.save(folder / "mask.safetensors")
        for name, arrays in zip(_OPTIONAL, (self.trained_params, self.best_params, self.std), strict=True):
            if arrays is not None:
                write_tensors(folder / f"{name}.safetensors", arrays, {"format": "pt"})
            else:
                (folder / f"{name}.safetensors").unlink(missing_ok=True)
        write_text(folder / "README.md", card(self.info))
        write_json(folder / "config.json", dict(self.info))


def _into_tree(pair: Any, params: Mapping[str, NDArray[Any]], mask: Mask) -> tuple[Any, Any]:
    from es.jax_functions import rebuild
    from pruning.pytrees import apply_mask

    tree, apply = pair
    return apply_mask(rebuild(tree, params), mask), apply


def _optional(folder: Path, name: str) -> dict[str, NDArray[Any]] | None:
    path = folder / f"{name}.safetensors"
    return read_tensors(path)[0] if path.exists() else None


def _shapes(params: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in params.items()}
