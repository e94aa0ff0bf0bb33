"""The part of `lottery show` that runs analyses: text for people, a figure for each, arrays as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.cli.terminal.output import Result, people
from lottery.cli.terminal.trusting import look_here

if TYPE_CHECKING:
    from lottery.studies.analyses import Findings

_BETWEEN = "mask-overlap"


def show_analyses(
    runs: Sequence[Path],
    names: Sequence[str],
    figure: Path | None,
    model: str | None,
    data: str | None,
    trust: bool,
    as_json: bool,
) -> Result:
    """Run analyses of one run, or the overlap of masks between several, and print what they find.

    Args:
        runs: run directories.
        names: the names of the analyses.
        figure: where to draw, for one analysis; by default `analysis-NAME.png` in the (first) run directory.
        model: of a run whose model has no name.
        data: of a run whose data have no name.
        trust: run a model that only a run's records name as `package.module:callable`.
        as_json: print for people on standard error, and return {name: arrays and facts}.

    Raises:
        UnknownName: an analysis that does not exist.
        BadValue: one figure file for several analyses, or an analysis that looks at one run for several.

    >>> show_analyses([tmp], ["cka", "mask-overlap"], tmp / "a.png", None, None, False, False)
    Traceback (most recent call last):
    pruning.errors.BadValue: --figure names one file for 2 analyses; leave it out, or ask for one analysis
    """
    from lottery.results.columns import report
    from lottery.studies.analyses import ANALYSES
    from pruning.errors import BadValue

    for name in names:
        ANALYSES[name]
    if figure is not None and len(names) > 1:
        raise BadValue(f"--figure names one file for {len(names)} analyses; leave it out, or ask for one analysis")
    if len(runs) > 1 and list(names) != [_BETWEEN]:
        other = next((name for name in names if name != _BETWEEN), _BETWEEN)
        raise BadValue(f"--analysis {other} looks at one run at a time; of several runs there is --analysis {_BETWEEN}")
    look_here(model, trust=trust)
    stream, printed = people(as_json), {}
    for name in names:
        findings = _find(runs, name, model, data, trust)
        path = _draw(findings, figure or runs[0] / f"analysis-{name}.png")
        heading = f"{name}: {ANALYSES[name].summary}." if len(runs) == 1 else f"{name}, between runs."
        stream.show(report(heading, findings.shown, f"Figure: {path}"))
        printed[name] = {**findings.as_json(), "figure": str(path)}
    print("Computed from the levels that are stored; nothing was trained.", file=stream)
    return printed if as_json else None


def _find(runs: Sequence[Path], name: str, model: Any, data: Any, trust: bool) -> Findings:
    from lottery.studies.analyses import analyze, study

    if len(runs) == 1:
        return analyze(runs[0], name, model, data, trust=trust)
    from lottery.studies.analyses.overlap_between import overlap_between

    return overlap_between([study(run, model, data, trust=trust) for run in runs])


def _draw(findings: Findings, path: Path) -> Path:
    from matplotlib.figure import Figure

    from lottery.results.figure import save_figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained", dpi=130)
    findings.draw(figure)
    return save_figure(figure, path)
