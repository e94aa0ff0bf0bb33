"""Other masks with the ticket's counts, at the ticket's weights."""

from __future__ import annotations

import numpy as np

from lottery.studies.ablation.controls import Control, Subject, ablation, others_in_order
from lottery.studies.random_masks import drawn_at_random
from pruning.alive_rows import Rows, keeping_rows, require_rows
from pruning.ladder import Target
from pruning.mask import Mask
from pruning.selection import select
from pruning.uses.axes import Axes


@ablation("random-mask", source="Lange & Sprekeler 2023, random baseline (arXiv 2306.00045)")
def random_mask(subject: Subject) -> Control:
    """A random mask of the same density over all weights; the densities of the tensors change too."""
    guard = int(min(subject.mask.counts().values()) > 0)
    return Control(subject.params, _random(subject, subject.mask.kept, guard))


@ablation("random-layers", source="Su et al. 2020, section 3 (arXiv 2009.11094)")
def random_layers(subject: Subject) -> Control:
    """A random mask with the ticket's density in every tensor: is it more than the densities of the layers?"""
    return Control(subject.params, _random(subject, subject.mask.counts(), 0))


@ablation("shuffle-mask", source="Frankle et al. 2021, section 5 (arXiv 2009.08576)")
def shuffle_mask(subject: Subject) -> Control:
    """The ticket's mask with the entries of every tensor permuted: which positions survive is chance."""
    return Control(subject.params, _permuted(subject.mask, subject.rng, subject.rows))


@ablation("shuffle-units", source="Su et al. 2020, section 3, layerwise rearrangement (arXiv 2009.11094)")
def shuffle_units(subject: Subject) -> Control:
    """The ticket's mask with the units of every tensor permuted: they keep their counts, not their places."""
    axes = subject.pattern.axes
    shuffled = {name: _units(keep, axes.get(name), subject.rng) for name, keep in subject.mask.items()}
    return Control(subject.params, Mask(shuffled))


@ablation("inverted", source="Frankle et al. 2021, section 5 (arXiv 2009.08576)")
def inverted(subject: Subject) -> Control:
    """The mask of the weights that scored lowest in the dense network: does the order of the scores matter?"""
    return Control(subject.params, subject.redraw())


@ablation("exchange-masks", source="Paul et al. 2023, masks of other runs (arXiv 2210.03044)")
def exchange_masks(subject: Subject) -> Control:
    """The mask of the next replicate at this replicate's weights: do mask and initialization belong together?"""
    return Control(subject.params, subject.others[others_in_order(subject)[0]])


def _random(subject: Subject, target: Target, guard: int) -> Mask:
    scores = {name: subject.rng.random(keep.shape, np.float32) for name, keep in subject.mask.items()}
    drawn = drawn_at_random(scores, target, subject.rows, subject.pattern, guard)
    require_rows(Mask.dense(subject.mask.shapes()), drawn, subject.rows)
    return drawn


def _permuted(mask: Mask, rng: np.random.Generator, rows: Rows) -> Mask:
    """Permute entries; where a row would be emptied that must not be, its survivor is drawn first."""
    shuffled = Mask({name: rng.permutation(keep.reshape(-1)).reshape(keep.shape) for name, keep in mask.items()})
    if not rows:
        return shuffled
    dense = Mask.dense(mask.shapes())
    drawn = keeping_rows({name: keep + rng.random(keep.shape) for name, keep in shuffled.items()}, dense, rows)
    kept = select(drawn, dense, mask.counts(), 0)
    require_rows(mask, kept, rows)
    return kept


def _units(keep: np.ndarray, axes: Axes | None, rng: np.random.Generator) -> np.ndarray:
    """Permute the outputs, and the inputs at every tap alike: a convolution's kernels stay whole, and a unit's gates.

    Of a tensor whose axes are not known the first two are permuted.
    """
    if axes is None:
        shuffled = keep[rng.permutation(len(keep))]
        return shuffled[:, rng.permutation(keep.shape[1])] if keep.ndim > 1 else shuffled
    out, rest = axes.matrix_shape
    units = axes.matrix(keep).reshape(out, rest // axes.input_count, axes.input_count)[rng.permutation(out)]
    if axes.inputs:
        units = units[:, :, rng.permutation(axes.input_count)]
    return axes.tensor(units.reshape(out, rest), keep.shape)
