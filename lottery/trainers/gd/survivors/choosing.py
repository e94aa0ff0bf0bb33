"""Which layers of a job's network train their survivors alone: where the costs say so and a batch shows the same."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lottery.data.part import Tensors
from lottery.trainers.gd.chain.architecture import PARAMETER_HOOKS
from lottery.trainers.gd.chain.library import library
from lottery.trainers.gd.chain.measuring import rates_of_machine
from lottery.trainers.gd.chain.paths import Rates
from lottery.trainers.gd.config import NO_MOVES, GDConfig
from lottery.trainers.gd.frame import GDFrame
from lottery.trainers.gd.optimizers.named import OPTIMIZERS
from lottery.trainers.gd.survivors.costs import Use, may_pay, pays
from lottery.trainers.gd.survivors.survivors import BACKEND, Survivors, parts_of
from lottery.trainers.gd.survivors.trial import Trial
from pruning.jobs import Job
from pruning.mask import Mask
from pruning.sparse.native.compiling import Missing
from pruning.sparse.native.products import products
from pruning.sparse.network.owners import Owned, owners


@dataclass(frozen=True)
class Found:
    """What was chosen for a job.

    Attributes:
        survivors: the layers that train their survivors alone; None where all stay dense.
        facts: what the level's record says of it.
    """

    survivors: Survivors | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def rates_for_layers(config: GDConfig, device: torch.device) -> Rates | None:
    """Return the rates by which layers are chosen; None where sparse layers cannot be had, or are not wanted."""
    if device.type != "cpu" or _settings_against(config) or isinstance(products(), Missing):
        return None
    found = library()
    return None if isinstance(found, Missing) else rates_of_machine(found)


def survivors_for(frame: GDFrame, job: Job, model: nn.Module, needs: frozenset[str]) -> Found:
    """Return which layers of a job's network train their survivors alone.

    Args:
        frame: how to train.
        job: the job to train.
        model: its network, at its first weights; copies of it are tried.
        needs: what to keep beside the trained weights: an estimator that looks at every step must see every weight.
    """
    rates, part = frame.rates, frame.parts.train
    if rates is None or not isinstance(part, Tensors) or ("std" in needs and frame.config.std != "fisher"):
        return Found()
    batch = frame.config.batch_size
    thin = {row.name: job.mask[row.name] for row in job.mask.layers() if may_pay(row.density, batch, rates)}
    if not thin:
        return Found()
    trial = Trial(frame, model, job)
    chosen = _cheaper(trial, Mask(thin), rates)
    if not chosen:
        return Found()
    mask = Mask({name: thin[name] for name in chosen})
    reason = trial.difference(mask)
    ways = {name: "sparse" if name in mask and not reason else "dense" for name in job.mask}
    facts = {"steps_by": {"layers": ways} | ({"because": reason} if reason else {})}
    return Found(None if reason else Survivors(model, owners(model, mask)), facts)


def _settings_against(config: GDConfig) -> bool:
    plain = config.steps_by == "auto" and config.precision == "float32" and config.moves == NO_MOVES
    return not (plain and config.optimizer in OPTIMIZERS)


def _cheaper(trial: Trial, mask: Mask, rates: Rates) -> list[str]:
    """Return the names of the weights whose layers have a sparse form that is cheaper."""
    try:
        layers, uses = _looked_at(trial, mask)
    except (Exception, SystemExit):  # code around a layer may want more of it than its sparse form has
        return []
    by_layer = [parts_of(layer) for layer in layers]
    return [n for parts in by_layer if all(pays(part, uses[n], rates) for n, part in parts.items()) for n in parts]


def _looked_at(trial: Trial, mask: Mask) -> tuple[list[Owned], dict[str, list[Use]]]:
    """Return the layers that have a sparse form, and what the products of their weights are called with."""
    model = trial.copied()
    layers = [layer for layer in owners(model, mask) if layer.path and _is_plain(layer)]
    survivors = Survivors(model, layers)
    uses: dict[str, list[Use]] = {name: [] for name in survivors.parts}
    for name, part in survivors.parts.items():
        part.register_forward_pre_hook(functools.partial(_note, uses[name]))
        part.backend = "dense"
    with survivors.at_work():
        trial.outputs(model)
    return layers, uses


def _is_plain(layer: Owned) -> bool:
    """Say whether a layer has a sparse form, of float32 numbers, and nobody listens to its parameters."""
    heard = any(getattr(p, hooks, None) for p in layer.layer.parameters() for hooks in PARAMETER_HOOKS)
    return layer.form is not None and not heard and all(p.dtype == torch.float32 for p in layer.layer.parameters())


def _note(uses: list[Use], part: Any, args: tuple[torch.Tensor, ...]) -> None:
    inputs = args[0]
    runs = part.options(inputs).get(BACKEND, math.inf) < math.inf
    uses.append(Use(tuple(inputs.shape), inputs.requires_grad, runs))
