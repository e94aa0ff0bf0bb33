"""A ticket written for another ecosystem, read again, and compared with the network that it was."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lottery.data.batch import is_divisible, rows, size
from lottery.exports import EXPORTS, FIXED, Forward
from lottery.networks.objectives.objective import call
from lottery.runs.given import run_of
from lottery.runs.network import TicketNetwork, ticket_network
from lottery.runs.ticket import Ticket
from lottery.state.machine.callers_settings import own_settings
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import float_type
from pruning.calls import calling
from pruning.calls.structures import tensors_in
from pruning.calls.users_code import one_line, users_code
from pruning.disk.directories import atomic_directory, replaced_directory
from pruning.disk.files import read_json, write_json, write_text
from pruning.errors import BadValue, LotteryError, RunError

_EXAMPLES = 32
# A file is run on as many examples as it was made with, and on fewer: a batch size that froze would go unnoticed.
_FEWER = 3
_KIND = "lottery-export"
# Relative; types with fewer digits cannot keep a sum in another order closer than this.
_TOLERANCES = {torch.float16: 2e-3, torch.bfloat16: 1e-2}
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Exported:
    """The files of an export, and how close they are to the masked dense network.

    Attributes:
        path: the folder.
        to: name of the format.
        weights: `trained` or `rewind`.
        density: the density of the ticket.
        files: size in bytes of every file, by name.
        dense_bytes: the size of all parameters and buffers of the dense network.
        examples: in the batch that was compared.
        difference: largest |exported − masked dense| over the largest |masked dense|, of any output.
        tolerance: the largest difference that is accepted.
        notes: further remarks, one line each.
    """

    path: Path
    to: str
    weights: str
    density: float
    files: Mapping[str, int]
    dense_bytes: int
    examples: int
    difference: float
    tolerance: float
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path), "notes": list(self.notes)}


@own_settings()
def export(
    ticket: Ticket | str | Path,
    to: str,
    model: Any = None,
    data: Any = None,
    *,
    out: str | Path | None = None,
    weights: str = "trained",
    forward: calling.Forward | None = None,
    force: bool = False,
    trust: bool = False,
) -> Exported:
    """Write a ticket in the format of another ecosystem, with a `load.py` that reads it without this toolkit.

    The file is read again by what `load.py` holds, and its outputs are compared with those of the masked dense network
    in evaluation mode, on some training examples (first observations of an environment). Where they differ nothing is
    left behind.

    Args:
        ticket: a ticket, or its directory.
        to: a name from `lottery list exports`.
        model: the architecture, as `find_ticket` takes it; by default the one that the ticket was found in.
        data: likewise; it sizes a named model and gives the examples.
        out: the folder to make; by default `<run>-seed-S-level-LL-<to>` in the current folder, or `<ticket>-<to>` for a
            ticket that lies in no run.
        weights: `trained`, or `rewind` for the initialization that the ticket trains from.
        forward: as `find_ticket` takes it: how the examples are handed to the model.
        force: replace an export that is already there.
        trust: run a model that only the ticket's record names as `package.module:callable`.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        UnknownName: a format, weights, model or data set that does not exist.
        BadValue: a model or data that has no name and was not given, a folder that is there already, a JAX model, or
            what the format cannot express.
        MaskMismatch: a model that the ticket does not fit.
        RunError: outputs that differ.

    >>> from lottery import find_ticket
    >>> ticket = find_ticket("mlp", "digits", levels=1, steps=20, tolerance=1.0, out=tmp / "runs", quiet=True)
    >>> exported = export(ticket, "csr", out=tmp / "csr")
    >>> sorted(exported.files), exported.difference
    (['export.json', 'load.py', 'state_dict.pt'], 0.0)
    """
    chosen = EXPORTS[to].value
    ticket = ticket if isinstance(ticket, Ticket) else Ticket.load(ticket)
    folder = _default_folder(ticket, to) if out is None else Path(out)
    _check_free(folder, force)
    asked = f"export {to!r} writes"
    network = ticket_network(ticket, model, data, weights, _EXAMPLES, asked=asked, trust=trust, forward=forward)
    dense_bytes = sum(tensor.nbytes for tensor in tensors_in(dict(network.model.state_dict())))
    tolerance = _TOLERANCES.get(float_type(network.model), _TOLERANCE)
    facts = {"to": to, "weights": weights, "density": ticket.density, "dense_bytes": dense_bytes}
    with users_code("the model on the examples of the export"), torch.no_grad():
        call(network.model, network.inputs)  # what fails here fails in no format
    becoming = replaced_directory if force else atomic_directory
    with becoming(folder) as temporary, torch.no_grad():
        notes = tuple(chosen.write(network, temporary))
        write_text(temporary / "load.py", inspect.getsource(chosen.loader))
        with _readable(to):
            resized = not any(note.startswith(FIXED) for note in notes)
            found = _largest_difference(chosen.reload(temporary, network), network, chosen.tensors, resized)
        if not found <= tolerance:
            raise RunError(
                f"the {to} file gives other outputs than the masked dense network (relative difference {found:.3g}, "
                f"tolerance {tolerance:g}); nothing was written"
            )
        facts |= {"examples": size(network.inputs), "difference": found, "tolerance": tolerance, "notes": notes}
        about = {
            "kind": _KIND,
            "ticket": str(ticket.path) if ticket.path else None,
            "torch": torch.__version__,
            **facts,
        }
        write_json(temporary / "export.json", about)
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir()) if path.is_file()}
    return Exported(path=folder, files=files, **facts)


def _largest_difference(
    forward: Forward,
    network: TicketNetwork,
    tensors: Callable[[Any], list[torch.Tensor]] = tensors_in,
    resized: bool = True,
) -> float:
    """Return the largest relative difference of a function's outputs from the network's, on its batch and on fewer.

    Both begin from the same random state: a network may draw in evaluation mode.

    Args:
        forward: of a batch.
        network: the network that it should equal.
        tensors: of the network's outputs, those that are compared.
        resized: whether it takes another number of examples.

    Raises:
        RunError: outputs of the network itself that are not finite, with which nothing can be compared.
    """
    fewer = [rows(network.inputs, 0, _FEWER)] if resized and is_divisible(network.inputs) else []
    worst = 0.0
    for inputs in (network.inputs, *fewer):
        with seeded_everywhere(0), users_code("the model on the examples of the export"):
            wanted = tensors(call(network.model, inputs))
        if not wanted:
            raise RunError("the model returns no tensor; there is nothing to compare with")
        if not all(torch.isfinite(leaf).all() for leaf in wanted):
            raise RunError("the masked dense network has outputs that are not finite; there is nothing to compare with")
        with seeded_everywhere(0):
            found = tensors_in(forward(inputs))
        if len(found) != len(wanted):
            return math.inf
        worst = max([worst, *(_relative(one, other) for one, other in zip(found, wanted, strict=True))])
    return worst


def _default_folder(ticket: Ticket, to: str) -> Path:
    """Return where a ticket is exported to if nobody says: a folder in the current one, named after the ticket.

    Raises:
        BadValue: a ticket that is stored nowhere.
    """
    if ticket.path is None:
        raise BadValue("this ticket is not stored, so its export needs a folder: out=…")
    path = ticket.path.resolve()
    run = run_of(path) or path
    return Path("-".join([*path.relative_to(run.parent).parts, to]))


def exported_text(exported: Exported) -> str:
    """Return the summary of an export, for people.

    >>> made = Exported(Path("out"), "csr", "trained", 0.5, {"w.pt": 10}, 20, 32, 1e-7, 1e-5, ("A note.",))
    >>> print(exported_text(made))
    csr: out (trained weights, density 0.5)
      w.pt             10 bytes
      (dense)             20 bytes
    Read again: within 1e-07 (relative) of the masked dense network on 32 examples.
    A note.
    """
    width = max(map(len, exported.files))
    lines = [
        f"{exported.to}: {exported.path} ({exported.weights} weights, density {exported.density:.4g})",
        *(f"  {name:<{width}}  {size:>13,} bytes" for name, size in exported.files.items()),
        f"  {'(dense)':<{width}}  {exported.dense_bytes:>13,} bytes",
        f"Read again: within {exported.difference:.2g} (relative) of the masked dense network "
        f"on {exported.examples} examples.",
    ]
    if max(exported.files.values()) > exported.dense_bytes:
        lines.append(
            "Larger than the dense weights: this format stores what was removed, or a program beside the weights."
        )
    return "\n".join([*lines, *exported.notes])


@contextlib.contextmanager
def _readable(to: str) -> Iterator[None]:
    """Turn whatever reading a written file raises into one line: it would not be readable later either."""
    try:
        yield
    except LotteryError:
        raise
    except Exception as error:  # the loaders run the model's own code (set_extra_state), which may raise anything
        raise BadValue(f"the {to} file cannot be read again ({one_line(error)}); nothing was written") from error


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest |found − wanted| over the largest |wanted|; infinite for another shape or for NaN."""
    if found.shape != wanted.shape:
        return math.inf
    difference = (found.double() - wanted.double()).abs()
    if not difference.numel():
        return 0.0
    worst, scale = float(difference.max()), float(wanted.double().abs().max())
    return worst / (scale or 1.0) if math.isfinite(worst) else math.inf


def _check_free(folder: Path, force: bool) -> None:
    """Raise `BadValue` for a folder that is there: without `force`, or where it holds something else than an export."""
    if not folder.exists():
        return
    if not force:
        raise BadValue(f"{folder} is there already; use --force to replace it, or another --out")
    about = folder / "export.json"
    stored = read_json(about) if about.exists() else None
    if not isinstance(stored, dict) or stored.get("kind") != _KIND:
        raise BadValue(f"{folder} is not an export, and is not replaced; choose another --out")
