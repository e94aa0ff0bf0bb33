"""Nominal against effective density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lottery.results.columns import report
from lottery.results.figure import draw_lines
from lottery.results.reporting import (
    Line,
    cells,
    line,
    logarithmic,
    narrow,
    percent,
    scaled,
    short_names,
    table,
    without_interval,
)
from lottery.studies.analyses import IN_JAX, Findings, Study, analysis
from pruning.effective import Effective, effective
from pruning.errors import BadValue
from pruning.mask import Mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@analysis("effective-sparsity", source="Vysogorets & Kempe 2023 (arXiv 2107.02306)")
def effective_sparsity(study: Study) -> Findings:
    """Density that counts only weights on a path from an input to an output, and the units without one.

    For networks whose layers follow one another; layers that the mask leaves out are dense. Biases make no unit
    reachable (see `pruning.effective.effective`).

    Returns:
        `nominal` [levels]; `effective` and `effective_interval` [levels], [levels, 2] (Student's t over replicates);
        `layers` [levels, tensors]: effective density of each; `dead` [levels, tensors]: mean number of output units on
        no path; `units` [tensors].

    Raises:
        BadValue: a network that is no chain of linear and convolution layers, or whose units are mixed or reordered
            between two of them, as by a LayerNorm (the message names the tensor).
    """
    sizes = _chain(study)
    levels, seeds = study.levels, study.seeds
    found = [[_effective(study.mask(seed, level.level), sizes) for seed in seeds] for level in levels]
    first = study.mask(seeds[0], 0)
    names = [name for name in sizes if name in first]
    nominal = np.array([level.density for level in levels])
    shares = [[sum(one.mask.counts()[name] for name in names) / first.total for one in row] for row in found]
    values = line(shares, least=0)
    values = Line(values.mean, values.low, np.minimum(values.high, nominal))
    layers = np.array([[[one.mask[name].mean() for name in names] for one in row] for row in found]).mean(1)
    dead = np.array([[[one.dead[name] for name in names] for one in row] for row in found]).mean(1)
    units = np.array([sizes[name][0] for name in names])
    lost = 100 * (nominal - values.mean) / nominal
    rows = [
        [str(level.level), percent(level.density), shown, f"{share:.2f}", *(f"{count:.1f}" for count in counts)]
        for level, shown, share, counts in zip(levels, cells(values, ".2f", 100), lost, dead, strict=True)
    ]
    header = ["level", "density", "effective (%)", "of survivors lost (%)"]
    header += [f"{name} (of {size})" for name, size in zip(short_names(names), units, strict=True)]
    text = report(
        table(header, rows, keys=2),
        f"Effective: on a path of surviving weights from an input to an output; biases count for nothing. Mean and "
        f"95 % t interval, n = {len(seeds)} replicates.",
        "Last columns: mean number of output units (channels) of each layer that lie on no path.",
    )

    def draw(figure: Figure) -> None:
        figure.set_size_inches(9.6, 4.2)
        left, right = figure.subplots(1, 2)
        logarithmic(left)
        shown = {"nominal": without_interval(nominal), f"effective (n = {len(seeds)})": narrow(values, 1.0)}
        draw_lines(left, 100 * nominal, {label: scaled(one, 100) for label, one in shown.items()})
        left.set_ylabel("of all weights (%)")
        left.set_title("density, mean and 95 % t interval", fontsize=9)
        gone = 100 * dead / units
        by_name = {name: without_interval(gone[:, at]) for at, name in enumerate(short_names(names))}
        draw_lines(right, 100 * nominal, by_name)
        right.set_ylabel("of the layer's units on no path (%), mean")
        right.set_ylim(-1, max(5.0, 1.05 * float(gone.max())))
        right.set_title(f"dead units, n = {len(seeds)}", fontsize=9)

    arrays: dict[str, Any] = {
        "nominal": nominal,
        "effective": values.mean,
        "effective_interval": values.interval,
        "layers": layers,
        "dead": dead,
        "units": units,
    }
    return Findings(arrays, text, draw, {"names": names, "n": len(seeds)})


def _chain(study: Study) -> dict[str, tuple[int, ...]]:
    """Return the weight shapes of a network whose layers follow one another, in the order of the data."""
    from lottery.data.batches import sample
    from lottery.data.parts import Parts
    from lottery.networks.sources.source import require_torch
    from lottery.state.tensors import float_type
    from lottery.studies.measures.dataflow import layer_chain

    ask = study.reopen().ask
    model = require_torch(ask.source, study.asked, IN_JAX).build(ask.seed)
    inputs = (
        sample(ask.parts.train, 2, seed=0)[0]
        if isinstance(ask.parts, Parts)
        else torch.zeros(2, *ask.parts.input_shape)
    )
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.to(float_type(model))
    return {name: tuple(layer.get_parameter("weight").shape) for name, layer in layer_chain(model, inputs).items()}


def _effective(mask: Mask, sizes: dict[str, tuple[int, ...]]) -> Effective:
    outside = [name for name in mask if name not in sizes]
    if outside:
        raise BadValue(f"effective sparsity: {outside[0]!r} is not the weight of a linear or convolution layer")
    return effective({name: mask.get(name, np.ones(shape, bool)) for name, shape in sizes.items()})
