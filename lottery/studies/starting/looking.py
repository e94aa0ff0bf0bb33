"""Looking at weights under a mask in the network of a search, in whichever framework it is."""

from __future__ import annotations

import torch

from lottery.networks.objectives.objective import objective_for, own
from lottery.networks.sources.following import batch_of
from lottery.networks.sources.initializing import Init
from lottery.networks.sources.source import ModelSource
from lottery.search.frame.frame import Frame
from lottery.search.frame.seeds import weights_seed
from lottery.state.tensors import float_type, load_state
from lottery.studies.starting.in_torch import torch_lens
from lottery.studies.starting.lens import Lens
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask


def lens_on(frame: Frame, init: Init, weights: Params, mask: Mask, examples: int) -> Lens:
    """Return what can be seen of weights under a mask, on a few training examples.

    Args:
        frame: model and data.
        init: knows how the network uses its tensors.
        weights: all of the network's tensors.
        mask: what is kept.
        examples: how many examples; a loader brings its own number.
    """
    ask, seed = frame.ask, weights_seed(frame.config, frame.config.seed)
    if not isinstance(ask.source, ModelSource):
        return _in_jax(frame, init, weights, mask, examples)
    model = ask.source.build(seed)
    load_state(model, weights)
    inputs, targets = batch_of(ask.parts, seed, float_type(model), examples)
    objective = None
    if targets is not None:
        objective = objective_for(targets, own(ask.loss) if ask.loss else None, ask.metric)
    return torch_lens(model.cpu(), mask, inputs, targets, objective)


def _in_jax(frame: Frame, init: Init, weights: Params, mask: Mask, examples: int) -> Lens:
    import jax
    import jax.numpy as jnp

    from es.translation.functions import to_jax
    from lottery.networks.sources.jax import JaxSource
    from lottery.studies.starting.in_jax import jax_lens
    from lottery.trainers.es.losses import loss_in_jax

    ask, seed = frame.ask, weights_seed(frame.config, frame.config.seed)
    if not isinstance(ask.source, JaxSource):
        raise BadValue(f"{type(ask.source).__name__} is neither a PyTorch module nor a JAX model")
    batch, targets = batch_of(ask.parts, seed, torch.float32, examples)
    inputs, network = to_jax(batch), ask.source.network(seed)[0]
    if targets is None:
        return jax_lens(network, weights, mask, inputs, init.uses(), None)
    labels = to_jax(targets)
    outputs = jax.eval_shape(network.apply, {name: jnp.asarray(value) for name, value in weights.items()}, inputs)
    function = objective_for(targets, ask.loss, ask.metric).loss
    loss = loss_in_jax(ask, function, outputs, labels, network)
    return jax_lens(network, weights, mask, inputs, init.uses(), lambda made: loss(made, labels))
