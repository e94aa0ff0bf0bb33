"""Where the first layer looks: energy of its filters along the principal components of the input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lottery.results.columns import Report, report
from lottery.results.intervals import t_interval
from lottery.results.reporting import Line, cell, cells, colours, line, percent, table, within
from lottery.studies.analyses import Findings, Study, analysis
from lottery.studies.measures.energy import energy_profile
from pruning.masks.fitting import apply_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 1000


@analysis("filter-energy", source="energy profile e_i² = (1/K) Σ_k (w_kᵀu_i)², u_i the principal components of patches")
def filter_energy(study: Study, examples: int = EXAMPLES) -> Findings:
    """Energy of the first layer's filters along each principal component of its input patches, against flat.

    Over live filters (with a surviving weight), with masked weights, divided by the mean over components: weights drawn
    independently give 1 everywhere. Levels 0, 1, half-way, and the winning (or last) one; for each the weights at the
    rewind point under the mask (what the mask alone selects) and the trained ones.

    Args:
        study: the search.
        examples: the most training examples that the patches come from.

    Returns:
        `variance` [components]: of the patches, falling; `initial` and `trained` [levels, replicates, components];
        `leading_initial`, `leading_trained` [levels] with `…_interval` [levels, 2] (Student's t): mean energy of the
        leading tenth of the components that have any variance; `live` [levels, replicates]: filters that count;
        `flat` [2]: where 95 % of profiles of dense Gaussian weights, averaged over replicates, lie for one component;
        sparse filters scatter more, by how few weights they have and where, and no such band is given for them.

    Raises:
        BadValue: no linear or (ungrouped, one- or two-dimensional) convolution layer with a mask.
    """
    from lottery.studies.measures.patches import first_layer, patch_basis

    view, seeds = study.view, study.seeds
    name, layer = first_layer(view.model, list(study.levels[0].layers))
    variance, basis = patch_basis(view, layer, examples)
    levels = (0, *(study.milestones if study.chosen else ()))
    shape = (len(levels), len(seeds), len(variance))
    profiles = {"initial": np.zeros(shape), "trained": np.zeros(shape)}
    live = np.zeros(shape[:2], int)
    for row, level in enumerate(levels):
        for column, seed in enumerate(seeds):
            keep = study.mask(seed, level)[name]
            live[row, column] = int(keep.reshape(len(keep), -1).any(1).sum())
            for key, params in (("initial", study.rewound(seed, level)), ("trained", study.trained(seed, level))):
                profiles[key][row, column] = energy_profile(apply_array(params[name], keep), keep, basis)
    leading = max(1, round(0.1 * int((variance > 1e-12 * variance[0]).sum())))
    heads = {key: line(list(values[:, :, :leading].mean(2)), least=0) for key, values in profiles.items()}
    arrays: dict[str, NDArray[Any]] = {
        "levels": np.array(levels),
        "variance": variance,
        **profiles,
        **{f"leading_{key}": one.mean for key, one in heads.items()},
        **{f"leading_{key}_interval": one.interval for key, one in heads.items()},
        "live": live,
        "flat": np.array(_flat(int(live[0].sum()))),
    }
    density = [next(one.density for one in study.levels if one.level == level) for level in levels]
    facts = {"tensor": name, "leading": leading, "density": density, "n": len(seeds)}
    return Findings(arrays, _text(arrays, heads, facts), _drawing(arrays, facts), facts)


def _text(arrays: Mapping[str, NDArray[Any]], heads: Mapping[str, Line], facts: Mapping[str, Any]) -> Report:
    initial, trained = cells(heads["initial"], ".2f"), cells(heads["trained"], ".2f")
    rows = [
        [
            str(level),
            percent(facts["density"][row]),
            f"{arrays['live'][row].mean():.1f}",
            initial[row],
            trained[row],
            _likeness(arrays["initial"][row], arrays["trained"][row]),
        ]
        for row, level in enumerate(arrays["levels"])
    ]
    header = ["level", "density", "live filters", "initial, masked", "trained, masked", "correlation"]
    return report(
        table(header, rows, keys=2),
        f"Energy of {facts['tensor']} along the {facts['leading']} leading of {len(arrays['variance'])} principal "
        f"components of its input; 1 is flat, the expectation of random weights. Mean and 95 % t interval, "
        f"n = {facts['n']} replicates.",
        f"One component of dense Gaussian weights would lie within {within(tuple(arrays['flat']))} with 95 %; of "
        "sparse filters usually in a wider range.",
        "Correlation: of the masked initial with the trained profile, over components.",
    )


def _likeness(initial: NDArray[np.float64], trained: NDArray[np.float64]) -> str:
    pairs = zip(initial, trained, strict=True)
    values = [float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else np.nan for a, b in pairs]
    low, high = t_interval(values) or (np.nan, np.nan)
    return cell(float(np.mean(values)), max(low, -1.0), min(high, 1.0), ".2f")


def _drawing(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Callable[[Figure], None]:
    groups = component_groups(len(arrays["variance"]))

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import FuncFormatter

        from lottery.results.figure import bare

        figure.set_size_inches(10.6, 4.4)
        panels = figure.subplots(1, 2, sharey=True)
        titles = {"initial": "weights at the rewind point, masked", "trained": "trained weights"}
        for axes, (key, title) in zip(panels, titles.items(), strict=True):
            low, high = np.array([_flat(arrays["live"][0].sum() * len(group)) for group in groups]).T
            at = [group.mean() + 1 for group in groups]
            axes.fill_between(at, low, high, color="#999999", alpha=0.3, lw=0, label="95 % of dense Gaussian weights")
            for number, color in enumerate(colours(len(arrays["levels"]))):
                kept = f"{100 * facts['density'][number]:.3g} %"
                values = line([arrays[key][number][:, group].mean(1) for group in groups])
                axes.plot(
                    at,
                    values.mean,
                    "o-",
                    color=color,
                    ms=3,
                    lw=1.3,
                    label=f"level {arrays['levels'][number]} ({kept})",
                )
                axes.fill_between(at, np.maximum(values.low, 0), values.high, color=color, alpha=0.12, lw=0)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
            axes.set_title(f"{title}, mean and 95 % t interval, n = {facts['n']}", fontsize=9)
            axes.set_xlabel("principal component of the input patches (grouped)")
            bare(axes)
        panels[0].set_ylabel(f"energy of {facts['tensor']}, over its mean")
        panels[1].legend(frameon=False, fontsize=8)

    return draw


def component_groups(count: int) -> list[NDArray[np.int_]]:
    """Return runs of neighbouring components that look equally wide on a log axis, the first ones alone.

    >>> [len(group) for group in component_groups(64)]
    [1, 1, 1, 2, 2, 3, 5, 7, 9, 14, 19]
    """
    edges = np.unique(np.geomspace(1, count + 1, min(count, 12) + 1).round().astype(int))
    return [np.arange(start - 1, stop - 1) for start, stop in itertools.pairwise(edges)]


def _flat(freedom: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `freedom` squared standard normal numbers."""
    from scipy import stats

    low, high = stats.chi2.ppf([0.025, 0.975], freedom) / freedom
    return float(low), float(high)
