"""Early-Bird tickets: a mask that has stopped changing is drawn, and training ends, before training is over.

    evaluation ─▶ the mask that would be drawn now ─▶ the last few of them alike? ─▶ drawn here

You et al. 2020, section 3 (arXiv 1909.11957). Level 0 is the dense reference and is trained whole: its next mask is
drawn from a copy of the weights at its first stable evaluation. The levels between end at theirs. The last level, from
which nothing is drawn, is trained whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lottery.search.levels.drawing import Drawing
from lottery.settings.config import SearchConfig
from pruning.errors import BadValue
from pruning.jobs import Job, Question, Trained
from pruning.mask import Mask

# What the record of a level says: the step of its first stable evaluation or none, and whether training ended there.
STEP, STOPPED = "early_bird_step", "stopped_early"


def is_stable(masks: Sequence[Mask], competing: int, distance: float, window: int) -> bool:
    """Say whether the newest of the last `window` masks is within `distance` of all others.

    Args:
        masks: in the order in which they were drawn.
        competing: how many weights they are drawn from. The Hamming distance is divided by this number: all weights
            at level 0, as in the paper; later the survivors, or the distance would grow small with the density.
        distance: the largest normalised Hamming distance.
        window: how many masks are compared; fewer are never stable.

    >>> a, b = Mask({"w": [1, 1, 0, 0]}), Mask({"w": [0, 1, 1, 0]})
    >>> is_stable([b, a, a], 4, 0.1, 2), is_stable([b, a, a], 4, 0.1, 3), is_stable([b, a, a], 4, 0.5, 3)
    (True, False, True)
    """
    if len(masks) < window:
        return False
    *others, newest = masks[-window:]
    return all(round(newest.hamming(mask) * mask.total) <= distance * competing for mask in others)


def asked_when_stable(config: SearchConfig, job: Job, level: int, draw: Callable[[Trained], Mask]) -> Job:
    """Return a job whose training is asked when its mask is stable.

    Args:
        config: the search, with `early_bird`.
        job: of a level that is not the last.
        level: its number; the dense one does not end early.
        draw: the mask that would be drawn from a training so far.
    """
    assert config.early_bird is not None
    window = config.early_bird_window
    competing = job.mask.total if config.candidates == "all" else job.mask.kept
    stable = functools.partial(is_stable, competing=competing, distance=config.early_bird, window=window)
    question = Question(draw, stable, looks=window, ends=level > 0)
    return replace(job, budget=replace(job.budget, until=question))


def with_answer_in_record(trained: Trained) -> Trained:
    """Return a training whose record says when its mask was stable; one that was not asked comes back as it is.

    >>> from pruning.jobs import Answer
    >>> with_answer_in_record(Trained({}, [], answer=Answer(50, ended=True))).facts
    {'early_bird_step': 50, 'stopped_early': True}
    """
    if trained.answer is None:
        return trained
    return replace(trained, facts={**trained.facts, STEP: trained.answer.step, STOPPED: trained.answer.ended})


def at_stable_mask(trained: Trained, record: Mapping[str, Any]) -> Trained:
    """Return a stored training with the weights that the next mask is drawn from: by default, those of its end.

    >>> dense = Trained({"w": 3}, [], snapshots={50: {"w": 2}})
    >>> at_stable_mask(dense, {"early_bird_step": 50}).params, at_stable_mask(dense, {}).params
    ({'w': 2}, {'w': 3})
    """
    step = record.get(STEP)
    # A level that ended at its stable evaluation kept no copy: its trained weights are those.
    kept = trained.snapshots.get(step) if step is not None else None
    return trained if kept is None else replace(trained, params=kept)


def check_early_bird(config: SearchConfig, drawing: Drawing) -> None:
    """Raise `BadValue` where no mask follows from the weights in the middle of a training."""
    if config.early_bird is None:
        return
    name = drawing.criterion.name
    lacking = drawing.criterion.needs - drawing.prober.provides
    if lacking:
        raise BadValue(
            f"early_bird draws masks in the middle of a training, where criterion {name!r} has no "
            f"{' and no '.join(sorted(lacking))}; use magnitude"
        )
    if drawing.at == "rewind":
        raise BadValue(
            f"early_bird watches a mask as weights are trained, and criterion {name!r} scores the rewind point; "
            "use score_at 'trained'"
        )
