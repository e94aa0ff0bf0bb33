"""Do different searches (trainers, tasks, criteria) find the same weights? Overlap of masks between runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import report
from lottery.results.comparison import MATCHED
from lottery.results.intervals import pairs_interval
from lottery.results.reporting import cell, colours, line, line_with, percent, table
from lottery.studies.analyses import Findings, Study
from lottery.studies.analyses.mask_overlap import chance
from pruning.errors import BadValue, MaskMismatch
from pruning.overlap import layer_overlaps, pooled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overlap_between(studies: Sequence[Study]) -> Findings:
    """Overlap of the masks of several runs (trainers, tasks, criteria) at matched levels, against chance.

    Levels of two runs are matched where they keep the same number of weights within 2 %. Replicates of the same seed
    have the same initial weights where the runs say so (`same_initial_weights`); pairs of different seeds are the
    reference. Chance keeps the count of each tensor.

    Args:
        studies: two or more runs over the same tensors.

    Returns:
        One row for each two runs and matched level: `runs` [rows, 2], `levels` [rows, 2], `density` [rows],
        `same_seed` and `other_seed` [rows] (mean Jaccard index; NaN where there is no such pair) with
        `same_seed_interval` (Student's t) and `other_seed_interval` (jackknife over seeds) [rows, 2], and
        `same_seed_chance`, `other_seed_chance` [rows, 3] (expected, and the central 95 %),
        `same_seed_z` and `other_seed_z` [rows].

    Raises:
        BadValue: fewer than two runs, or no matched level.
        MaskMismatch: runs over different tensors.
    """
    if len(studies) < 2:
        raise BadValue("an overlap between runs needs two runs or more")
    _same_tensors(studies)
    rows = [row for a, b in itertools.combinations(range(len(studies)), 2) for row in _rows(studies, a, b)]
    if not any(row["levels"][0] for row in rows):
        raise BadValue("these runs have no pruned level with the same number of weights (within 2 %)")
    arrays = {key: np.array([row[key] for row in rows]) for key in rows[0] if key not in ("n_same", "n_other")}
    letters = [chr(ord("A") + number) for number in range(len(studies))]
    who = [f"{letter} = {study.run.path}" for letter, study in zip(letters, studies, strict=True)]
    lines = [
        [
            f"{letters[row['runs'][0]]}–{letters[row['runs'][1]]}",
            f"{row['levels'][0]}/{row['levels'][1]}",
            percent(row["density"]),
            *_cells(row, kind, count),
        ]
        for row in rows
        for kind, count in (("same_seed", "n_same"), ("other_seed", "n_other"))
        if row[count]
    ]
    header = ["runs", "levels", "density", "pairs of", "n", "Jaccard", "chance (95 %)", "z"]
    text = report(
        table(header, lines, keys=4),
        *who,
        "Jaccard index, mean and 95 % interval (same seed: Student's t; other seed: jackknife over seeds, three or "
        "more). Chance keeps each tensor's count; z: mean standard deviations above it.",
    )
    hashes = [{seed: study.run.read_record(seed, 0)["init_sha256"] for seed in study.seeds} for study in studies]
    shared = [
        not a.keys().isdisjoint(b) and all(a[seed] == b[seed] for seed in a.keys() & b.keys())
        for a, b in itertools.combinations(hashes, 2)
    ]
    facts: dict[str, Any] = {
        "paths": [str(study.run.path) for study in studies],
        "same_initial_weights": shared,
        "n_same": [row["n_same"] for row in rows],
        "n_other": [row["n_other"] for row in rows],
    }
    return Findings(arrays, text, _drawing(arrays, letters, facts), facts)


def _rows(studies: Sequence[Study], a: int, b: int) -> list[dict[str, Any]]:
    first, second = studies[a], studies[b]
    rows = []
    for level in first.levels:
        near = min(second.levels, key=lambda other: abs(other.kept - level.kept))
        if abs(near.kept - level.kept) > MATCHED * level.kept:
            continue
        here = {seed: first.mask(seed, level.level) for seed in first.seeds}
        there = {seed: second.mask(seed, near.level) for seed in second.seeds}
        same = [(seed, seed) for seed in here if seed in there]
        other = [(s, t) for s in here for t in there if s != t]
        of_same, of_other = ([pooled(layer_overlaps(here[s], there[t]).values()) for s, t in p] for p in (same, other))
        values = [one.jaccard for one in of_same]
        both_ways = line([values])
        by_pair = dict(zip(other, [one.jaccard for one in of_other], strict=True))
        common = [seed for seed, _ in same]
        complete = set(common) == set(here) == set(there)
        each = [(by_pair[s, t] + by_pair[t, s]) / 2 for s, t in itertools.combinations(common, 2)] if complete else []
        bounds = pairs_interval(each, len(common), least=0) if each else None
        across = line_with([list(by_pair.values())], [bounds])
        rows.append(
            {
                "runs": (a, b),
                "levels": (level.level, near.level),
                "density": level.density,
                "same_seed": both_ways.mean[0],
                "same_seed_interval": both_ways.interval[0],
                "same_seed_chance": chance([of_same])[0],
                "same_seed_z": float(np.mean([one.z for one in of_same])) if of_same else np.nan,
                "other_seed": across.mean[0],
                "other_seed_interval": across.interval[0],
                "other_seed_chance": chance([of_other])[0],
                "other_seed_z": float(np.mean([one.z for one in of_other])) if of_other else np.nan,
                "n_same": len(same),
                "n_other": len(other),
            }
        )
    return rows


def _same_tensors(studies: Sequence[Study]) -> None:
    shapes = [study.mask(study.seeds[0], 0).shapes() for study in studies]
    for study, one in zip(studies, shapes, strict=True):
        different = sorted(name for name in one.keys() | shapes[0].keys() if one.get(name) != shapes[0].get(name))
        if different:
            name = different[0]
            raise MaskMismatch(
                f"these runs prune different tensors: {name!r} has shape {shapes[0].get(name)} in "
                f"{studies[0].run.path} and {one.get(name)} in {study.run.path}"
            )


def _cells(row: Mapping[str, Any], kind: str, count: str) -> list[str]:
    expected, low, high = row[f"{kind}_chance"]
    return [
        kind.replace("_", " "),
        str(row[count]),
        cell(row[kind], *row[f"{kind}_interval"]),
        f"{expected:.3f} [{low:.3f}, {high:.3f}]",
        "–" if np.isnan(row[f"{kind}_z"]) else f"{row[f'{kind}_z']:+.1f}",
    ]


def _drawing(
    arrays: Mapping[str, NDArray[Any]], letters: Sequence[str], facts: Mapping[str, Any]
) -> Callable[[Figure], None]:
    def draw(figure: Figure) -> None:
        from lottery.results.figure import style_density

        axes = figure.add_subplot()
        axes.axhline(0, color="#555555", lw=1, ls="--")
        kinds = (("same_seed", "n_same", "o-", "same seed"), ("other_seed", "n_other", "s--", "other seeds"))
        pairs = np.unique(arrays["runs"], axis=0)
        palette = iter(colours(2 * len(pairs)))
        for a, b in pairs:
            here = (arrays["runs"] == (a, b)).all(1)
            kept = 100 * arrays["density"][here]
            for kind, count, style, words in kinds:
                color, many = next(palette), max(np.array(facts[count])[here])
                if not many:
                    continue
                expected, least, most = arrays[f"{kind}_chance"][here].T
                label = f"{letters[a]}–{letters[b]}, {words} ({many} pairs)"
                axes.plot(kept, arrays[kind][here] - expected, style, color=color, ms=3.5, lw=1.4, label=label)
                low, high = arrays[f"{kind}_interval"][here].T
                axes.fill_between(kept, low - expected, high - expected, color=color, alpha=0.15, lw=0)
                for end in (least, most):
                    axes.plot(kept, end - expected, ":", color="#777777", lw=0.8)
        axes.plot([], [], ":", color="#777777", lw=0.8, label="95 % by chance, one pair")
        style_density(axes, (100 * arrays["density"]).tolist())
        axes.set_ylabel("Jaccard index above chance, mean and 95 % interval")

    return draw
