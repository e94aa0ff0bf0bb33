"""The tensors of a network: which are prunable, which are not and why, with shares of weights and of work."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lottery.networks.objectives.objective import GivenLoss, GivenMetric
from lottery.networks.sources.choosing import model_source
from lottery.networks.sources.following import follow
from lottery.networks.sources.source import ModelSource, Source
from lottery.results.columns import Report
from lottery.results.reporting import table
from lottery.runs.records import check_ticket
from lottery.search.frame.coverage import Coverage, coverage
from lottery.search.frame.resolving import parts_of
from lottery.settings.config import SearchConfig
from lottery.settings.trust import given_or_stored
from lottery.studies.reopening import stored_record
from lottery.trainers import Ask
from pruning.calls.calling import Forward
from pruning.disk.files import is_there, read_json
from pruning.errors import NothingToPrune
from pruning.masks.names import match_patterns
from pruning.torch_modules import NEVER_PRUNABLE, is_number, own_tensors
from pruning.uses.axes import Axes
from pruning.uses.uses import ADDED, NOT_FOLLOWED, Uses
from pruning.watch import Silent


@dataclass(frozen=True)
class Layer:
    """One tensor of a network.

    Attributes:
        name: dotted, as masks call it.
        shape: its size along each axis.
        outputs: the axes that number outputs; None where that is not known.
        inputs: the axes that a product sums over; all others are positions of a kernel.
        prunable: whether a mask covers it.
        why: the reason where no mask covers the tensor; empty where one does.
        tied: other names of the same tensor.
        parameters: its share of all parameters.
        multiply_adds: the share of a forward pass's multiplications in products with it; None where not known.
    """

    name: str
    shape: tuple[int, ...]
    outputs: tuple[int, ...] | None
    inputs: tuple[int, ...] | None
    prunable: bool
    why: str
    tied: tuple[str, ...]
    parameters: float
    multiply_adds: float | None


@dataclass(frozen=True)
class Layers:
    """The tensors of a network, in its order, and the share of them that masks cover."""

    rows: tuple[Layer, ...]
    coverage: Coverage

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"rows": [asdict(row) for row in self.rows], "coverage": self.coverage.as_json()}

    def report(self) -> Report:
        """Return a table, and the covered share in one line."""
        rows: list[list[str]] = []
        for row in self.rows:
            work = "–" if row.multiply_adds is None else f"{100 * row.multiply_adds:.2f} %"
            shares = [f"{100 * row.parameters:.2f} %", work]
            rows.append([row.name, _shape(row), _axes(row), *shares, "yes" if row.prunable else f"no: {row.why}"])
        header = ["name", "shape", "out | in", "weights", "work", "prunable"]
        return table(header, rows, least=(4, 5, 12, 8, 8, 8), left=[0, 1, 2, 5]) + str(self.coverage)

    def __str__(self) -> str:
        """Return the same as plain text."""
        return str(self.report())


def layers(
    model: Any = None,
    data: Any = None,
    *,
    loss: GivenLoss | None = None,
    metric: GivenMetric | None = None,
    forward: Forward | None = None,
    prunable: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: int = 0,
) -> Layers:
    """Say of every tensor of a network whether masks of a search would cover it, and why not.

    A few examples go through the network, and what a product multiplies with activations is prunable. Where they cannot
    (or where a module is given without data), the kinds of its layers decide; the result's `coverage` says so.

    Args:
        model: as `find_ticket` takes it.
        data: as for `find_ticket`; by default `"digits"`, or nothing for a module that is given as such.
        loss: as for `find_ticket`.
        metric: as for `find_ticket`.
        forward: as for `find_ticket`.
        prunable: name patterns; where given, exactly these tensors are prunable.
        skip: name patterns of tensors that stay dense.
        seed: the seed of the network.

    Raises:
        UsageError: a model or data that is none, or a pattern that matches nothing.

    >>> print(layers(nn.Linear(2, 3)).rows[0].why or "prunable", layers(nn.Linear(2, 3)).rows[1].why)
    prunable fewer than two axes
    """
    config = SearchConfig(prunable=tuple(prunable), skip=tuple(skip), seed=seed)
    unseen = data is None and isinstance(model, nn.Module)
    parts = parts_of("digits" if data is None else data, config, forward)
    source = model_source(model, parts, "model")
    ask = Ask(source, parts, None, loss, metric, Silent(), seed, seed)
    uses = Uses(reason="no data was given") if unseen else follow(ask.source, ask.parts, ask.seed, ask.loss, ask.metric)
    try:
        covered = list(source.prunable(seed, config.prunable, config.skip, uses))
    except NothingToPrune:
        covered = []
    return Layers(tuple(_rows(source, config, covered, uses)), coverage(ask, covered, uses))


def stored_layers(path: Path, model: Any = None, data: Any = None, *, trust: bool = False) -> Layers:
    """As `layers`, for the network of a run or a ticket directory.

    Args:
        path: a directory.
        model: the network, where the directory has no name for it.
        data: the data set, where the directory has no name for it.
        trust: run a model that only the directory names as `package.module:callable`.

    Raises:
        Untrusted: a model that only the directory names, and that is not one of ours.
        FileFormatError: neither a run nor a ticket.
        BadValue: a model or data that has no name and was not given.
    """
    file = path / "config.json"
    record = check_ticket(file, read_json(file)) if is_there(path / "mask.safetensors") else stored_record(path)
    chosen = {
        kind: given_or_stored(kind, value, record, path, trust) for kind, value in (("model", model), ("data", data))
    }
    config = record.get("config", {})
    return layers(
        chosen["model"],
        chosen["data"],
        prunable=config.get("prunable", ()),
        skip=config.get("skip", ()),
        seed=record["seed"],
    )


def _rows(source: Source, config: SearchConfig, covered: Collection[str], uses: Uses) -> list[Layer]:
    sizes, tied, dense = _tensors(source, config)
    total = max(1, sum(_size(shape) for shape in sizes.values()))
    known = uses.total_work if not uses.reason else None
    rows: list[Layer] = []
    for name, shape in sizes.items():
        axes = uses.axes.get(name) if len(shape) > 1 else None
        outputs, inputs = _own_axes(axes, shape) if axes is not None else (None, None)
        rows.append(
            Layer(
                name=name,
                shape=shape,
                outputs=outputs,
                inputs=inputs,
                prunable=name in covered,
                why="" if name in covered else dense.get(name) or _why(name, shape, uses),
                tied=tied.get(name, ()),
                parameters=_size(shape) / total,
                multiply_adds=uses.work.get(name, 0.0) / known if known else None,
            )
        )
    return rows


def _tensors(
    source: Source, config: SearchConfig
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the shapes of a network's tensors, their other names, and of some why they are dense whatever they do."""
    if not isinstance(source, ModelSource):
        shapes = {name: tuple(array.shape) for name, array in source.initial_state(config.seed).items()}
        return shapes, {}, _asked(config, shapes)
    model = source.build(config.seed)
    parameters = dict(model.named_parameters())
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = {name: tuple(n for n in names[id(p)] if n != name) for name, p in parameters.items()}
    dense = _asked(config, parameters)
    dense |= {name: "not of real or complex numbers" for name, p in parameters.items() if not is_number(p)}
    dense |= {name: "frozen (no requires_grad)" for name, p in parameters.items() if not p.requires_grad}
    outside = {id(p): type(owner).__name__ for owner in model.modules() for _, p in own_tensors(owner, NEVER_PRUNABLE)}
    for name, parameter in parameters.items():
        if id(parameter) in outside and name not in dense:
            dense[name] = f"of an embedding or a normalization ({outside[id(parameter)]})"
            dense[name] += f", tied to {tied[name][0]}" if tied[name] else ""
    return {name: tuple(p.shape) for name, p in parameters.items()}, tied, dense


def _asked(config: SearchConfig, names: Collection[str]) -> dict[str, str]:
    """Return why tensors stay dense that the caller's patterns leave out."""
    named = match_patterns(config.prunable, names, "prunable") if config.prunable else list(names)
    skipped = match_patterns(config.skip, names, "skip") if config.skip else []
    return {name: "not named in `prunable`" for name in names if name not in named} | dict.fromkeys(
        skipped, "named in `skip`"
    )


def _why(name: str, shape: tuple[int, ...], uses: Uses) -> str:
    if sum(size > 1 for size in shape) < 2:
        return "fewer than two axes"
    if uses.reason:
        return f"of no kind of layer that is known ({NOT_FOLLOWED})"
    also = "; it multiplies activations too (a tied output head)" if uses.work.get(name) else ""
    return uses.apart.get(name, "multiplies no activations") + (also if uses.apart.get(name) != ADDED else "")


def _own_axes(axes: Axes, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tensor's own axes that number outputs and those that are summed over.

    An axis that holds two things (gates and units, groups and channels) is of inputs where one of them is.

    >>> _own_axes(Axes((4, 8, 3), outputs=(1,), inputs=(2,)), (32, 3))
    ((0,), (1,))
    """
    parts: list[set[int]] = []
    at = 0
    for size in shape:
        first, held = at, 1
        while at < len(axes.shape) and (held < size or at == first):
            held, at = held * axes.shape[at], at + 1
        parts.append(set(range(first, at)))
    inputs = tuple(axis for axis, held in enumerate(parts) if held & set(axes.inputs))
    return tuple(a for a, held in enumerate(parts) if held & set(axes.outputs) and a not in inputs), inputs


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _shape(row: Layer) -> str:
    return " × ".join(map(str, row.shape))


def _axes(row: Layer) -> str:
    if row.outputs is None or row.inputs is None:
        return ""
    return f"{','.join(map(str, row.outputs))} | {','.join(map(str, row.inputs)) or '–'}"
