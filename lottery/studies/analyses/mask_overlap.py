"""Do independent searches find the same weights? Overlap of masks against chance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.figure import draw_lines
from lottery.results.intervals import pairs_interval
from lottery.results.reporting import Line, cells, line_with, percent, short_names, table, without_interval
from lottery.studies.analyses import Findings, Study, analysis
from pruning.errors import BadValue
from pruning.overlap import Overlap, global_overlap, layer_overlaps, pooled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SOURCE = "Lange & Sprekeler 2023, section 4 (arXiv 2306.00045); chance by the hypergeometric distribution"


@analysis("mask-overlap", source=_SOURCE)
def mask_overlap(study: Study) -> Findings:
    """Overlap of the masks of all pairs of replicates at each level, against chance.

    Chance keeps either the total count of each mask, or the count of each of its tensors; only what exceeds the second
    says that the same single weights were chosen. Hidden units are not matched: between different initializations
    their order is arbitrary.

    Returns:
        `jaccard` [levels, pairs], with `jaccard_mean` [levels] and `jaccard_interval` [levels, 2] (jackknife over
        replicates; three or more), `excess` [levels, pairs] (Jaccard index minus what layer counts alone
        give) with `excess_interval`; `share` [levels, pairs] (of the smaller mask); `chance_global`, `chance_layers`
        [levels, 3]: Jaccard index of the expected overlap and the central 95 %, mean over pairs; `z_global`, `z_layers`
        [levels, pairs]; `layers` and `layers_chance` [levels, tensors]: mean Jaccard index and its chance; `layers_z`.

    Raises:
        BadValue: one replicate only.
    """
    seeds, levels = study.seeds, study.levels
    if len(seeds) < 2:
        raise BadValue(
            f"{study.run.path}: mask-overlap compares replicates, and this run has one; "
            "name several runs to compare those"
        )
    pairs = list(itertools.combinations(seeds, 2))
    wholes, sums, parts = [], [], []
    for level in levels:
        masks = {seed: study.mask(seed, level.level) for seed in seeds}
        rows = [layer_overlaps(masks[a], masks[b]) for a, b in pairs]
        parts.append(rows)
        sums.append([pooled(row.values()) for row in rows])
        wholes.append([global_overlap(masks[a], masks[b]) for a, b in pairs])
    names = list(parts[0][0])
    jaccard = np.array([[one.jaccard for one in row] for row in wholes])
    mean = line_with(list(jaccard), [pairs_interval(row, len(seeds), least=0) for row in jaccard])
    excess = jaccard - np.array([[one.chance_jaccard[0] for one in row] for row in sums])
    above = line_with(list(excess), [pairs_interval(row, len(seeds)) for row in excess])
    arrays = {
        "density": np.array([level.density for level in levels]),
        "jaccard": jaccard,
        "jaccard_mean": mean.mean,
        "jaccard_interval": mean.interval,
        "excess": excess,
        "excess_interval": above.interval,
        "share": np.array([[one.share for one in row] for row in wholes]),
        "chance_global": chance(wholes),
        "chance_layers": chance(sums),
        "z_global": np.array([[one.z for one in row] for row in wholes]),
        "z_layers": np.array([[one.z for one in row] for row in sums]),
        "layers": np.array([[np.mean([r[n].jaccard for r in row]) for n in names] for row in parts]),
        "layers_chance": np.array([[np.mean([r[n].chance_jaccard[0] for r in row]) for n in names] for row in parts]),
        "layers_z": np.array([[np.mean([r[n].z for r in row]) for n in names] for row in parts]),
    }
    facts = {"names": names, "pairs": [list(pair) for pair in pairs], "n": len(seeds)}
    return Findings(arrays, _text(study, arrays, mean), _drawing(arrays, above, names, len(seeds)), facts)


def chance(rows: Sequence[Sequence[Overlap]]) -> NDArray[np.float64]:
    """Return the mean over pairs of (expected Jaccard index, low, high), [rows, 3]; NaN of no pair."""
    nothing = np.full(3, np.nan)
    return np.array([np.mean([one.chance_jaccard for one in row], axis=0) if row else nothing for row in rows])


def _text(study: Study, arrays: Mapping[str, NDArray[Any]], mean: Line) -> Report:
    rows = [
        [
            str(level.level),
            percent(level.density),
            shown,
            f"{by_total[0]:.3f} [{by_total[1]:.3f}, {by_total[2]:.3f}]",
            f"{by_layer[0]:.3f} [{by_layer[1]:.3f}, {by_layer[2]:.3f}]",
            "–" if np.isnan(z) else f"{z:+.1f}",
        ]
        for level, shown, by_total, by_layer, z in zip(
            study.levels,
            cells(mean),
            arrays["chance_global"],
            arrays["chance_layers"],
            arrays["z_layers"].mean(1),
            strict=True,
        )
    ]
    count = len(study.seeds)
    return report(
        table(["level", "density", "Jaccard", "chance, total count", "chance, layer counts", "z"], rows, keys=2),
        f"Mean over {count * (count - 1) // 2} pairs of n = {count} replicates, with a 95 % interval "
        "(jackknife over replicates; three or more).",
        "Chance: expected, and where 95 % of random masks lie that keep as many weights in all, or in each layer; "
        "for one pair; z: standard deviations above the second.",
    )


def _drawing(
    arrays: Mapping[str, NDArray[Any]], above: Line, names: Sequence[str], count: int
) -> Callable[[Figure], None]:
    kept = 100 * arrays["density"]

    def draw(figure: Figure) -> None:
        figure.set_size_inches(10.4, 4.4)
        left, right = figure.subplots(1, 2)
        expected, low, high = arrays["chance_layers"].T
        left.fill_between(
            kept,
            low - expected,
            high - expected,
            color="#999999",
            alpha=0.25,
            lw=0,
            label="95 % by chance, one pair",
        )
        by_total = without_interval(arrays["chance_global"][:, 0] - expected)
        draw_lines(left, kept, {f"replicates (n = {count})": above, "chance that keeps total counts only": by_total})
        left.axhline(0, color="#555555", lw=1, ls="--")
        left.set_ylabel("Jaccard index above chance (layer counts)")
        left.set_title("all weights, mean and 95 % jackknife interval", fontsize=9)
        excess = arrays["layers"] - arrays["layers_chance"]
        by_name = {name: without_interval(excess[:, at]) for at, name in enumerate(short_names(names))}
        right.axhline(0, color="#555555", lw=1, ls="--")
        draw_lines(right, kept, by_name)
        right.set_ylabel("Jaccard index above chance")
        right.set_title("each layer, mean over pairs", fontsize=9)

    return draw
