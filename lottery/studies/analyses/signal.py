"""How signals pass through the tickets of a search at their start, and how lazily they were trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lottery.results.columns import report
from lottery.results.figure import draw_lines
from lottery.results.reporting import cells, line, percent, table
from lottery.studies.analyses import Findings, Study, analysis
from lottery.studies.measures.signal import tangent_alignment
from lottery.studies.starting.report import StartReport
from lottery.studies.starting.starting import EXAMPLES, report_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@analysis("signal", source="Schoenholz et al. 2017 (arXiv 1611.01232); Liu et al. 2024, laziness (arXiv 2310.08513)")
def signal_at_start(study: Study) -> Findings:
    """Signals and gradients at the rewind point of every level, and how far training moved the tangent kernel.

    Returns:
        `forward`, `backward` [levels]: log10 of E[z²] at the last hidden layer over that at the first, and of E[g²] at
        the first over that at the last; `correlation` [levels]: mean squared correlation of two inputs at the last
        hidden layer; `alignment` [levels]: of the tangent kernels before and after training, 1 is lazy; each with
        `…_interval` [levels, 2]; `trainable` [levels]: the share of replicates whose start can train by the rule of
        `lottery init`.
    """
    frame, levels, seeds = study.reopen(), study.levels, study.seeds
    before = [[report_of(frame, s, study.rewound(s, n.level), study.mask(s, n.level)) for s in seeds] for n in levels]
    after = [[report_of(frame, s, study.trained(s, n.level), study.mask(s, n.level)) for s in seeds] for n in levels]
    forward = line([[_passage(one)[0] for one in row] for row in before])
    backward = line([[_passage(one)[1] for one in row] for row in before])
    correlation = line([[_passage(one)[2] for one in row] for row in before])
    aligned = line(
        [
            [tangent_alignment(first.kernel, second.kernel) for first, second in zip(*rows, strict=True)]
            for rows in zip(before, after, strict=True)
        ]
    )
    share = np.array([np.mean([bool(one.verdict.trainable) for one in row]) for row in before])
    shown = {"forward": forward, "backward": backward, "correlation": correlation, "alignment": aligned}
    columns = [cells(values, ".2f") for values in shown.values()]
    rows = [
        [str(level.level), percent(level.density), *texts, f"{100 * part:.0f}%"]
        for level, *texts, part in zip(levels, *columns, share, strict=True)
    ]
    header = ["level", "density", "forward (log10)", "backward (log10)", "corr²", "kernel alignment", "can train"]
    text = report(
        table(header, rows, keys=2),
        f"At the rewind point, on {EXAMPLES} examples; first hidden layer to the last. Mean and 95 % t interval, "
        f"n = {len(seeds)} replicates. Kernel alignment: after training with before; 1 is lazy.",
        f"Level {levels[-1].level}: {before[-1][0].verdict.sentence}.",
    )
    density = np.array([level.density for level in levels])

    def draw(figure: Figure) -> None:
        figure.set_size_inches(9.6, 4.2)
        left, right = figure.subplots(1, 2)
        for axes, names in ((left, ("forward", "backward")), (right, ("correlation", "alignment"))):
            # Logarithms and shares: on axes of plain numbers.
            draw_lines(axes, 100 * density, {name: shown[name] for name in names})
        left.set_title(f"log10 of the change from layer to layer, n = {len(seeds)}", fontsize=9)
        right.set_title("correlation of inputs; alignment of kernels", fontsize=9)

    arrays = {name: values.mean for name, values in shown.items()}
    arrays |= {f"{name}_interval": values.interval for name, values in shown.items()}
    return Findings({**arrays, "trainable": share}, text, draw, {"n": len(seeds)})


def _passage(report: StartReport) -> tuple[float, float, float]:
    """Return log10 changes forward and backward, and the correlation at the last hidden layer."""
    passed = [layer.signal for layer in report.layers if layer.signal is not None]
    hidden = passed[:-1] or passed
    if not hidden:
        return np.nan, np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array(
            [hidden[-1].forward / np.float64(hidden[0].forward), hidden[0].backward / np.float64(hidden[-1].backward)]
        )
        forward, backward = np.log10(ratios)
    return float(forward), float(backward), hidden[-1].correlation
