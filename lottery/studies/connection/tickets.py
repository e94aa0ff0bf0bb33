"""Linear mode connectivity between tickets on disk: what two of them must share, and the lines between all pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.networks.objectives.metric import GivenMetric, Measure
from lottery.networks.objectives.objective import GivenLoss
from lottery.networks.sources.choosing import model_source
from lottery.networks.sources.source import require_torch
from lottery.runs.given import Given, run_config_of, run_of
from lottery.runs.records import split_seed
from lottery.runs.ticket import TWIN, Ticket
from lottery.runs.ticket_directory import open_ticket
from lottery.search.frame.frame import Frame, frame_of
from lottery.search.frame.resolving import parts_of
from lottery.search.preparing.telling_apart import FORMAT, identity_of
from lottery.settings.config import SearchConfig
from lottery.state.counts import check_count
from lottery.state.machine.bars import with_bar
from lottery.state.machine.callers_settings import own_settings
from lottery.state.tensors import digest
from lottery.studies.measures.connectivity import POINTS, Curve, StraightLine, check_same_tensors, line_between
from lottery.studies.reopening import reopen
from lottery.studies.view import TorchView, torch_view
from lottery.trainers.choosing import functions_for
from pruning.calls.calling import Forward
from pruning.errors import BadValue, ConfigMismatch
from pruning.jobs import Params
from pruning.watch import Silent

# What a ticket's record says of the frame that its data and model are made in.
_FRAME = ("seed", "validation_size", "init", "metric")
_ASKED = "lottery connect measures"
_IN_JAX = f"mix the two ticket.trained(model) with jax.tree.map and measure them by yourself, or {TWIN}"


@dataclass(frozen=True)
class Connection:
    """Two trained tickets and the line between them.

    Attributes:
        first: path of the ticket at α = 0.
        second: at α = 1.
        line: loss, metric and error along the way.
        same_rewind_point: whether both were trained from the same weights.
        same_split: whether both learned from the same training examples.
    """

    first: str
    second: str
    line: StraightLine
    same_rewind_point: bool
    same_split: bool


@dataclass(frozen=True)
class Connections:
    """All pairs of some tickets.

    Attributes:
        pairs: in the order of the tickets.
        measure: how the metric is read.
        points: on every line.
    """

    pairs: tuple[Connection, ...]
    measure: Measure
    points: int

    def warnings(self) -> list[str]:
        """Return warnings on pairs that differ in more than the noise of training."""
        apart = [pair for pair in self.pairs if not pair.same_rewind_point]
        split = [pair for pair in self.pairs if not pair.same_split]
        said = {
            "different rewind points: a barrier is to be expected": apart,
            "different validation splits: the first one's is used for train, validation": split,
        }
        return [f"{self._named(pairs)} have {what}" for what, pairs in said.items() if pairs]

    def _named(self, pairs: Sequence[Connection]) -> str:
        if len(pairs) == 1:
            return f"{pairs[0].first} and {pairs[0].second}"
        tickets = list(dict.fromkeys(ticket for pair in self.pairs for ticket in (pair.first, pair.second)))
        numbers = ", ".join(f"{tickets.index(pair.first) + 1} – {tickets.index(pair.second) + 1}" for pair in pairs)
        return f"{len(pairs)} of {len(self.pairs)} pairs ({numbers})"

    def as_json(self) -> dict[str, Any]:
        """Return arrays and facts as plain JSON."""
        return {
            "metric": self.measure.name,
            "higher_is_better": self.measure.higher_is_better,
            "is_fraction": self.measure.is_fraction,
            "points": self.points,
            "alphas": self.pairs[0].line.alphas.tolist(),
            "pairs": [
                {
                    "a": pair.first,
                    "b": pair.second,
                    "overlap": pair.line.overlap,
                    "same_rewind_point": pair.same_rewind_point,
                    "same_split": pair.same_split,
                    "parts": {name: curve_json(curve) for name, curve in pair.line.curves.items()},
                }
                for pair in self.pairs
            ],
        }


@own_settings()
def connect(
    paths: Sequence[str | Path],
    model: Any = None,
    data: Any = None,
    *,
    points: int = POINTS,
    parts: Sequence[str] | None = None,
    examples: int | None = None,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    functions: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Connections:
    """Evaluate the straight line between the trained weights of every pair of tickets, whichever trainer trained them.

    Args:
        paths: two or more ticket directories with trained weights.
        model: as `find_ticket` takes it; by default the first ticket's own.
        data: as for `find_ticket`; by default the first ticket's own.
        points: on every line, both ends included.
        parts: of the data: `train`, `validation`, `test`; by default train, and test (or validation without a test
            part).
        examples: the most examples of each part; by default all.
        loss: the loss of the search, where it was the caller's own.
        metric: the metric of the search, where it was the caller's own.
        forward: the `forward` of the search, where it was the caller's own.
        functions: settings of the search that were functions, by name: `{"optimizer": make}`. They are asked for where
            the search picked its training examples by training (`data_diet`).
        trust: run a model that only the first ticket's record names as `package.module:callable`.

    Raises:
        Untrusted: a model that only the record names, and that is not one of ours.
        BadValue: fewer than two tickets or points, no example, a ticket without trained weights, other data or another
            metric.
        MaskMismatch: tickets of different architectures.
        ConfigMismatch: data that is not what the first ticket was found on.
    """
    check_count("points", points, 2, "both ends count")  # before anything is loaded
    if examples is not None:
        check_count("examples", examples)
    tickets = [Ticket.load(path) for path in paths]
    if len(tickets) < 2:
        raise BadValue("connect needs two ticket directories or more")
    weights = [_trained(ticket) for ticket in tickets]
    for ticket, params in zip(tickets[1:], weights[1:], strict=True):
        check_same_tensors(weights[0], params)
        _check_same_frame(tickets[0], ticket)
    given = Given(model, data, loss, metric, forward)
    view = _view(tickets[0], given, functions_for(functions, tickets[0].info.get("config", {})), trust)
    if parts is None:
        parts = ("train", "test" if view.parts.test is not None else "validation")
    starts = [_starts(ticket) for ticket in tickets]
    pairs = []
    for i, j in with_bar(list(itertools.combinations(range(len(tickets)), 2)), "pairs"):
        a, b = tickets[i], tickets[j]
        masks = (a.mask, b.mask)
        line = line_between(view, weights[i], weights[j], masks=masks, points=points, parts=parts, examples=examples)
        pairs.append(Connection(str(a.path), str(b.path), line, bool(starts[i] & starts[j]), _split(a) == _split(b)))
    return Connections(tuple(pairs), view.objective.metric.measure, points)


def curve_json(curve: Curve) -> dict[str, Any]:
    """Return a curve and its barriers as plain JSON."""
    return {
        "loss": curve.loss.tolist(),
        "metric": curve.metric.tolist(),
        "error": curve.error.tolist(),
        "barrier": curve.barrier,
        "loss_barrier": curve.loss_barrier,
    }


def _trained(ticket: Ticket) -> Params:
    if ticket.trained_params is None:
        raise BadValue(f"{ticket.path}: a ticket without trained weights; `lottery train` gives it some")
    return ticket.trained_params


def _check_same_frame(a: Ticket, b: Ticket) -> None:
    """Raise `BadValue` where two tickets were not measured on the same data with the same metric."""
    for what, one, other in (
        ("model", a.info.get("model"), b.info.get("model")),
        ("data", a.info.get("data"), b.info.get("data")),
        ("metric", a.info["metric"]["name"], b.info["metric"]["name"]),
    ):
        if one != other:
            raise BadValue(f"{a.path} and {b.path} cannot be connected: their {what} differs ({one!r}, {other!r})")
    runs = [run_config_of(ticket.path) for ticket in (a, b)]
    if all(runs) and len({run.get("identity") for run in runs if run}) == 1 and _split(a) == _split(b):
        found = {run.get("data_fingerprint") for run in runs if run}
        if len(found) > 1:
            raise BadValue(f"{a.path} and {b.path} cannot be connected: their data differs (both {a.info['data']!r})")


def _split(ticket: Ticket) -> tuple[Any, Any]:
    """Return what decides which examples are held out for validation."""
    config = ticket.info.get("config", {})
    return (split_seed(config), config.get("validation_size"))


def _starts(ticket: Ticket) -> set[str]:
    """Return hashes of the weights that a ticket was trained from, or through: a dense one keeps its rewind point."""
    snapshots = open_ticket(ticket.path).snapshots() if ticket.path is not None else {}
    return {digest(ticket.params), *map(digest, snapshots.values())}


def _view(ticket: Ticket, given: Given, functions: Mapping[str, Any], trust: bool) -> TorchView:
    """Return a ticket's model and data in PyTorch, whichever trainer trained it."""
    found = given.or_stored(ticket.info, ticket.path, trust, ticket.named)
    if ticket.info["metric"]["name"] == "reward":
        raise BadValue(f"{found.data} is an environment: connecting tickets needs labelled examples")
    config = ticket.info.get("config", {})
    run = run_of(ticket.path)
    if run is not None and config.get("data_diet") is not None:
        return torch_view(reopen(run, given, functions=functions, trust=trust)[1], _ASKED, _IN_JAX)
    if ticket.info.get("framework") == "jax":  # before a trainer of PyTorch says what one does to train it
        parts = parts_of(found.data, SearchConfig(), found.forward)
        require_torch(model_source(found.model, parts, "model"), _ASKED, _IN_JAX)
    settings = {key: config[key] for key in _FRAME if config.get(key) is not None}
    settings |= {"levels": 0, "prunable": tuple(ticket.mask), "split_seed": _split(ticket)[0]}
    frame = frame_of(found, settings, Silent())
    _check_same_as_found(ticket, frame, found.data)
    return torch_view(frame, _ASKED, _IN_JAX)


def _check_same_as_found(ticket: Ticket, frame: Frame, data: Any) -> None:
    stored = run_config_of(ticket.path) or {}
    if stored.get("identity") != FORMAT:
        return
    settings = identity_of(frame).settings
    for key, what in (
        ("data_fingerprint", f"other data than {data!r}"),
        ("objective", "another loss or metric"),
        ("forward", "another forward"),
    ):
        if stored.get(key) != settings.get(key):
            raise ConfigMismatch(f"{ticket.path} was found with {what}; give what it was found with")
