"""A search's model and data as gradient descent in JAX needs them: a pure function, and arrays on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F

from es.coordinates import Space
from es.network import Network
from es.tasks.supervised import Supervised, size
from es.translation.arrays import batch_to_jax
from es.translation.functions import torch_network
from lottery.data.part import Loader, Part, Tensors
from lottery.data.parts import Parts
from lottery.networks.objectives.labels import check_labels, check_outputs
from lottery.networks.objectives.metric import Measure
from lottery.networks.objectives.objective import objective_for
from lottery.networks.sources.jax import JaxSource
from lottery.networks.sources.source import ModelSource
from lottery.networks.trainable import NAMED, trainable_names
from lottery.state.tensors import check_finite, float_type
from lottery.trainers import Ask
from lottery.trainers.es.loaders import matters
from lottery.trainers.es.losses import examples_in_jax, loss_in_jax
from lottery.trainers.es.metrics import HostReading, weigh_batch
from lottery.trainers.optax.networks.half import in_half
from lottery.trainers.optax.networks.in_memory import in_memory
from lottery.trainers.optax.networks.modes import check_modes
from lottery.trainers.optax.networks.training import Forward, as_evaluated, forward_of
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, DataError, NothingToPrune, RunError
from pruning.masks.names import match_patterns


@dataclass(frozen=True)
class Problem:
    """What is trained, on what, and how it is measured.

    Attributes:
        task: the network as it is measured, the data on the device, the loss, and what measures a network.
        forward: the network as it is while it trains.
        order: the places of the training examples, as a part whose batches are drawn like those of any other part.
        batch_size: examples a step.
        measure: the metric.
        objective: names loss and metric.
    """

    task: Supervised
    forward: Forward
    order: Tensors
    batch_size: int
    measure: Measure
    objective: str


def problem_of(ask: Ask) -> Problem:
    """Translate the model, put the data on the device, and check that all fits.

    Raises:
        DataError: a model that cannot take these inputs, labels that its outputs cannot give, or a `DataLoader` that
            cannot be held in memory.
        NothingToPrune: a model without a parameter to train.
        BadValue: a model that computes something else in training mode.
    """
    config = ask.config
    assert isinstance(ask.parts, Parts)
    parts, batch_size = in_memory(ask.parts, config.batch_size, ask.seed)
    if isinstance(ask.source, ModelSource):
        parts = parts.with_floats(float_type(ask.source.build(ask.seed)))
    objective = objective_for(parts.example[1], ask.loss, ask.metric)
    if ask.loss is None:
        check_labels(parts)
    example = jax.tree.map(lambda leaf: leaf if isinstance(leaf, bool) else leaf[:batch_size], parts.example)
    few = batch_to_jax(example)
    with users_code("the model on a batch of this data", DataError):
        network, forward, state = _network(ask, example[0])
        if config.precision == "bf16":
            statistics = () if isinstance(ask.source, ModelSource) else state.keys() - set(network.evolved)
            network = replace(network, apply=in_half(network.apply, statistics))
            forward = in_half(forward, statistics)
        params = {name: jnp.asarray(value) for name, value in state.items()}
        found = jax.eval_shape(network.apply, params, few[0])
        outputs = found if network.example is None else network.example
        jax.eval_shape(forward, params, few[0], jax.random.key(0))
    if objective.loss is F.cross_entropy:
        check_outputs(outputs.shape, parts)
    loss = loss_in_jax(ask, objective.loss, outputs, few[1], network)
    train, validation = examples_in_jax(parts.train), examples_in_jax(parts.validation)
    test = examples_in_jax(parts.test) if parts.test is not None else None
    task = Supervised(
        network=network,
        space=Space.of(state, network.evolved),
        train=train,
        validation=validation,
        test=test,
        loss=loss,
        metric=partial(HostReading, objective.metric, isinstance(ask.source, JaxSource), network.restored),
        weigh=partial(weigh_batch, objective.loss),
        batch_size=batch_size,
        params=params,
    )
    if isinstance(ask.parts.train, Loader):
        _check_batches(task, parts.train)
    try:  # measured once, so that a metric that cannot work is said before anything is written
        task.measure(task.params)
    except RunError as error:
        raise DataError(f"{error}, on what the model returns") from error
    places = torch.arange(size(train))
    return Problem(task, forward, Tensors(places, places), batch_size, objective.metric.measure, objective.name)


def _network(ask: Ask, inputs: Any) -> tuple[Network, Forward, Mapping[str, Any]]:
    """Return the network (what is trained is `evolved`), the same while it trains, and one seed's arrays."""
    only: tuple[str, ...] = ask.config.train_only
    if isinstance(ask.source, ModelSource):
        model = ask.source.build(ask.seed)
        check_finite(model)
        check_modes(model, inputs)
        network, state = torch_network(model, inputs), ask.source.initial_state(ask.seed)
        names, forward = trainable_names(model, only), as_evaluated(network.apply)
    else:
        assert isinstance(ask.source, JaxSource)
        network, state = ask.source.network(ask.seed)
        forward = forward_of(ask.source.model(ask.seed), network.apply)
        named = [text for text in only if text in NAMED]
        if named:
            raise BadValue(f"train_only {named[0]!r} looks at the layers of a PyTorch module; name arrays")
        names = match_patterns(only, network.evolved, "train_only") if only else network.evolved
    trained = tuple(name for name in network.evolved if name in names)
    if not trained:
        raise NothingToPrune("the model has no trainable floating-point parameter: there is nothing to train")
    return replace(network, evolved=trained), forward, state


def _check_batches(task: Supervised, train: Part) -> None:
    """Raise `DataError` where it matters which examples of a loader share a batch: here they are drawn anew."""
    assert isinstance(train, Tensors)

    def measure(examples: Any, at_once: int) -> tuple[float, float]:
        with users_code("the model, the loss or the metric", DataError):
            return task.over(task.params, batch_to_jax(examples), at_once)

    if task.batch_size < len(train) and matters(measure, (train.inputs, train.targets), task.batch_size):
        raise DataError(
            "the loss or the metric depends on which examples share a batch of the DataLoader, and trainer 'optax' "
            "draws batches of its own: use trainer 'gd', or give arrays"
        )
