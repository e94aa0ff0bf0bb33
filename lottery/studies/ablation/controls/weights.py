"""Other weights under the ticket's mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lottery.studies.ablation.controls import Control, Subject, ablation

Array = NDArray[Any]


@ablation("reinit", source="Frankle & Carbin 2019, section 2 (arXiv 1803.03635)", draws=True)
def reinit(subject: Subject) -> Control:
    """The ticket's mask at weights drawn afresh: is it the initialization?"""
    return Control(subject.fresh(), subject.mask)


@ablation("sign-reinit", source="Zhou et al. 2019, section 4.1 (arXiv 1905.01067)", draws=True)
def sign_reinit(subject: Subject) -> Control:
    """Weights drawn afresh with the ticket's signs: are the signs enough?"""
    fresh = subject.fresh()
    return _changed(subject, lambda name, value: _signed(fresh[name], value), {**subject.params, **fresh})


@ablation("sign-flip", source="Zhou et al. 2019, section 4.1 (arXiv 1905.01067)")
def sign_flip(subject: Subject) -> Control:
    """The ticket's magnitudes with signs at random: do the signs matter?"""
    rng = subject.rng
    return _changed(subject, lambda _, value: np.where(rng.random(value.shape) < 0.5, value, -value))


@ablation("constant-magnitude", source="Zhou et al. 2019, section 4.1 (arXiv 1905.01067)")
def constant_magnitude(subject: Subject) -> Control:
    """The ticket's signs with one magnitude for each tensor, the standard deviation of its weights."""
    return _changed(subject, lambda _, value: _signed(np.full_like(value, value.std()), value))


@ablation("shuffle-weights", source="Frankle & Carbin 2019, appendix F.3; Vischer et al. 2022 (arXiv 2105.01648)")
def shuffle_weights(subject: Subject) -> Control:
    """The ticket's surviving weights permuted within every tensor: does each belong to its place?"""

    def permuted(name: str, value: Array) -> Array:
        shuffled, keep = value.copy(), subject.mask[name]
        shuffled[keep] = subject.rng.permutation(value[keep])
        return shuffled

    return _changed(subject, permuted)


@ablation("rewind", source="Frankle et al. 2020 (arXiv 1912.05671)")
def rewind(subject: Subject) -> Control:
    """The ticket's mask at the dense network's weights of another step (give it with --rewind)."""
    point = subject.elsewhere()
    return Control(point.params, subject.mask, point.start)


def _signed(sizes: Array, like: Array) -> Array:
    """Return numbers of these sizes with the signs of others; of complex numbers, with their directions.

    >>> _signed(np.array([2j, 2]), np.array([-1, 1j])).round(6).tolist()
    [(-2+0j), 2j]
    """
    return np.abs(sizes) * np.exp(1j * np.angle(like)) if np.iscomplexobj(like) else np.copysign(sizes, like)


def _changed(subject: Subject, change: Callable[[str, Array], Array], base: Any = None) -> Control:
    """Return the ticket with the prunable weights changed, and everything else as it was."""
    changed = {name: change(name, subject.params[name]).astype(subject.params[name].dtype) for name in subject.mask}
    return Control({**(subject.params if base is None else base), **changed}, subject.mask)
