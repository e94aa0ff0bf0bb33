"""Whether the trainings of a search are taken by the compiled steps, and what these need to know of all of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lottery.data.part import Tensors
from lottery.data.parts import Parts
from lottery.networks.objectives.objective import Objective, squared_error
from lottery.trainers.gd.chain.architecture import Architecture, NoChain, architecture_of
from lottery.trainers.gd.chain.library import Library, library
from lottery.trainers.gd.chain.measuring import rates_of_machine
from lottery.trainers.gd.chain.paths import Paths, Rates, choose_paths
from lottery.trainers.gd.chain.program import CROSS_ENTROPY, OPTIMIZERS, SQUARED_ERROR, Program, Rule
from lottery.trainers.gd.config import NO_MOVES, GDConfig
from lottery.trainers.gd.optimizers.learning_rate import SCHEDULES
from pruning.mask import Mask
from pruning.sparse.native.compiling import Missing

# Examples among which inputs that may always be 0 are looked for first.
_FEW = 1024


@dataclass(frozen=True)
class Chain:
    """Compiled steps for the trainings of one search.

    Attributes:
        library: the compiled functions.
        architecture: the layers of every network.
        rule: loss and optimizer of every step.
        batch: examples of a step.
        rates: of the machine that the run was begun on.
        silent: which inputs are 0 in every example for training [inputs]; None where none is.
        threads: how many cores may be used here; no part of the bits.
    """

    library: Library
    architecture: Architecture
    rule: Rule
    batch: int
    rates: Rates
    silent: NDArray[np.bool_] | None
    threads: int

    def paths(self, mask: Mask) -> Paths:
        """Return which way a level with this mask takes."""
        return choose_paths(self.architecture, mask, self.batch, self.rates)

    def program(self, model: nn.Module, mask: Mask, factors: Mapping[str, float]) -> Program:
        """Return the steps of one training, which begins with the weights of `model`."""
        paths = self.paths(mask)
        return Program(self.library, self.architecture, model, mask, paths, self.batch, self.rule, factors, self.silent)


def chain_for(model: nn.Module, parts: Parts, objective: Objective, config: GDConfig) -> Chain | NoChain:
    """Return the compiled steps for a search, or why PyTorch's operations take them.

    Args:
        model: the architecture, on the device.
        parts: the data, on the device.
        objective: loss and metric.
        config: how to train.
    """
    if config.steps_by == "pytorch":
        return NoChain("steps_by is 'pytorch'")
    reason = _settings_against(config) or _data_against(parts) or _numbers_against(model)
    if reason is not None:
        return NoChain(reason)
    rule = _rule(objective, parts, config)
    if isinstance(rule, NoChain):
        return rule
    architecture = architecture_of(model)
    if isinstance(architecture, NoChain):
        return architecture
    if reason := _shapes_against(architecture, parts, rule):
        return NoChain(reason)
    found = library()
    if isinstance(found, Missing):
        return NoChain(found.reason)
    batch = min(config.batch_size, len(parts.train))
    return Chain(
        found, architecture, rule, batch, rates_of_machine(found), silent_inputs(parts), torch.get_num_threads()
    )


def silent_inputs(parts: Parts) -> NDArray[np.bool_] | None:
    """Return which inputs are 0 in every example for training [inputs], or None where none is.

    >>> part = Tensors(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([0, 1]))
    >>> silent_inputs(Parts(part, part, None, "two"))
    array([ True, False])
    """
    assert isinstance(parts.train, Tensors)
    inputs = parts.train.inputs.flatten(1)
    found = ~inputs[:_FEW].any(0)
    if not found.any():
        return None
    # The others are looked at in these places alone.
    found[found.clone()] = ~inputs[:, found].any(0)
    return found.numpy() if found.any() else None


def _settings_against(config: GDConfig) -> str | None:
    """Return the first setting that only PyTorch's operations know."""
    plain: dict[str, Any] = {
        "optimizer_params": {},
        "accumulate": 1,
        "precision": "float32",
        "ema": None,
        "augment": "none",
        "moves": NO_MOVES,
    }
    for name, value in plain.items():
        if getattr(config, name) != value:
            return f"{name} is {getattr(config, name)!r}"
    if config.optimizer not in OPTIMIZERS:
        return "its optimizer is another one"
    return None if config.schedule in SCHEDULES else "its schedule is another one"


def _data_against(parts: Parts) -> str | None:
    for part in parts.each:
        if part is None:
            continue
        if not isinstance(part, Tensors) or not part.is_pair or parts.forward is not None:
            return "its data are no pair of tensors"
        if part.device.type != "cpu" or part.inputs.dtype != torch.float32:
            return "its inputs are no float32 on the CPU"
    assert isinstance(parts.train, Tensors)
    return None if parts.train.inputs.is_contiguous() else "its inputs do not lie one after the other"


def _numbers_against(model: nn.Module) -> str | None:
    plain = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
    return None if plain else "its weights are no float32 on the CPU"


def _rule(objective: Objective, parts: Parts, config: GDConfig) -> Rule | NoChain:
    loss, smoothing = objective.loss, 0.0
    assert isinstance(parts.train, Tensors)
    targets = parts.train.targets
    if isinstance(loss, functools.partial) and loss.keywords.keys() == {"label_smoothing"} and not loss.args:
        loss, smoothing = loss.func, loss.keywords["label_smoothing"]
    if loss is F.cross_entropy and targets.dtype == torch.int64 and targets.dim() == 1:
        kind = CROSS_ENTROPY
    elif loss is squared_error and targets.dtype == torch.float32 and targets.dim() in (1, 2):
        kind = SQUARED_ERROR
    else:
        return NoChain("its loss is another one")
    clip, optimizer = config.clip_norm or 0.0, str(config.optimizer)
    return Rule(kind, smoothing, optimizer, config.momentum, config.nesterov, config.weight_decay, clip)


def _shapes_against(architecture: Architecture, parts: Parts, rule: Rule) -> str | None:
    """Return what of the data the compiled steps would read wrongly."""
    assert isinstance(parts.train, Tensors)
    inputs, targets = parts.train.inputs, parts.train.targets
    if inputs[:1].numel() != architecture[0].inputs:
        return "its first layer looks at parts of an example"
    outputs = architecture[-1].outputs
    if rule.loss == SQUARED_ERROR:
        return None if targets[:1].numel() == outputs and targets.is_contiguous() else "its targets have another shape"
    plain = bool(((targets >= 0) & (targets < outputs)).all()) and targets.is_contiguous()
    return None if plain else "some labels do not count"
