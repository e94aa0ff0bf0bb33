"""A search's model and data as evolution needs them: a pure function, arrays on the device, a task."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch
import torch.nn.functional as F

from es.config import ESConfig
from es.coordinates import Space
from es.device import choose_devices, computing_on
from es.jax_models.examples import described
from es.network import Network
from es.strategies import make_strategy, require_per_weight_std, strategy_name
from es.strategies._given import Remade, strategy_behaviour
from es.strategies._scaled import require_many_sigmas
from es.tasks.control import ControlTask
from es.tasks.environments import Environment
from es.tasks.fitness import OwnFitness
from es.tasks.supervised import Supervised, size
from es.trainer import ESTrainer
from es.translation.arrays import batch_to_jax
from es.translation.functions import to_jax, torch_network
from es.translation.randomness import noisy_layers
from lottery.data.fitness import Fitness
from lottery.data.parts import Parts
from lottery.networks.objectives.labels import check_labels, check_outputs
from lottery.networks.objectives.metric import Measure, Metric
from lottery.networks.objectives.objective import objective_for
from lottery.networks.sources.jax import JaxSource
from lottery.networks.sources.source import ModelSource
from lottery.networks.trainable import NAMED, trainable_names
from lottery.state.behaviour import Behaviour
from lottery.state.machine.telling import say
from lottery.state.tensors import check_finite, float_type
from lottery.trainers import Ask, Setup
from lottery.trainers.es.check import checked
from lottery.trainers.es.loaders import MeasureExamples, in_memory, measure_in_torch
from lottery.trainers.es.losses import examples_in_jax, loss_in_jax
from lottery.trainers.es.metrics import HostReading, weigh_batch
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, DataError, NothingToPrune, RunError
from pruning.jobs import Job
from pruning.masks.names import match_patterns, values_by_name

# This many observations show how a network computes.
FEW = 8
GENERATIONS = 600
GENERATIONS_OF_EPISODES = 200
REWARD = Measure("reward")


def setup(ask: Ask) -> Setup:
    """Translate the model, put the data on the device, check that all fits, and return the trainer.

    Raises:
        DeviceError: a device that JAX does not have here.
        DataError: a model that cannot take these inputs, or labels that its outputs cannot give.
        UsageError: a strategy, a hyper-parameter, a population or a model that evolution cannot work with.
    """
    config: ESConfig = ask.config
    devices = choose_devices(config.device)
    first = devices[0]
    with computing_on(first, config.precision):
        task, measure, objective, examples = _task(ask)
        if not task.space.names:
            raise NothingToPrune("the model has no trainable floating-point parameter: there is nothing to evolve")
        # Made once for the whole space, so that what cannot work is said before anything is trained.
        size = task.space.size
        if isinstance(config.strategy, Remade):
            config.strategy.check(config.population, config.population, size)
        strategy = make_strategy(config.strategy, config.population, size, config.sigma, config.strategy_params)
    if config.sigma_factors:
        require_many_sigmas(config.strategy)
        values_by_name(config.sigma_factors, task.space.names, "sigma_factors")
    total = config.generations or (GENERATIONS if isinstance(ask.parts, Parts) else GENERATIONS_OF_EPISODES)
    trainer = ESTrainer(task, task.space, config, total, devices, ask.watch)
    words = "cpu" if first.platform == "cpu" else first.device_kind
    words += f" × {len(devices)}" if len(devices) > 1 else ""
    epoch = max(1, examples // config.batch_size)

    def behave(job: Job) -> Behaviour:
        with computing_on(first, config.precision):
            measured = task.measure({name: jnp.asarray(value) for name, value in job.params.items()})
        given = {} if late is None else {"strategy": strategy_behaviour(strategy, config.population, size)}
        return {name: [value] for name, value in vars(measured).items()} | given

    late = (
        None
        if isinstance(config.strategy, str)
        else (
            f"strategy {strategy_name(config.strategy)!r} is an object, whose schedules begin anew with it: rewind to 0"
        )
    )
    episodes = None if isinstance(ask.parts, Parts) else config.test_episodes
    ready = checked(ask, trainer)
    return Setup(ready, total, epoch, measure, objective, words, _refusals(config), behave, late, episodes)


def _task(ask: Ask) -> tuple[Supervised | ControlTask | OwnFitness, Measure, str, int]:
    """Return what networks are judged on, how it is measured, the names of loss and metric, and how many examples."""
    if isinstance(ask.parts, Parts):
        return _supervised(ask, ask.parts)
    if ask.loss is not None or ask.metric is not None:
        what = "fitness" if isinstance(ask.parts, Fitness) else "reward"
        raise BadValue(f"{ask.parts.name} brings its own measure, the {what}; leave loss and metric out")
    return _fitness(ask, ask.parts) if isinstance(ask.parts, Fitness) else _control(ask, ask.parts.environment)


def _refusals(config: ESConfig) -> dict[str, str]:
    if config.train_only:
        return {"std": "train_only leaves weights alone that then have no standard deviation; use magnitude"}
    try:
        require_per_weight_std(config.strategy)
    except BadValue as error:
        return {"std": str(error)}
    return {}


def _network(ask: Ask, inputs: Any) -> tuple[Network, Mapping[str, Any]]:
    """Return the network as a pure function, and one seed's parameters and buffers."""
    only: tuple[str, ...] = ask.config.train_only
    if isinstance(ask.source, ModelSource):
        model = ask.source.build(ask.seed)
        check_finite(model)
        network, trained = torch_network(model, inputs), trainable_names(model, only)
        if noisy := noisy_layers(model, inputs):
            more = f" and {len(noisy) - 3} more" if len(noisy) > 3 else ""
            say(f"evolution evaluates in evaluation mode: {', '.join(noisy[:3])}{more} draw no random numbers there")
        return _evolving(network, trained), ask.source.initial_state(ask.seed)
    if isinstance(ask.source, JaxSource):
        network, params = ask.source.network(ask.seed)
        return _training_only(network, only), params
    raise BadValue(f"trainer 'es' evolves PyTorch modules and JAX models, not {type(ask.source).__name__}")


def _training_only(network: Network, only: Sequence[str]) -> Network:
    """Return a JAX network of which only the parameters that these patterns name are evolved."""
    named = [text for text in only if text in NAMED]
    if named:
        raise BadValue(f"train_only {named[0]!r} looks at the layers of a PyTorch module; name arrays")
    return _evolving(network, match_patterns(only, network.evolved, "train_only")) if only else network


def _evolving(network: Network, names: Collection[str]) -> Network:
    """Return the network with no more than these parameters evolved."""
    return replace(network, evolved=tuple(name for name in network.evolved if name in names))


def _supervised(ask: Ask, parts: Parts) -> tuple[Supervised, Measure, str, int]:
    loaded = in_memory(parts, ask.seed)
    parts = loaded.parts
    if isinstance(ask.source, ModelSource):
        parts = parts.with_floats(float_type(ask.source.build(ask.seed)))
    objective = objective_for(parts.example[1], ask.loss, ask.metric)
    if ask.loss is None:
        check_labels(parts)
    source = ask.source
    kept = loaded.kept(measure_in_torch(source, ask.seed, objective)) if isinstance(source, ModelSource) else None
    # as many as a generation sees: what a compiler makes of a network may depend on it
    at_once = ask.config.batch_size if kept is None else kept.train
    example = jax.tree.map(lambda leaf: leaf if isinstance(leaf, bool) else leaf[:at_once], parts.example)
    few = batch_to_jax(example)
    with users_code("the model on a batch of this data", DataError):
        network, state = _network(ask, example[0])
        params = {name: jnp.asarray(value) for name, value in state.items()}
        outputs = jax.jit(network.apply)(params, few[0]) if network.example is None else network.example
    if objective.loss is F.cross_entropy:
        check_outputs(outputs.shape, parts)
    loss = loss_in_jax(ask, objective.loss, outputs, few[1], network)
    train, validation = examples_in_jax(parts.train), examples_in_jax(parts.validation)
    test = examples_in_jax(parts.test) if parts.test is not None else None
    space = Space.of(state, network.evolved)
    metric = partial(HostReading, objective.metric, isinstance(ask.source, JaxSource), network.restored)
    weigh = partial(weigh_batch, objective.loss)
    task = Supervised(
        network=network,
        space=space,
        train=train,
        validation=validation,
        test=test,
        loss=loss,
        metric=metric,
        weigh=weigh,
        batch_size=ask.config.batch_size,
        params=params,
        kept=kept,
    )
    if not isinstance(source, ModelSource):
        task = replace(task, kept=loaded.kept(_measure_in_jax(task)))
    _try_metric(task, objective.metric, (outputs, few[1]))
    return task, objective.metric.measure, objective.name, size(train)


def _measure_in_jax(task: Supervised) -> MeasureExamples:
    def measure(examples: Any, at_once: int) -> tuple[float, float]:
        with users_code("the model, the loss or the metric", DataError):
            return task.over(task.params, batch_to_jax(examples), at_once)

    return measure


def _try_metric(task: Supervised, metric: Metric, few: tuple[Any, Any]) -> None:
    """Measure the network as it is, so that a metric that cannot work is said before anything is written.

    A metric that does not add up over batches is tried on whole parts: on a few examples it may be undefined. So is one
    of kept batches: the last one of a part may be smaller than the network takes.
    """
    try:
        if metric.adds_up and task.kept is None:
            reading = task.metric()
            reading.add(*few)
            reading.value()
        else:
            task.measure(task.params)
    except RunError as error:
        raise DataError(f"{error}, on what the model returns") from error


def _control(ask: Ask, environment: Environment) -> tuple[ControlTask, Measure, str, int]:
    config: ESConfig = ask.config
    observations = torch.zeros(FEW, *environment.observation_shape)
    with users_code("the model on a batch of observations", DataError):
        network, state = _network(ask, observations)
        shape = jax.eval_shape(network.apply, to_jax(dict(state)), to_jax(observations)).shape
    if shape != (FEW, environment.outputs):
        raise DataError(
            f"{environment.name} takes {environment.outputs} outputs for an observation, and the model gives "
            f"{list(shape[1:])}"
        )
    space = Space.of(state, network.evolved)
    task = ControlTask(
        environment,
        network,
        space,
        episodes=config.episodes,
        max_steps=config.episode_steps,
        validation_episodes=config.test_episodes,
        test_episodes=config.test_episodes,
        seed=ask.split_seed,
        params={name: jnp.asarray(value) for name, value in state.items()},
    )
    return task, REWARD, "reward", 1


def _fitness(ask: Ask, fitness: Fitness) -> tuple[OwnFitness, Measure, str, int]:
    config: ESConfig = ask.config
    if not isinstance(ask.source, JaxSource):
        raise BadValue("a fitness function is one of JAX parameters, and this model is in PyTorch; give a JAX model")
    network, state = ask.source.judged(ask.seed, fitness.of)
    network = _training_only(network, config.train_only)
    params = {name: jnp.asarray(value) for name, value in state.items()}
    with users_code(f"the fitness function {fitness.name!r}", DataError):
        value = jax.eval_shape(network.apply, params, jax.random.key(0))
        sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(value)]
    if sizes != [1]:
        raise DataError(f"the fitness function {fitness.name!r} must return one number, not {described(value)}")
    task = OwnFitness(
        network.apply,
        fitness.higher_is_better,
        Space.of(state, network.evolved),
        keys=config.episodes,
        validation_keys=config.test_episodes,
        test_keys=config.test_episodes,
        seed=ask.split_seed,
        params=params,
    )
    return task, Measure("fitness", fitness.higher_is_better), f"fitness {fitness.name}", 1
