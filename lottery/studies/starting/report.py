"""The report on a network's start: layer by layer, as a table, a figure and one sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.reporting import table
from lottery.studies.measures import signal
from lottery.studies.starting.lens import Lens, Passed
from lottery.studies.starting.verdict import LayerSignal, Verdict, verdict
from pruning.starts.effective_density import effective_density
from pruning.starts.structural_rank import structural_rank
from pruning.starts.tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Examples whose tangent kernel and Jacobian are computed.
FEW = 8
# A pair of constants for `epsinas`, from the middle of the range that its source searches.
CONSTANTS = (1e-3, 1.0)


@dataclass(frozen=True)
class Layer:
    """One weight of a network at its start; NaN for what is not known.

    Attributes:
        name: of the weight.
        kind: what it does.
        shape: of the tensor.
        density: the fraction of it that the mask keeps.
        effective_density: participation ratio of the squared weights as a share of all entries: how many of them count.
        rank: the highest rank that the mask allows, all its matrices together.
        full_rank: the rank that it could have without a mask.
        largest: its largest singular value.
        least: its smallest one.
        signal: what passes through it; None where its layer could not be followed.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    density: float
    effective_density: float
    rank: int
    full_rank: int
    largest: float
    least: float
    signal: LayerSignal | None


@dataclass(frozen=True, eq=False)
class StartReport:
    """What a start says of the training to come.

    Attributes:
        layers: every weight that a mask covers, in the order of the pass.
        jacobian: singular values of the derivatives of outputs at inputs, the largest first, mean over examples; empty
            where inputs are no numbers.
        scores: scores that take no training, by name; NaN for what could not be computed.
        kernel: the tangent kernel on a few examples.
        verdict: whether the start can train.
        notes: what was left as it was or could not be measured, and why.
    """

    layers: tuple[Layer, ...]
    jacobian: NDArray[np.float64]
    scores: Mapping[str, float]
    kernel: NDArray[np.float64]
    verdict: Verdict
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        rows = [asdict(layer) for layer in self.layers]
        jacobian = [float(value) for value in self.jacobian]
        return {
            "rows": [{key: _plain(value) for key, value in row.items()} for row in rows],
            "jacobian": jacobian,
            "scores": {name: _plain(value) for name, value in self.scores.items()},
            "trainable": self.verdict.trainable,
            "verdict": self.verdict.sentence,
            "notes": list(self.notes),
        }

    def report(self) -> Report:
        """Return a table, the scores, and the sentence."""
        header = ["layer", "density", "effective", "rank", "σ max", "σ min", "E[z²]", "E[g²]", "corr²", "dead units"]
        rows = [_row(layer) for layer in self.layers]
        scores = ", ".join(f"{name} {value:.3g}" for name, value in self.scores.items() if not math.isnan(value))
        parts: list[Any] = [table(header, rows, left=[0])]
        if self.jacobian.size:
            j = self.jacobian
            parts.append(
                f"Input-output Jacobian: singular values {j[0]:.3g} to {j[-1]:.3g}, mean square {np.mean(j**2):.3g}."
            )
        parts += [f"Scores: {scores}."] if scores else []
        parts += [f"Note: {note}" for note in self.notes]
        parts.append(f"{self.verdict.sentence[0].upper()}{self.verdict.sentence[1:]}.")
        return report(*parts)

    def __str__(self) -> str:
        """Return the same as plain text."""
        return str(self.report())

    def draw(self, figure: Figure) -> None:
        """Draw sizes of signals and gradients, and singular values, against depth."""
        followed = [layer for layer in self.layers if layer.signal is not None]
        names = [layer.name.removesuffix(".weight") for layer in followed]
        at = np.arange(len(followed))
        figure.set_size_inches(9.6, 4.0)
        left, right = figure.subplots(1, 2)
        passed = [layer.signal for layer in followed if layer.signal is not None]
        left.semilogy(at, [each.forward for each in passed], "o-", label="E[z²], forward")
        left.semilogy(at, [each.backward for each in passed], "s--", label="E[g²], backward")
        left.set_title("signals and gradients", fontsize=9)
        left.legend(fontsize=8)
        right.semilogy(at, [layer.largest for layer in followed], "o-", label="σ max")
        right.semilogy(at, [max(layer.least, 1e-6) for layer in followed], "s--", label="σ min (0 shown as 1e-6)")
        right.set_title("singular values of each layer", fontsize=9)
        right.legend(fontsize=8)
        for axes in (left, right):
            axes.set_xlabel("layer, in the order of the pass")
            if len(names) <= 12:
                axes.set_xticks(at, names, rotation=60, ha="right", fontsize=7)
        figure.suptitle(self.verdict.sentence.partition(";")[0], fontsize=9)


def report_on(
    tensors: Sequence[Tensor],
    values: Mapping[str, NDArray[Any]],
    lens: Lens,
    *,
    knows_mask: bool,
    tried: Collection[str] = (),
    notes: Sequence[str] = (),
) -> StartReport:
    """Return the report on a network's start.

    Args:
        tensors: its weights, with their masks.
        values: its weights, by name.
        lens: looks at what passes.
        knows_mask: whether the weights were drawn for this mask.
        tried: the initializer and the repair that made them.
        notes: what to say besides.
    """
    passed = lens.layers()
    by_pass = {name: index for index, name in enumerate(passed)}
    ordered = sorted(tensors, key=lambda tensor: by_pass.get(tensor.name, _place(tensor, len(by_pass))))
    layers = tuple(_layer(tensor, values[tensor.name], passed.get(tensor.name)) for tensor in ordered)
    signals = [layer.signal for layer in layers if layer.signal is not None]
    missing = [layer.name for layer in layers if layer.signal is None]
    said = list(notes)
    if missing:
        said.append(f"what {missing[0]!r} gives out is part of a layer's result, or was not seen ({len(missing)} such)")
    kernel = _kernel(lens.example_gradients(FEW))
    jacobian = _jacobian(lens)
    return StartReport(
        layers,
        np.zeros(0) if jacobian is None else _spectrum(jacobian),
        _scores(lens, kernel, jacobian),
        kernel,
        verdict(signals, lens.input_correlation, knows_mask, tried),
        tuple(said),
    )


def _place(tensor: Tensor, last: int) -> float:
    return last + (tensor.place.index if tensor.place is not None else 10**6)


def _layer(tensor: Tensor, values: NDArray[Any], passed: Passed | None) -> Layer:
    weights = tensor.weights()
    matrices = tensor.layout.cut(np.where(tensor.keep, values, 0))
    spectra = [signal.singular_values(matrix.reshape(len(matrix), -1)) for matrix in matrices]
    known = [spectrum for spectrum in spectra if spectrum is not None and len(spectrum)]
    return Layer(
        name=tensor.name,
        kind=" and ".join(dict.fromkeys(tensor.kinds)),
        shape=tensor.keep.shape,
        density=float(tensor.keep.mean()),
        effective_density=effective_density(values, tensor.keep) * float(tensor.keep.mean()),
        rank=sum(structural_rank(weight.keep) for weight in weights),
        full_rank=sum(min(weight.outputs, weight.inputs * weight.taps) for weight in weights),
        largest=max((float(spectrum[0]) for spectrum in known), default=math.nan),
        least=min((float(spectrum[-1]) for spectrum in known), default=math.nan),
        signal=None if passed is None else _signal(tensor, passed),
    )


def _signal(tensor: Tensor, passed: Passed) -> LayerSignal:
    return LayerSignal(
        name=tensor.name,
        forward=signal.mean_square(passed.values),
        backward=signal.mean_square(passed.gradients),
        correlation=signal.squared_correlation(passed.values),
        dead=signal.dead_units(passed.values, passed.gradients, passed.axis),
        units=passed.values.shape[passed.axis],
        kept=int(tensor.keep.sum()),
    )


def _kernel(gradients: NDArray[Any]) -> NDArray[np.float64]:
    rows = gradients.astype(np.float64)
    return rows @ rows.T


def _jacobian(lens: Lens) -> NDArray[Any] | None:
    return None if lens.jacobian is None else lens.jacobian(FEW)


def _spectrum(jacobian: NDArray[Any]) -> NDArray[np.float64]:
    return np.mean([np.linalg.svd(each.astype(np.float64), compute_uv=False) for each in jacobian], axis=0)


def _scores(lens: Lens, kernel: NDArray[np.float64], jacobian: NDArray[Any] | None) -> dict[str, float]:
    paths = lens.paths()
    return {
        "tangent-kernel condition": signal.condition(kernel),
        "Jacobian covariance": math.nan if jacobian is None else signal.jacobian_covariance(jacobian.sum(1)),
        "gradient norm": math.nan if lens.gradient_norm is None else lens.gradient_norm(),
        "epsinas": signal.epsinas(lens.answers(CONSTANTS[0]), lens.answers(CONSTANTS[1])),
        "log10 of paths": math.nan if paths is None else paths[0],
        "log10 of synaptic flow": math.nan if paths is None else paths[1],
    }


def _row(layer: Layer) -> list[str]:
    known = layer.signal
    passed = [f"{value:.3g}" for value in (known.forward, known.backward, known.correlation)] if known else ["–"] * 3
    return [
        layer.name,
        f"{100 * layer.density:.2f}%",
        f"{100 * layer.effective_density:.2f}%",
        f"{layer.rank}/{layer.full_rank}",
        *("–" if math.isnan(value) else f"{value:.3g}" for value in (layer.largest, layer.least)),
        *passed,
        f"{known.dead}/{known.units}" if known else "–",
    ]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
