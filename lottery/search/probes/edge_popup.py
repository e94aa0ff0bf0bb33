"""Edge-popup: a mask learned for frozen weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from lottery.search.probes import Look, probe
from lottery.search.probes.learned_masks import Group, learn, survivors
from lottery.state.randomness import seeded_everywhere
from lottery.trainers.gd.config import GDConfig

LR = 0.1
# No |s| that a tensor computes with counts as smaller: what is divided by it stays finite.
SMALLEST = 1e-12


@probe("edge-popup", source="Ramanujan et al. 2020, section 3 (arXiv 1911.13299)")
def edge_popup(look: Look) -> dict[str, torch.Tensor]:
    """Scores of frozen weights, trained so that the top weights of every tensor make a good network.

    Every tensor computes with the same fraction of its survivors, such that their number together is what
    `look.density` asks for: those with the largest |s|. The gradient goes straight through the choice to |s|. SGD
    with momentum 0.9, weight decay 1e-4, a cosine schedule and learning rate 0.1 (`look.lr`), as in the paper. Biases
    and the affine part of normalizations stay as they are (at initialization that is the paper's non-affine batch
    norm), running statistics are updated.

    Returns:
        |s| over the smallest |s| that its tensor computed with, 0 for removed weights. Within a tensor that is the
        ranking of the paper; across tensors, whose |s| are initialized on scales of their own, everything at 1 or
        above is the subnetwork that was learned.

    Raises:
        BadValue: a training that diverged.
    """
    weights = look.weights
    look.model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    frozen = {name: weight.detach().clone() for name, weight in weights.items()}
    keeps = survivors(look)
    share = look.density / look.mask.density
    counts = {name: max(1, round(share * kept)) if kept else 0 for name, kept in look.mask.counts().items()}
    with seeded_everywhere(look.seed):
        scores = {name: nn.Parameter(_initial(weight)) for name, weight in frozen.items()}

    no_penalty = torch.zeros((), device=look.device)

    def make(step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {name: frozen[name] * _chosen(scores[name], keeps[name], counts[name]) for name in scores}, no_penalty

    lr = LR if look.lr is None else look.lr
    settings = GDConfig(optimizer="sgd", lr=lr, momentum=0.9, weight_decay=1e-4, schedule="cosine")
    learn(look, [Group(list(scores.values()), settings)], make)
    found = {name: score.detach().abs() for name, score in scores.items()}
    bars = {name: _smallest_chosen(found[name], keeps[name], counts[name]) for name in found}
    return {name: found[name] / bars[name] * keeps[name] for name in found}


def _initial(weight: torch.Tensor) -> torch.Tensor:
    """Kaiming uniform as torch initializes a layer: ±1/√fan-in."""
    rows = torch.empty(len(weight), math.prod(weight.shape[1:]))
    return nn.init.kaiming_uniform_(rows, a=math.sqrt(5)).reshape(weight.shape).to(weight.device)


def _chosen(score: torch.Tensor, keep: torch.Tensor, count: int) -> torch.Tensor:
    """Return 1 for the chosen weights and 0 for the others; its derivative by |s| is 1 everywhere."""
    magnitude = score.abs()
    fixed = magnitude.detach()
    chosen = (fixed >= _smallest_chosen(fixed, keep, count)) & keep
    return chosen + (magnitude - fixed)


def _smallest_chosen(magnitude: torch.Tensor, keep: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count`-th largest magnitude of the survivors, or infinity where none is chosen."""
    if not count:
        return magnitude.new_tensor(math.inf)
    smallest = torch.topk(magnitude[keep], count, sorted=False).values.min()
    return smallest.clamp_min(SMALLEST)
