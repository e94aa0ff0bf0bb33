"""Which weights survive: where they began, where they end, and how far they moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.intervals import t_interval
from lottery.results.reporting import Line, cells, colours, line, percent, short_names, table
from lottery.studies.analyses import Findings, Study, analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
# More tensors than these make a figure nobody can read: the first, the last, and some between.
_DRAWN = 4


@analysis("weight-distributions", source="Frankle & Carbin 2019, appendix F (arXiv 1803.03635)")
def weight_distributions(study: Study) -> Findings:
    """Histograms of survivors against all weights: at the rewind point, trained, and moved in the dense training.

    Levels 1, half-way, and the winning (or last) one. Survivors and weights at the rewind point belong to that level;
    the dense training is level 0's, from where that began (before the rewind point, where this is not step 0).

    Returns:
        `edges_initial`, `edges_trained`, `edges_moved` [tensors, bins + 1]: common to all levels of a tensor. Counts
        over all replicates: `all_initial` [levels, tensors, bins] of every weight at that level's rewind point;
        `all_trained`, `all_moved` [tensors, bins] of every weight in the dense training; `initial`, `trained`, `moved`
        [levels, tensors, bins] of a level's survivors (`trained` in that level's own training; `moved`: |w_trained −
        w_initial| in the dense training). Ratios of means, over replicates, with `…_interval` […, 2] (Student's t),
        [levels, tensors]: `initial_ratio` = mean |w| at the rewind point, survivors over all; `moved_ratio` = mean
        distance in the dense training, survivors over removed ones (NaN where nothing is removed); `own_moved_ratio` =
        mean distance of survivors in their own training over that in the dense one.

    Raises:
        BadValue: no pruned level.
    """
    levels, seeds, names = study.milestones, study.seeds, list(study.levels[0].layers)
    ratios = np.full((3, len(levels), len(names), len(seeds)), np.nan)
    everything = {key: [[[] for _ in names] for _ in range(groups)] for key, groups in _groups(levels).items()}
    survivors = {key: [[[] for _ in names] for _ in levels] for key in ("initial", "trained", "moved")}
    for column, seed in enumerate(seeds):
        begun, ended = study.rewound(seed, 0), study.trained(seed, 0)
        own = [(study.rewound(seed, n), study.trained(seed, n), study.mask(seed, n)) for n in levels]
        for at, name in enumerate(names):
            start, end = _float(begun[name]), _float(ended[name])
            moved = np.abs(end - start)
            for key, values in (("trained", end), ("moved", moved)):
                everything[key][0][at].append(values.ravel())
            for row, (rewound, trained, mask) in enumerate(own):
                keep, point, after = mask[name], _float(rewound[name]), _float(trained[name])
                everything["initial"][row][at].append(point.ravel())
                for key, values in (("initial", point), ("trained", after), ("moved", moved)):
                    survivors[key][row][at].append(values[keep])
                ratios[:, row, at, column] = (
                    _ratio(np.abs(point[keep]), np.abs(point)),
                    _ratio(moved[keep], moved[~keep]),
                    _ratio(np.abs(after - point)[keep], moved[keep]),
                )
    arrays: dict[str, NDArray[Any]] = {"levels": np.array(levels)}
    for key, groups in _groups(levels).items():
        pools = [*everything[key], *survivors[key]]
        histograms = [_histograms([pool[at] for pool in pools]) for at in range(len(names))]
        counts = np.array([found for _, found in histograms]).swapaxes(0, 1)
        arrays[f"edges_{key}"] = np.array([edges for edges, _ in histograms])
        arrays[f"all_{key}"] = counts[:groups] if key == "initial" else counts[0]
        arrays[key] = counts[groups:]
    lines = [[_line(values[:, at]) for at in range(len(names))] for values in ratios]
    for key, row in zip(("initial_ratio", "moved_ratio", "own_moved_ratio"), lines, strict=True):
        arrays[key] = np.stack([one.mean for one in row], axis=1)
        arrays[f"{key}_interval"] = np.stack([one.interval for one in row], axis=1)
    density = [next(level.density for level in study.levels if level.level == number) for number in levels]
    facts = {"names": names, "density": density, "n": len(seeds)}
    return Findings(arrays, _text(levels, lines, facts), _drawing(arrays, facts), facts)


def _groups(levels: tuple[int, ...]) -> dict[str, int]:
    """Return how many sets of all weights there are: each level has a rewind point, and one training is dense."""
    return {"initial": len(levels), "trained": 1, "moved": 1}


def _float(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype(np.float64)


def _ratio(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> float:
    """Return the ratio of two means; NaN where it is not defined."""
    return float(upper.mean() / lower.mean()) if upper.size and lower.size and lower.mean() > 0 else np.nan


def _line(values: NDArray[np.float64]) -> Line:
    means = [row if np.isfinite(row).all() else np.array([np.nan]) for row in values]
    return Line(line(means).mean, *_ends(means))


def _ends(rows: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = [t_interval(row) or (np.nan, np.nan) for row in rows]
    return np.array([low for low, _ in found]), np.array([high for _, high in found])


def _histograms(pools: list[list[NDArray[np.float64]]]) -> tuple[NDArray[np.float64], list[NDArray[np.int_]]]:
    """Return common edges, and the counts of each pool."""
    groups = [np.concatenate(pool) for pool in pools]
    low, high = min(g.min() for g in groups if g.size), max(g.max() for g in groups if g.size)
    edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)
    return edges, [np.histogram(group, edges)[0] for group in groups]


def _text(levels: tuple[int, ...], lines: list[list[Line]], facts: Mapping[str, Any]) -> Report:
    rows = []
    for row, (level, density) in enumerate(zip(levels, facts["density"], strict=True)):
        for at, name in enumerate(short_names(facts["names"])):
            shown = [cells(kind[at], ".2f")[row] for kind in lines]
            rows.append([str(level), percent(density), name, *shown])
    header = ["level", "density", "tensor", "|initial|: survivors/all", "moved: survivors/removed", "moved: own/dense"]
    return report(
        table(header, rows, keys=3),
        f"Ratios of mean absolute values, mean and 95 % t interval, n = {facts['n']} replicates. Initial: at the "
        "rewind point.",
        "Moved: distance in the dense training, from its first step, of what survives against what is removed; and "
        "of the survivors in their own training, from the rewind point, against that in the dense one.",
    )


def _drawing(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Callable[[Figure], None]:
    names, levels = short_names(facts["names"]), arrays["levels"]
    shown = np.unique(np.linspace(0, len(names) - 1, min(_DRAWN, len(names))).round().astype(int))

    def draw(figure: Figure) -> None:
        figure.set_size_inches(10.8, 1.2 + 2.0 * len(shown))
        grid = figure.subplots(len(shown), 3, squeeze=False)
        palette = colours(len(levels))
        columns = (("initial", "weight at the rewind point"), ("trained", "trained weight (all: dense)"))
        for row, at in enumerate(shown):
            for axes, (key, label) in zip(
                grid[row], (*columns, ("moved", "distance moved, dense training")), strict=True
            ):
                edges = arrays[f"edges_{key}"][at]
                grey, *others = arrays["all_initial"][:, at] if key == "initial" else [arrays[f"all_{key}"][at]]
                axes.stairs(_density(grey, edges), edges, fill=True, color="#cccccc", label="all")
                for number, counts in enumerate(others, start=1):
                    if (counts != grey).any():  # levels have rewind points of their own
                        axes.stairs(_density(counts, edges), edges, color=palette[number], lw=0.8, ls=":")
                for number, level in enumerate(levels):
                    heights = _density(arrays[key][number, at], edges)
                    kept = f"{100 * facts['density'][number]:.3g} %"
                    axes.stairs(heights, edges, color=palette[number], lw=1.2, label=f"level {level} ({kept})")
                axes.spines[["top", "right"]].set_visible(False)
                axes.set_yticks([])
                axes.locator_params(axis="x", nbins=5)
                if row == len(shown) - 1:
                    axes.set_xlabel(label)
            grid[row, 0].set_ylabel(f"{names[at]}\nprobability density", fontsize=8)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        title = f"survivors (lines), all weights (grey; dotted: a level's own), n = {facts['n']} replicates pooled"
        figure.legend(
            handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8, title=title
        )

    return draw


def _density(counts: NDArray[np.int_], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / max(1, counts.sum()) / np.diff(edges)
