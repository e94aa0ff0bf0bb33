"""Which weights survive: where they began, where they end, and how far they moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.analyses import Findings, Study, analysis
from lottery.analyses.reporting import Line, cells, colours, line, short_names, table
from lottery.intervals import t_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
# More tensors than these make a figure nobody can read: the first, the last, and some between.
_DRAWN = 4


@analysis("weight-distributions", source="Frankle & Carbin 2019, appendix F (arXiv 1803.03635)")
def weight_distributions(study: Study) -> Findings:
    """Histograms of survivors against all weights: at the rewind point, trained, and moved in the dense training.

    Levels 1, half-way, and the winning (or last) one. Survivors and weights at the rewind point belong to that level;
    the dense training is level 0's.

    Returns:
        `edges_initial`, `edges_trained`, `edges_moved` [tensors, bins + 1]: common to all levels of a tensor. Counts
        over all replicates: `all_initial`, `all_trained`, `all_moved` [tensors, bins] of every weight in the dense
        network; `initial`, `trained`, `moved` [levels, tensors, bins] of a level's survivors (`trained` in that level's
        own training; `moved`: |w_trained − w_initial| in the dense training). Ratios of means, over replicates, with
        `…_interval` […, 2] (Student's t), [levels, tensors]: `initial_ratio` = mean |w| at the rewind point, survivors
        over all; `moved_ratio` = mean distance in the dense training, survivors over removed ones (NaN where nothing is
        removed); `own_moved_ratio` = mean distance of survivors in their own training over that in the dense one.

    Raises:
        BadValue: no pruned level.
    """
    levels, seeds, names = study.milestones, study.seeds, list(study.levels[0].layers)
    ratios = np.full((3, len(levels), len(names), len(seeds)), np.nan)
    pools: dict[str, list[list[NDArray[Any]]]] = {
        key: [[] for _ in names] for key in ("all_initial", "all_trained", "all_moved")
    }
    survivors = {key: [[[] for _ in names] for _ in levels] for key in ("initial", "trained", "moved")}
    for column, seed in enumerate(seeds):
        begun, ended = study.rewound(seed, 0), study.trained(seed, 0)
        own = [(study.rewound(seed, n), study.trained(seed, n), study.mask(seed, n)) for n in levels]
        for at, name in enumerate(names):
            start, end = _float(begun[name]), _float(ended[name])
            moved = np.abs(end - start)
            for key, values in (("all_initial", start), ("all_trained", end), ("all_moved", moved)):
                pools[key][at].append(values.ravel())
            for row, (rewound, trained, mask) in enumerate(own):
                keep, point, after = mask[name], _float(rewound[name]), _float(trained[name])
                for key, values in (("initial", point), ("trained", after), ("moved", moved)):
                    survivors[key][row][at].append(values[keep])
                ratios[:, row, at, column] = (
                    _ratio(np.abs(point[keep]), np.abs(point)),
                    _ratio(moved[keep], moved[~keep]),
                    _ratio(np.abs(after - point)[keep], moved[keep]),
                )
    arrays: dict[str, NDArray[Any]] = {"levels": np.array(levels)}
    for key in ("initial", "trained", "moved"):
        histograms = [
            _histograms(pools[f"all_{key}"][at], [row[at] for row in survivors[key]]) for at in range(len(names))
        ]
        arrays[f"edges_{key}"] = np.array([edges for edges, _ in histograms])
        arrays[f"all_{key}"] = np.array([counts[0] for _, counts in histograms])
        arrays[key] = np.array([counts[1:] for _, counts in histograms]).swapaxes(0, 1)
    lines = [[_line(values[:, at]) for at in range(len(names))] for values in ratios]
    for key, row in zip(("initial_ratio", "moved_ratio", "own_moved_ratio"), lines, strict=True):
        arrays[key] = np.stack([one.mean for one in row], axis=1)
        arrays[f"{key}_interval"] = np.stack([one.interval for one in row], axis=1)
    density = [next(level.density for level in study.levels if level.level == number) for number in levels]
    facts = {"names": names, "density": density, "n": len(seeds)}
    return Findings(arrays, _text(levels, lines, facts), _drawing(arrays, facts), facts)


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


def _histograms(
    everything: list[NDArray[np.float64]], chosen: list[list[NDArray[np.float64]]]
) -> tuple[NDArray[np.float64], list[NDArray[np.int_]]]:
    """Return common edges, and the counts of all weights and then of each level's survivors."""
    groups = [np.concatenate(everything), *(np.concatenate(one) for one in chosen)]
    low, high = min(g.min() for g in groups if g.size), max(g.max() for g in groups if g.size)
    edges = np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, BINS + 1)
    return edges, [np.histogram(group, edges)[0] for group in groups]


def _text(levels: tuple[int, ...], lines: list[list[Line]], facts: Mapping[str, Any]) -> str:
    rows = []
    for row, (level, density) in enumerate(zip(levels, facts["density"], strict=True)):
        for at, name in enumerate(short_names(facts["names"])):
            shown = [cells(kind[at], ".2f")[row] for kind in lines]
            rows.append([str(level), f"{100 * density:.2f}%", name, *shown])
    header = ["level", "density", "tensor", "|initial|: survivors/all", "moved: survivors/removed", "moved: own/dense"]
    return "\n".join(
        [
            table(header, rows),
            f"Ratios of mean absolute values, mean and 95 % t interval, n = {facts['n']} replicates. Initial: at the "
            "rewind point.",
            "Moved: distance from there in the dense training, of what survives against what is removed; and of the "
            "survivors in their own training against the dense one.",
        ]
    )


def _drawing(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Callable[[Figure], None]:
    names, levels = short_names(facts["names"]), arrays["levels"]
    shown = np.unique(np.linspace(0, len(names) - 1, min(_DRAWN, len(names))).round().astype(int))

    def draw(figure: Figure) -> None:
        figure.set_size_inches(10.8, 1.2 + 2.0 * len(shown))
        grid = figure.subplots(len(shown), 3, squeeze=False)
        palette = colours(len(levels))
        columns = (("initial", "weight at the rewind point"), ("trained", "trained weight"))
        for row, at in enumerate(shown):
            for axes, (key, label) in zip(
                grid[row], (*columns, ("moved", "distance moved, dense training")), strict=True
            ):
                edges = arrays[f"edges_{key}"][at]
                axes.stairs(
                    _density(arrays[f"all_{key}"][at], edges), edges, fill=True, color="#cccccc", label="all, dense"
                )
                for number, level in enumerate(levels):
                    heights = _density(arrays[key][number, at], edges)
                    percent = f"{100 * facts['density'][number]:.3g} %"
                    axes.stairs(heights, edges, color=palette[number], lw=1.2, label=f"level {level} ({percent})")
                axes.spines[["top", "right"]].set_visible(False)
                axes.set_yticks([])
                axes.locator_params(axis="x", nbins=5)
                if row == len(shown) - 1:
                    axes.set_xlabel(label)
            grid[row, 0].set_ylabel(f"{names[at]}\nprobability density", fontsize=8)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        title = f"survivors against all weights, n = {facts['n']} replicates pooled"
        figure.legend(
            handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=8, title=title
        )

    return draw


def _density(counts: NDArray[np.int_], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / max(1, counts.sum()) / np.diff(edges)
