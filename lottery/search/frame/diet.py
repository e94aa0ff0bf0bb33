"""The data diet: a search on the training examples that matter, found by a few short trainings.

training part ─▶ some networks, trained for a little ─▶ a score for each example ─▶ the hardest (or easiest) examples
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lottery.data.parts import Parts, Tensors
from lottery.networks.sources.following import follow
from lottery.networks.sources.source import ModelSource, require_torch
from lottery.search.data_scores import DATA_SCORES
from lottery.settings.config import SearchConfig
from lottery.state.machine.bars import with_bar
from lottery.state.tensors import load_state
from lottery.trainers import Ask
from lottery.trainers.choosing import trainer_kind
from lottery.trainers.gd.config import GDConfig
from lottery.trainers.gd.setup import setup
from lottery.trainers.gd.trainer import GDTrainer
from pruning.errors import BadValue, DataError, Diverged
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.torch_modules import apply_mask
from pruning.uses.uses import Uses
from pruning.watch import Silent

# Sets the seeds of these networks apart from those of the search.
_STREAM = 20210707


def with_data_diet(ask: Ask, config: SearchConfig) -> Ask:
    """Return the request to the trainer with only the training examples that the data diet keeps (all without a diet).

    The networks are trained by gradient descent with the search's own settings (the defaults where evolution trains)
    on the training part alone; validation and test examples are neither scored nor looked at. They start where the
    search's networks start, each from a seed of its own that follows from the search's; all replicates get the same
    examples.

    Paul et al. 2021 (arXiv 2107.07075): the hardest examples by EL2N, over 10 networks after a tenth of the
    training. Paul et al. 2022 (arXiv 2206.01278) keep the easiest ones to reach the rewinding point.

    Raises:
        DataError: data that cannot be scored: an environment, a `DataLoader`, labels that are no integers.
        BadValue: a model that PyTorch cannot train, or a fraction that leaves no example.
        Diverged: a network that did not train to finite weights.
    """
    if config.data_diet is None:
        return ask
    score = DATA_SCORES[config.data_diet_score].value
    train = _scorable(ask)
    count = round(config.data_diet * len(train))
    if not count:
        raise BadValue(f"data_diet {config.data_diet:g} leaves none of {len(train):,} training examples")
    # The trainer measures as it goes: here on training examples.
    alone = Parts(train, train.take(torch.arange(min(len(train), 1024))), None, ask.parts.name)
    gd = (
        ask.config
        if isinstance(ask.config, GDConfig)
        else GDConfig(device=trainer_kind(config.trainer).torch_device(ask.config))
    )
    ready = setup(replace(ask, parts=alone, config=gd, watch=Silent()))
    # By PyTorch's operations: what else this machine would choose must not choose the examples of a run.
    trainer = ready.trainer
    assert isinstance(trainer, GDTrainer)
    trainer = trainer.calibrated(None)
    steps = max(1, ready.total_steps // 10) if config.data_diet_steps is None else config.data_diet_steps
    models, masks = _networks(ask, config, trainer, steps)
    inputs, targets = trainer.parts.example
    scores = score(models, inputs, targets, masks)
    if not np.isfinite(scores).all():
        raise BadValue(f"data_diet: the {config.data_diet_score} of some examples is not a finite number; lower lr")
    if config.data_diet_score == "grand" and steps == 0:
        norms = inputs.flatten(1).double().norm(dim=1).cpu().numpy()
        warnings.warn(
            "GraNd at initialization did not reproduce (Kirsch 2023, arXiv 2303.14753): it follows the norm of the "
            f"inputs (rank correlation here {_rank_correlation(scores, norms):.2f}); set data_diet_steps, or use el2n",
            stacklevel=2,
        )
    kept = keep_examples(scores, count, config.data_diet_keep)
    return replace(ask, parts=replace(ask.parts, train=train.take(torch.from_numpy(kept))))


def keep_examples(scores: NDArray[np.float64], count: int, keep: str) -> NDArray[np.int64]:
    """Return the positions of the examples that stay, in their order.

    Args:
        scores: one for each example; a higher one is harder.
        count: how many stay.
        keep: `hard` or `easy`. Of examples with the same score, the first ones stay.

    >>> keep_examples(np.array([0.5, 0.9, 0.5, 0.1]), 2, "hard").tolist()
    [0, 1]
    >>> keep_examples(np.array([0.5, 0.9, 0.5, 0.1]), 2, "easy").tolist()
    [0, 3]
    """
    order = np.argsort(-scores if keep == "hard" else scores, kind="stable")
    return np.sort(order[:count])


def _scorable(ask: Ask) -> Tensors:
    """Return the training part, if its examples can be scored."""
    if not isinstance(ask.parts, Parts):
        raise DataError(f"data_diet scores training examples, and {ask.parts.name} is an environment")
    require_torch(ask.source, "data_diet scores examples by", "leave data_diet out, or pick the examples by yourself")
    train = ask.parts.train
    if not isinstance(train, Tensors):
        raise DataError("data_diet picks examples from tensors, not from a DataLoader: give (X, y) or a Dataset")
    if not train.is_pair:
        raise DataError("data_diet needs one tensor of inputs and one of labels")
    if train.targets.dtype != torch.int64 or train.targets.dim() != 1:
        shape = [*train.targets.shape]
        raise DataError(f"data_diet needs one integer label an example, not {train.targets.dtype} labels {shape}")
    return train


def _networks(ask: Ask, config: SearchConfig, trainer: GDTrainer, steps: int) -> tuple[list[nn.Module], list[Mask]]:
    """Return networks trained for a few steps, and their masks (all ones, unless the model was already pruned)."""
    source = ask.source
    assert isinstance(source, ModelSource)
    seeds = network_seeds(config.seed, config.data_diet_networks)
    uses = follow(ask.source, ask.parts, ask.seed, ask.loss, ask.metric)
    masks = [_mask(source, seed, config, uses) for seed in seeds]
    budget = Budget(0, steps)
    jobs = [Job(source.initial_state(s), mask, s, budget) for s, mask in zip(seeds, masks, strict=True)]
    models: list[nn.Module] = []
    results = trainer.train(jobs, frozenset()) if steps else (Trained(job.params, history=[]) for job in jobs)
    for job, trained in zip(jobs, with_bar(results, "data diet", len(jobs)), strict=True):
        if trained.diverged:
            raise Diverged(f"data_diet: a network that scores examples diverged ({trained.diverged}); lower lr")
        model = source.build(job.seed).to(trainer.device)
        load_state(model, trained.params)
        models.append(apply_mask(model, trained.mask or job.mask))
    return models, masks


def network_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of the networks that score examples for a search with this seed.

    >>> network_seeds(0, 3)[:2] == network_seeds(0, 2), network_seeds(0, 1) == network_seeds(1, 1)
    (True, False)
    """
    return [int(s) for s in np.random.SeedSequence([seed, _STREAM]).generate_state(count, np.uint32)]


def _mask(source: ModelSource, seed: int, config: SearchConfig, uses: Uses) -> Mask:
    already = source.initial_mask(seed)
    return Mask.dense(source.prunable(seed, config.prunable, config.skip, uses)) if already is None else already


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return Spearman's ρ, ties broken by position."""
    first, second = (np.argsort(np.argsort(values, kind="stable")) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1]) if len(a) > 1 else 0.0
