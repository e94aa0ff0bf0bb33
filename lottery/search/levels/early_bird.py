"""Early-Bird tickets: a mask that has stopped changing is drawn, and training ends, before training is over.

    evaluation ─▶ the mask that would be drawn now ─▶ the last few of them alike? ─▶ drawn here

You et al. 2020, section 3 (arXiv 1909.11957). Level 0 is the dense reference and is trained whole: its next mask is
drawn from a copy of the weights at its first stable evaluation. The levels between end at theirs. The last level, from
which nothing is drawn, is trained whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lottery.search.levels.drawing import Drawing
from lottery.settings.config import SearchConfig
from pruning.errors import BadValue
from pruning.jobs import Job, Trained
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


@dataclass
class Bird:
    """Watches one training, as its budget's `until`.

    Attributes:
        draw: the mask that would be drawn from the training so far.
        competing: how many weights it is drawn from.
        distance: the largest normalised Hamming distance.
        window: how many masks are compared.
        ends: whether training ends at the first stable evaluation.
        masks: the last ones drawn.
        found: the training at its first stable evaluation.
    """

    draw: Callable[[Trained], Mask]
    competing: int
    distance: float
    window: int
    ends: bool
    masks: list[Mask] = field(default_factory=list)
    found: Trained | None = None

    def __call__(self, trained: Trained) -> bool:
        """Look at the training so far, and say whether to end it."""
        if self.found is None:
            self.masks = [*self.masks, self.draw(trained)][-self.window :]
            if is_stable(self.masks, self.competing, self.distance, self.window):
                self.found = trained
        return self.ends and self.found is not None


def watched(config: SearchConfig, job: Job, level: int, draw: Callable[[Trained], Mask]) -> Job:
    """Return a job whose training is watched.

    Args:
        config: the search, with `early_bird`.
        job: of a level that is not the last.
        level: its number; the dense one does not end early.
        draw: the mask that would be drawn from a training so far.
    """
    assert config.early_bird is not None
    competing = job.mask.total if config.candidates == "all" else job.mask.kept
    bird = Bird(draw, competing, config.early_bird, config.early_bird_window, ends=level > 0)
    return replace(job, budget=replace(job.budget, until=bird))


def told(trained: Trained, job: Job) -> Trained:
    """Return a finished training with what its watcher saw: facts for its record, weights that a mask is drawn from.

    A training that nobody watched comes back as it is.
    """
    bird = job.budget.until
    if not isinstance(bird, Bird):
        return trained
    step = bird.found.history[-1].step if bird.found is not None else None
    stopped = bird.ends and step is not None and step < job.budget.stop
    trained = replace(trained, facts={**trained.facts, STEP: step, STOPPED: stopped})
    if bird.found is None or step is None or bird.ends:
        return trained
    return replace(trained, snapshots={**trained.snapshots, step: bird.found.params})


def drawable(trained: Trained, record: Mapping[str, Any]) -> Trained:
    """Return a stored training with the weights that the next mask is drawn from.

    >>> dense = Trained({"w": 3}, [], snapshots={50: {"w": 2}})
    >>> drawable(dense, {"early_bird_step": 50}).params, drawable(dense, {}).params
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
