"""What the sparse forward pass of a network is made of, how long it takes, and whether it pays here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from pruning.mask import Mask
from pruning.sparse.choosing.choosing import CHEAPER, FASTER
from pruning.sparse.choosing.spread import Spread, told_apart
from pruning.sparse.network.inference import SPARSE, InferenceRecipe
from pruning.sparse.network.layer_report import LayerReport, Row, aligned, row_of, times
from pruning.sparse.network.replacing import ChosenLayer

_INDEX = 4  # bytes of an index


@dataclass(frozen=True)
class SparseReport:
    """What runs a network, layer by layer, and what it costs on this machine.

    Attributes:
        layers: one for each masked tensor.
        dense_seconds: the time of the whole masked dense network on the example; None where nothing was measured.
        sparse_seconds: of what runs now, on the same example; None where nothing was measured.
        step_dense_seconds: of a forward and backward pass of the masked dense network; None where nothing was measured.
        step_sparse_seconds: the same of the form that trains; None where nothing was measured.
        way: the form that runs: `dense` (the network as it was), `compacted`, `sparse`, or `sparse, as one CUDA graph`.
        opaque: parts that compaction could not see through and left alone, each with the reason.
        batch: shape of the first tensor of the example.
        device: where it ran.
        precision: type of the numbers, and whether products round to TF32.
        threads: the number of threads of the processor.
        asked: the backend that was asked for, or None.
        dense_spread: of the whole masked dense network, measured pair by pair with the next; None where nothing was.
        rival_spread: of what runs, or, where that is the dense network, of the fastest other way found.
        refused: ways that did not compute what the dense network computes, or failed, with the reason.
        in_training: why the form that trains has no sparse layers although some are faster; else empty.
    """

    layers: tuple[LayerReport, ...]
    dense_seconds: float | None
    sparse_seconds: float | None
    step_dense_seconds: float | None
    step_sparse_seconds: float | None
    way: str
    opaque: Mapping[str, str]
    batch: tuple[int, ...]
    device: str
    precision: str
    threads: int
    asked: str | None
    dense_spread: Spread | None = None
    rival_spread: Spread | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    in_training: str = ""

    @property
    def left_dense(self) -> float:
        """Share of the masked weights whose layers run dense."""
        total = sum(prod(layer.shape) for layer in self.layers)
        return sum(prod(layer.shape) for layer in self.layers if layer.backend == "dense") / max(total, 1)

    @property
    def told(self) -> str | None:
        """Whether the other way is `faster` or `slower` than dense, or `cannot tell`; None where nothing was compared.

        Where this measurement says the opposite of the one by which the way was chosen, nothing can be told.
        """
        if self.dense_spread is None or self.rival_spread is None:
            return None
        found = told_apart(self.dense_spread, self.rival_spread)
        return "cannot tell" if found == ("faster" if self.way == "dense" else "slower") else found

    @property
    def speedup(self) -> float | None:
        """Dense over sparse seconds of the whole network; 1 where they cannot be told apart, None if not measured."""
        if self.dense_seconds is None or not self.sparse_seconds:
            return None
        if self.told == "cannot tell":
            return 1.0
        return self.dense_seconds / self.sparse_seconds

    @property
    def verdict(self) -> str:
        """One sentence: whether sparsity pays here."""
        place = (
            f"on {self.device} ({self.precision}, {self.threads} threads, batch {self.batch[0] if self.batch else 1})"
        )
        if self.asked is not None:
            return (
                f"Backend {self.asked!r} wherever a layer has a sparse form, as asked, {place}; nothing was measured."
            )
        if self.way == "dense" and "" in self.opaque and self.speedup is None:
            return f"The masked dense network runs {place}: {self.opaque['']}."
        if self.speedup is None:
            return f"Chosen by the cost model {place}; nothing was measured."
        what = "Compaction" if self.way.startswith("compacted") else "Sparsity"
        if self.dense_spread and self.rival_spread and self.told == "cannot tell":
            runs = "the masked dense network runs" if self.way == "dense" else "the latter runs, as it won twice before"
            return (
                f"Cannot tell on this machine now whether sparsity pays {place}: dense took {self.dense_spread.text()} "
                f"and {self._rival} {self.rival_spread.text()} (the middle half of {self.dense_spread.runs} runs each, "
                f"in turn); {runs}."
            )
        if self.way == "dense":
            return f"Sparsity does not pay {place}: the masked dense network runs, at the speed of the dense one."
        return f"{what} pays {place}: {self.speedup:.1f} times the speed of the dense network{self._range}."

    @property
    def _rival(self) -> str:
        return "the best other way" if self.way == "dense" else self.way

    @property
    def _range(self) -> str:
        if self.dense_spread is None or self.rival_spread is None:
            return ""
        low = self.dense_spread.lower / self.rival_spread.upper
        high = self.dense_spread.upper / self.rival_spread.lower
        return f" ({low:.1f} to {high:.1f}, by the middle half of {self.dense_spread.runs} runs each)"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the report as a table for people."""
        return "\n".join([*aligned(self.rows()), *self.notes()])

    def rows(self) -> list[Row]:
        """Return a row of texts for each layer, and for the whole network where it was timed."""
        before = zip(self.layers, [None, *self.layers], strict=False)
        rows = [row_of(layer, above, self.way == "dense") for layer, above in before]
        if self.dense_seconds is not None and self.sparse_seconds is not None and self.speedup is not None:
            whole = times(self.dense_seconds, self.sparse_seconds, self.speedup)
            rows.append(("whole network", "", "", "", self.way.split(",")[0], *whole, ""))
        if self.step_dense_seconds and self.step_sparse_seconds:
            gain = self.step_dense_seconds / self.step_sparse_seconds
            step = times(self.step_dense_seconds, self.step_sparse_seconds, gain)
            rows.append(("forward and backward", "", "", "", "dense" if gain == 1 else "sparse", *step, ""))
        return rows

    def notes(self) -> list[str]:
        """Return the lines below the table: spreads, what stays dense and why, and the verdict."""
        lines: list[str] = []
        if self.dense_spread and self.rival_spread:
            spreads = f"dense {self.dense_spread.text()}, {self._rival} {self.rival_spread.text()}"
            lines.append(f"whole network, middle half of the runs: {spreads}")
        lines += self._dense_lines()
        lines += [f"not compacted: {name or 'the network itself'} ({reason})" for name, reason in self.opaque.items()]
        lines += [f"not used: {name} ({reason})" for name, reason in self.refused.items()]
        lines += [f"trains dense: {self.in_training}"] if self.in_training else []
        return [*lines, self.verdict]

    def _dense_lines(self) -> list[str]:
        """Return which layers run dense, with their share of the masked weights and the reason."""
        lines = [
            f"{layer.name}: {layer.reason} ({self._share([layer])})"
            for layer in self.layers
            if layer.reason not in ("", FASTER, CHEAPER)
        ]
        for reason in (FASTER, CHEAPER):
            some = [layer for layer in self.layers if layer.reason == reason]
            lines += [f"{reason}: {', '.join(layer.name for layer in some)} ({self._share(some)})"] if some else []
        return lines

    def _share(self, some: Sequence[LayerReport]) -> str:
        total = max(sum(prod(layer.shape) for layer in self.layers), 1)
        return f"{sum(prod(layer.shape) for layer in some) / total:.1%} of the masked weights"

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        plain = asdict(self)
        plain["layers"] = [asdict(layer) for layer in self.layers]
        more = {"left_dense": self.left_dense, "speedup": self.speedup, "told": self.told, "verdict": self.verdict}
        return {**plain, "opaque": dict(self.opaque), "refused": dict(self.refused), **more}


def sparse_bytes(shape: tuple[int, ...], kept: int, width: int) -> int:
    """Return the bytes of a sparse matrix in compressed rows: values, columns, and where each row starts.

    >>> sparse_bytes((2, 3), kept=4, width=4)
    44
    """
    return kept * (width + _INDEX) + (shape[0] + 1) * _INDEX


def layer_reports(recipe: InferenceRecipe, mask: Mask, width: int) -> tuple[LayerReport, ...]:
    """Return the reports of the masked tensors of a network.

    Args:
        recipe: how the running network was made.
        mask: the mask of the network as it was.
        width: bytes of a number.
    """
    chosen = {layer.name: layer for layer in recipe.layers}
    return tuple(_report(row.name, row.shape, row.kept, chosen.get(row.name), recipe, width) for row in mask.layers())


def _report(
    name: str, shape: tuple[int, ...], kept: int, layer: ChosenLayer | None, recipe: InferenceRecipe, width: int
) -> LayerReport:
    total = prod(shape)
    if layer is None and len(shape) < 2:
        reason = "it is no matrix: it has no sparse form"
        size = total * width
        return LayerReport(name, "", shape, shape, kept / max(total, 1), "dense", None, None, size, size, reason)
    if layer is None:
        return LayerReport(
            name,
            "",
            shape,
            (0,) * len(shape),
            kept / max(total, 1),
            "none",
            None,
            None,
            total * width,
            0,
            "not in what runs: no output needs it, or what was computed from it stands there as a constant",
        )
    choice = layer.choice
    backend = recipe.backends.get(name, "dense")
    reason = choice.reason
    if backend == "dense" and choice.backends:
        reason = recipe.refused.get(SPARSE, "alone it would be faster, in the whole network it is not")
    runs_on = shape if recipe.way == "dense" else layer.shape
    dense = backend in ("dense", "compact")
    sparse = prod(runs_on) * width if dense else sparse_bytes(runs_on, layer.kept, width)
    return LayerReport(
        name=name,
        kind=layer.kind,
        shape=shape,
        compacted=layer.shape,
        density=kept / total if total else 1.0,
        backend=backend,
        dense_seconds=choice.dense_seconds,
        sparse_seconds=choice.sparse_seconds,
        dense_bytes=total * width,
        sparse_bytes=sparse,
        reason=reason,
    )
