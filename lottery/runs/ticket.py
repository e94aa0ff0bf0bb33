"""Tickets: a mask, the weights at the rewind point, and where they came from."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from es.jax_models.kinds import is_jax_model
from lottery.networks.sources.recorded import maker_of
from lottery.results.card import card
from lottery.results.levels import Search
from lottery.runs.records import weights_seed
from lottery.runs.ticket_directory import CARD, MASK, RECORD, foreign_names, is_ticket, open_ticket, seal_ticket
from lottery.state.machine.callers_settings import own_settings
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import load_state
from pruning.calls.call import Call
from pruning.calls.users_code import users_code
from pruning.disk.directories import replaced_directory, while_it_stands
from pruning.disk.files import is_there, write_tensors, write_text
from pruning.errors import BadValue, FileFormatError, MaskMismatch, UsageError
from pruning.jobs import all_finite
from pruning.mask import Mask
from pruning.torch_modules import clean_copy, hold_mask

if TYPE_CHECKING:
    from pruning.sparse.choices import Choosing
    from pruning.sparse.module import SparseModule

_OPTIONAL = ("trained", "best", "last", "std")
TWIN = "give a PyTorch module whose parameters have the same names and shapes (model=…)"
"""What can be done with the ticket of a JAX model where only PyTorch will do."""
_LEVEL = re.compile(r"/seed-\d+/level-\d+$")


@dataclass(frozen=True)
class Ticket:
    """A sparse sub-network and its saved initialization.

    Attributes:
        mask: which weights survive.
        params: parameters and buffers at the rewind point, by dotted name, not masked.
        trained_params: the trained, masked parameters and buffers, or None. They are those that the ticket's numbers
            are of: of the last step, or of the early-stop step (`info["delivered"]`).
        info: where it came from and what it reached (`config.json`).
        best_params: parameters and buffers at the evaluation with the smallest validation loss, where they were kept.
        last_params: parameters and buffers of the last step, where `trained_params` are of an earlier one.
        std: standard deviation of every weight at the end of training, where the criterion asked for it.
        path: where it is stored, or None.
        search: every level of every replicate, for a ticket that `find_ticket` returned.
        hashed: whether its files have hashes, with which they are compared when they are read; one that an earlier
            version stored has none.
        named: models and data that the caller of `find_ticket` named in this process; the record's own names are not
            run unasked.
    """

    mask: Mask
    params: Mapping[str, NDArray[Any]]
    trained_params: Mapping[str, NDArray[Any]] | None
    info: Mapping[str, Any]
    best_params: Mapping[str, NDArray[Any]] | None = None
    last_params: Mapping[str, NDArray[Any]] | None = None
    std: Mapping[str, NDArray[Any]] | None = None
    path: Path | None = None
    search: Search | None = None
    hashed: bool = True
    named: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket directory, every file against the hash in its record (`lottery/runs/ticket_directory.py`).

        Nothing that it names is imported or called.

        Raises:
            FileFormatError: not a ticket directory, or a file that is truncated, foreign, hostile or not what was
                written.
            MaskMismatch: a mask that does not fit the stored weights.
        """
        folder = Path(path)
        return while_it_stands(folder, lambda: cls._read(folder))

    def save(self, path: str | Path) -> Ticket:
        """Write a ticket directory and return the ticket that lies there.

        It appears whole or not at all, also in the place of an older ticket, and also where several processes save to
        one place: the last one wins.

        Raises:
            BadValue: a file, a folder with other things than a ticket, the current folder, or a level of a run.
        """
        folder = Path(path)
        place = Path(os.path.realpath(folder))
        while_it_stands(place, lambda: _check_replaceable(folder, place))
        with replaced_directory(place) as temporary:
            # Without an older ticket, or with one that another process replaces just now, there is no mode to keep.
            with suppress(FileNotFoundError):
                shutil.copymode(place, temporary)
            self._write(temporary)
        return dataclasses.replace(self, path=folder, hashed=True)

    def rewound(self, model: Any = None) -> Any:
        """Return a copy of `model` that is masked, at its rewind weights, ready to train.

        Train it with any loop: the model holds the mask, so that removed weights stay exactly 0 under every optimizer
        of `torch.optim`, in copies, pickles and other processes (`pruning.torch_modules.hold_mask`).

        Args:
            model: the architecture (never changed), a callable that makes one (from a seed, if it takes one), the name
                of a registered model or `package.module:callable`; by default the registered model that the ticket
                was found in. For a JAX model the result is what was given: a pair `(params, apply)`, an nnx or Equinox
                module; for a Linen module its variables. Apply the mask yourself while you train it
                (`pruning.pytrees.apply_mask`).

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

    @own_settings()
    def sparse(
        self, model: Any = None, /, *example: Any, choosing: Choosing | None = None, **named: Any
    ) -> SparseModule:
        """Return a module that runs the sparse forward pass: never slower than dense, faster where that is possible.

        It has the trained weights where the ticket holds them, otherwise those of the rewind point, and is in
        evaluation mode. Run it under `torch.no_grad()`; `.train()` it to train the surviving weights alone. `.report`
        says layer by layer what runs and whether that pays on this machine.

        Args:
            model: as `rewound` takes it. It may be left out where the example begins with a tensor or an array.
            *example: the arguments of one call, tensors or arrays, with the batch size, type and device that matter;
                or one mapping of them, as tokenizers give it.
            choosing: how backends are chosen; by default they are measured once and remembered.
            **named: arguments that the model takes by name: `ticket.sparse(model, **batch)`.

        Raises:
            MaskMismatch: names or shapes that are not this ticket's.
            BadValue: an example that the model does not take, outputs that nothing can be compared with, or a JAX
                model.
        """
        from pruning.sparse.module import sparse_module

        if isinstance(model, torch.Tensor | np.ndarray):
            model, example = None, (model, *example)
        network = self._into(model, self.params if self.trained_params is None else self.trained_params)
        if not isinstance(network, nn.Module):
            raise BadValue(
                "ticket.sparse runs PyTorch modules, and this model is in JAX, which runs sparse while it is evolved; "
                f"elsewhere take ticket.trained(model), whose removed weights are 0, or {TWIN}"
            )
        call = Call.of(network, example, named).of_tensors()
        devices = {tensor.device for tensor in call.tensors}
        if len(devices) == 1:
            network = network.to(devices.pop())
        return sparse_module(network, self.mask, *call.args, choosing=choosing, **call.kwargs).eval()

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that survive."""
        return self.mask.density

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable weights that were removed."""
        return self.mask.sparsity

    def __str__(self) -> str:
        from lottery.results.table import ticket_text

        trained = self.trained_params is not None
        return ticket_text(self.info, self.mask, self.search, self.path, trained=trained, hashed=self.hashed)

    def __repr__(self) -> str:
        return f"Ticket(density={self.density:.4g}, level={self.info.get('level')}, path={str(self.path)!r})"

    @own_settings()
    def _into(self, model: Any, params: Mapping[str, NDArray[Any]]) -> Any:
        seed = weights_seed(self.info)
        with seeded_everywhere(seed):
            make = maker_of(model, self.info, params)
            with users_code("the model"):
                made = make(seed)
        if is_jax_model(made):
            return _into_tree(made, self.info, params, self.mask)
        if not isinstance(made, nn.Module):
            raise MaskMismatch(f"expected a torch.nn.Module, not {type(made).__name__}")
        duplicate, _ = clean_copy(made)
        load_state(duplicate, dict(params))
        return hold_mask(duplicate, self.mask)

    @classmethod
    def _read(cls, folder: Path) -> Ticket:
        if not folder.is_dir():
            raise FileFormatError(f"{folder}: no such ticket directory")
        if is_there(folder / "environment.json"):
            raise FileFormatError(f"{folder}: a run directory, not a ticket; its tickets are in seed-*/level-*")
        if not is_there(folder / RECORD):
            raise FileFormatError(f"{folder}: not a ticket directory; tickets are in runs/…/seed-S/level-LL")
        files = open_ticket(folder)
        params = files.tensors("model")
        mask = files.mask().fit({name: value.shape for name, value in params.items()})
        optional = {name: files.tensors(name) if files.has(name) else None for name in _OPTIONAL}
        trained, std = optional["trained"], optional["std"]
        for name in ("trained", "best", "last"):
            found = optional[name]
            if found is not None and not _fits(found, params, mask):
                raise FileFormatError(f"{folder}: {name}.safetensors and model.safetensors hold different tensors")
        if std is not None and not _shapes(std).items() <= _shapes(params).items():
            raise FileFormatError(f"{folder}: std.safetensors holds other tensors than model.safetensors")
        if files.hashes is None and trained is not None and files.record.get("diverged") is None:
            _check_finite(folder / "trained.safetensors", {name: trained[name] for name in mask})
        return cls(
            mask=mask,
            params=params,
            trained_params=trained,
            info=files.record,
            best_params=optional["best"],
            last_params=optional["last"],
            std=std,
            path=folder,
            hashed=files.hashes is not None,
        )

    def _write(self, folder: Path) -> None:
        write_tensors(folder / "model.safetensors", self.params, {"format": "pt"})
        self.mask.save(folder / MASK)
        optional = (self.trained_params, self.best_params, self.last_params, self.std)
        for name, arrays in zip(_OPTIONAL, optional, strict=True):
            if arrays is not None:
                write_tensors(folder / f"{name}.safetensors", arrays, {"format": "pt"})
        write_text(folder / CARD, card(self.info))
        seal_ticket(folder, self.info)


def _check_replaceable(folder: Path, place: Path) -> None:
    """Raise `BadValue` where a ticket cannot be saved without losing something else."""
    if not place.exists():
        return
    if not place.is_dir():
        raise BadValue(f"{folder} is a file; a ticket is saved as a folder")
    if place == Path.cwd() or place in Path.cwd().parents:
        raise BadValue(f"{folder} is the current folder, and saving a ticket replaces a folder: name one in it")
    if _LEVEL.search(place.as_posix()) and any(is_there(above / "environment.json") for above in place.parents):
        raise BadValue(f"{folder} is a level of a run, which is written once: save the ticket somewhere else")
    foreign = foreign_names(place)
    if foreign or (os.listdir(place) and not is_ticket(place)):
        what = ", ".join(foreign[:3]) or "no ticket"
        raise BadValue(f"{folder} holds {what}, which saving a ticket there would lose: save it in a new folder")


def _check_finite(path: Path, params: Mapping[str, NDArray[Any]]) -> None:
    if not all_finite(params):
        raise FileFormatError(f"{path}: weights that are not finite, of a training that did not diverge")


def _into_tree(made: Any, info: Mapping[str, Any], params: Mapping[str, NDArray[Any]], mask: Mask) -> Any:
    import jax.numpy as jnp

    from es.jax_models.examples import shapes_of
    from es.jax_models.functions import rebuild
    from es.jax_models.modules import jax_model
    from pruning.pytrees import apply_mask

    model = jax_model(made, weights_seed(info), shapes_of(info["example"]) if "example" in info else None)
    tree = rebuild(model.tree, {name: jnp.asarray(value) for name, value in params.items()})
    return model.given(apply_mask(tree, mask))


def _shapes(params: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in params.items()}


def _fits(found: Mapping[str, np.ndarray[Any, Any]], params: Mapping[str, np.ndarray[Any, Any]], mask: Mask) -> bool:
    """Say whether these are one network's tensors; buffers may have changed their shape, or appeared, in training."""
    return found.keys() >= params.keys() and all(found[name].shape == params[name].shape for name in mask)
