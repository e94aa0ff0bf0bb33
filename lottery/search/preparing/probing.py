"""Which prober a search gets, and why it may have none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from lottery.data.parts import Parts
from lottery.data.unseen import Unseen
from lottery.networks.objectives.objective import objective_for, own
from lottery.networks.sources.source import ModelSource
from lottery.search.probes import PROBES, NoProber, TorchProber
from lottery.settings.config import SearchConfig
from lottery.state.machine.device import choose_device
from lottery.state.tensors import float_type
from lottery.trainers import Ask
from lottery.trainers.choosing import trainer_kind
from pruning.jobs import Prober


def prober_for(ask: Ask, config: SearchConfig, needs: frozenset[str]) -> Prober:
    """Return the prober of this search's networks: it uses PyTorch, also where another trainer trains them.

    Args:
        ask: model and data, as the trainer was given them.
        config: how many examples to look at, and how long a probe may train.
        needs: the names of the values that the criterion needs.
    """
    if not any(need in PROBES for need in needs):
        return NoProber("the criterion looks at weights alone")
    if not isinstance(ask.source, ModelSource):
        return NoProber(
            "looks at PyTorch modules, and this model is in JAX: use magnitude, movement, random, snr or "
            "another that looks at weights alone, or a function score(trained, job) of your own"
        )
    if isinstance(ask.parts, Unseen):
        return NoProber("looks at examples, and no data was given: give data, or use magnitude")
    model = ask.source.build(ask.seed)
    kind = trainer_kind(config.trainer)
    device = choose_device(kind.torch_device(ask.config))
    if not kind.training_mode:
        model.eval()
    elif not any(module.training for module in model.modules()):
        model.train()
    if isinstance(ask.parts, Parts):
        parts = ask.parts.with_floats(float_type(model))
        inputs, targets = parts.example
        part, shape = parts.train, tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else ()
        loss = own(objective_for(targets, ask.loss, ask.metric).loss, device)
    else:
        part, shape, loss = None, ask.parts.input_shape, F.mse_loss
    return TorchProber(
        model=model,
        part=part,
        loss=loss,
        input_shape=shape,
        device=device,
        examples=config.score_examples,
        steps=config.score_steps,
        lr=config.score_lr,
        batch_size=ask.config.batch_size,
        probes=config.score_probes,
    )


def refusals(prober: Prober) -> Mapping[str, str]:
    """Return why a probe cannot be had, by name."""
    if isinstance(prober, NoProber):
        return {entry.name: prober.reason for entry in PROBES}
    missing = [entry.name for entry in PROBES if entry.name not in prober.provides]
    why = "on labelled examples, and an environment has none: use magnitude, synflow or snr"
    return {name: f"needs {name!r} {why}" for name in missing}
