"""Continuous sparsification: a soft mask, learned with the weights, that hardens."""

from __future__ import annotations

import torch
from torch import nn

from lottery.search.probes import Look, probe
from lottery.search.probes.learned_masks import Group, learn, survivors
from lottery.trainers.gd.config import GDConfig

LR = 0.1
FINAL_BETA = 200.0
PENALTY = 1e-8
# The paper's learning rate falls tenfold at epochs 56 and 71 of 85.
DROPS = (56 / 85, 71 / 85)


@probe("continuous-sparsification", source="Savarese et al. 2020 (arXiv 1912.04427)")
def continuous_sparsification(look: Look) -> dict[str, torch.Tensor]:
    """Mask parameters s, trained together with the weights under the mask σ(β s) while β rises from 1 to 200.

    s starts at 0, so that at first every survivor counts alike; the soft mask is divided by that first value, as in
    the authors' code, so that training begins at the given weights. β rises exponentially, step by step. The loss has
    the penalty 1e-8 Σ σ(β s). SGD with momentum 0.9 and learning rate 0.1 (`look.lr`), which falls tenfold after 66 %
    and after 84 % of the steps; weight decay 1e-4 on everything but s.

    Returns:
        s; 0 for removed weights, which never take part.

    Raises:
        BadValue: a training that diverged.
    """
    weights, keeps = look.weights, survivors(look)
    masked = {id(weight) for weight in weights.values()}
    others = [p for p in look.model.parameters() if p.requires_grad and id(p) not in masked]
    # At least float32: s moves by less than a half-precision weight can hold.
    kinds = {name: torch.promote_types(weight.dtype, torch.float32) for name, weight in weights.items()}
    free = {name: nn.Parameter(weight.detach().to(kinds[name], copy=True)) for name, weight in weights.items()}
    scores = {name: nn.Parameter(torch.zeros_like(weight.detach().abs())) for name, weight in free.items()}

    def make(step: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        beta = FINAL_BETA ** (step / max(1, look.steps - 1))
        soft = {name: torch.sigmoid(beta * score) * keeps[name] for name, score in scores.items()}
        penalty = PENALTY * torch.stack([value.sum() for value in soft.values()]).sum()
        return {name: free[name] * value / 0.5 for name, value in soft.items()}, penalty

    lr = LR if look.lr is None else look.lr
    drops = tuple(round(fraction * look.steps) for fraction in DROPS)
    settings = GDConfig(optimizer="sgd", lr=lr, momentum=0.9, schedule="milestones", milestones=drops)
    decayed = GDConfig(optimizer="sgd", lr=lr, momentum=0.9, weight_decay=1e-4, schedule="milestones", milestones=drops)
    learn(look, [Group([*free.values(), *others], decayed), Group(list(scores.values()), settings)], make)
    return {name: score.detach() for name, score in scores.items()}
