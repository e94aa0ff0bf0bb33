"""How alike the representations of tickets and of the dense network are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.figure import draw_lines, words
from lottery.results.intervals import pairs_interval, t_interval
from lottery.results.reporting import Line, cells, line_with, percent, table
from lottery.state.counts import check_count
from lottery.studies.analyses import Findings, Study, analysis
from lottery.studies.measures.similarity import kernel_alignment, unit_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 1000

Kernels = Mapping[str, NDArray[np.float32]]


@analysis(
    "cka", source="Kornblith et al. 2019 (arXiv 1905.00414); debiased as in Nguyen et al. 2021 (arXiv 2010.15327)"
)
def cka(study: Study, examples: int = EXAMPLES) -> Findings:
    """Debiased linear CKA of each layer between the dense network and each level, and of all layers of the chosen one.

    Representations are the outputs of the layers with a prunable tensor on validation examples. For scale: the same
    layers of dense networks from different initializations.

    Args:
        study: the search.
        examples: the most validation examples; fewer where a layer's output is very wide.

    Returns:
        `to_dense` [levels, layers], mean over replicates of the same seed, with `to_dense_interval` […, 2] (Student's
        t); `between_dense` [layers], mean over pairs of replicates at level 0, with `between_dense_interval` (jackknife
        over replicates); `layer_by_layer` [layers, layers], of the chosen level with itself, mean over replicates. NaN:
        a layer that gives the same for every example.
    """
    from lottery.studies.measures.representations import each_layer, examples_for, layer_names

    check_count("examples", examples)
    view, seeds, levels = study.view, study.seeds, study.levels
    wanted = layer_names(list(levels[0].layers))
    inputs, count = examples_for(view, wanted, examples, int(study.search.config.get("seed", 0)))

    def kernels(seed: int, level: int) -> Kernels:
        def look(features: NDArray[Any]) -> NDArray[np.float32]:
            return unit_kernel(features, debiased=True).astype(np.float32)

        return each_layer(view.network(study.trained(seed, level)), wanted, inputs, look)

    dense = {seed: kernels(seed, 0) for seed in seeds}
    layers = list(dense[seeds[0]])
    similar = np.full((len(levels), len(seeds), len(layers)), np.nan)
    square = np.full((len(seeds), len(layers), len(layers)), np.nan)
    for row, level in enumerate(levels):
        for column, seed in enumerate(seeds):
            here = dense[seed] if level.level == 0 else kernels(seed, level.level)
            similar[row, column] = [kernel_alignment(dense[seed][name], here[name]) for name in layers]
            if level.level == study.chosen:
                square[column] = [[kernel_alignment(here[a], here[b]) for b in layers] for a in layers]
    pairs = [
        [kernel_alignment(dense[a][name], dense[b][name]) for a, b in itertools.combinations(seeds, 2)]
        for name in layers
    ]
    between = _at_most_one(line_with(pairs, [pairs_interval(row, len(seeds)) for row in pairs]))
    lines = {
        name: _at_most_one(line_with(list(similar[:, :, at]), [t_interval(row) for row in similar[:, :, at]]))
        for at, name in enumerate(layers)
    }
    density = np.array([level.density for level in levels])
    arrays = {
        "density": density,
        "to_dense": np.stack([values.mean for values in lines.values()], axis=1),
        "to_dense_interval": np.stack([values.interval for values in lines.values()], axis=1),
        "between_dense": between.mean,
        "between_dense_interval": between.interval,
        "layer_by_layer": square.mean(0),
    }
    left_out = [name for name in wanted if name not in layers]
    facts = {"layers": layers, "left_out": left_out, "examples": count, "n": len(seeds), "level": study.chosen}
    return Findings(arrays, _text(study, lines, between, facts), _drawing(arrays, lines, facts), facts)


def _at_most_one(values: Line) -> Line:
    return Line(values.mean, values.low, np.minimum(values.high, 1.0))


def _text(study: Study, lines: Mapping[str, Line], between: Line, facts: Mapping[str, Any]) -> Report:
    columns = [cells(values, ".2f") for values in lines.values()]
    rows = [
        [str(level.level), percent(level.density), *(column[at] for column in columns)]
        for at, level in enumerate(study.levels)
    ]
    if facts["n"] > 1:
        rows.append(["", "other init", *cells(between, ".2f")])
    text = [
        table(["level", "density", *lines], rows, keys=2),
        f"Debiased linear CKA with the dense network of the same seed on {facts['examples']:,} validation examples, "
        f"mean and 95 % t interval, n = {facts['n']} replicates.",
    ]
    if facts["n"] > 1:
        text.append("Other init: dense networks of different seeds (jackknife over replicates; three or more).")
    if facts["left_out"]:
        text.append(f"Left out, not called or without one row for each example: {', '.join(facts['left_out'])}.")
    return report(*text)


def _drawing(
    arrays: Mapping[str, NDArray[Any]], lines: Mapping[str, Line], facts: Mapping[str, Any]
) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        figure.set_size_inches(10.6, 4.6)
        left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
        draw_lines(left, 100 * arrays["density"], lines)
        left.set_ylabel("debiased CKA with the dense network")
        left.set_title(f"same seed, mean and 95 % t interval, n = {facts['n']}", fontsize=9)
        names, values = facts["layers"], arrays["layer_by_layer"]
        image = right.imshow(values, vmin=min(0.0, float(np.nanmin(values))), vmax=1, cmap="viridis")
        size = 8 if len(names) < 12 else 5
        right.set_xticks(range(len(names)), list(map(words, names)), rotation=90, fontsize=size)
        right.set_yticks(range(len(names)), list(map(words, names)), fontsize=size)
        if len(names) <= 8:
            for row, column in np.ndindex(values.shape):
                color = "white" if values[row, column] < 0.6 else "black"
                right.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=color, fontsize=8)
        figure.colorbar(image, ax=right, shrink=0.8)
        right.set_title(f"between the layers of level {facts['level']}, mean, n = {facts['n']}", fontsize=9)

    return draw
