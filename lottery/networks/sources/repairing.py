"""A start that is repaired under its mask: the weights of a source's network, in either framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lottery.networks.sources.following import batch_of
from lottery.networks.sources.initializing import Init, real_shapes
from lottery.networks.sources.layer_outputs import noted
from lottery.networks.sources.source import ModelSource, Source
from lottery.state.randomness import seeded_everywhere
from lottery.state.tensors import float_type, load_state
from pruning.calls.calling import call_once
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.repairs import Outputs, Repair, Repaired, repaired
from pruning.starts.followed import followed_tensors
from pruning.starts.tensor import Tensor
from pruning.starts.torch_tensors import torch_tensors
from pruning.torch_modules import apply_mask

if TYPE_CHECKING:
    from lottery.networks.sources.choosing import Given

# Examples that a repair measures the network on.
EXAMPLES = 256


def tensors_of(source: Source, init: Init, seed: int, mask: Mask) -> list[Tensor]:
    """Return the weights of one seed's network that a mask covers, as initializers and repairs see them.

    Args:
        source: where the network comes from.
        init: knows how the network uses its tensors.
        seed: the seed of the network.
        mask: what is kept.
    """
    if isinstance(source, ModelSource):
        found = [each.tensor for each in torch_tensors(source.build(seed), mask, init.uses())]
    else:
        found = followed_tensors(real_shapes(source.initial_state(seed)), mask, init.uses())
    return [tensor for tensor in found if tensor.name in mask]


def repaired_start(
    source: Source, init: Init, parts: Given, seed: int, start: tuple[Params, Mask], how: Repair
) -> tuple[Params, Repaired]:
    """Return the weights of a start with those that its mask keeps repaired, and what was found.

    Args:
        source: where the network comes from.
        init: knows how the network uses its tensors.
        parts: the data, for a repair that measures the network.
        seed: the seed of the network.
        start: weights and mask.
        how: the repair.

    Raises:
        BadValue: a repair that cannot serve one of the weights, or that needs what cannot be measured here.
    """
    params, mask = start
    tensors = tensors_of(source, init, seed, mask)
    outputs = _outputs(source, parts, seed, params, mask) if how.needs_outputs else None
    seen = outputs({}) if outputs is not None else mask
    hidden = {tensor.name: "what its layer gives out is not seen" for tensor in tensors if tensor.name not in seen}
    with users_code(f"the repair {how.name!r}"):
        served = [tensor for tensor in tensors if tensor.name not in hidden]
        found = repaired(served, {tensor.name: params[tensor.name] for tensor in served}, how, outputs)
    return {**params, **found.values}, replace(found, left={**found.left, **hidden})


def _outputs(source: Source, parts: Given, seed: int, params: Params, mask: Mask) -> Outputs:
    if isinstance(source, ModelSource):
        return _in_torch(source, parts, seed, params, mask)
    return _in_jax(source, parts, seed, params)


def _in_torch(source: ModelSource, parts: Given, seed: int, params: Params, mask: Mask) -> Outputs:
    model = source.build(seed)
    load_state(model, params)
    apply_mask(model, mask).train()
    owned = torch_tensors(model, mask)
    inputs, _ = batch_of(parts, seed, float_type(model), EXAMPLES)

    def measure(values: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        with torch.no_grad(), seeded_everywhere(seed):
            for name, value in values.items():
                model.get_parameter(name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
            with noted(owned) as seen:
                call_once(model, inputs)
        return {name: float(made.std()) for name, made in seen.values.items()}

    return measure


def _in_jax(source: Source, parts: Given, seed: int, params: Params) -> Outputs:
    import jax.numpy as jnp

    from es.jax_models.layer_outputs import with_layer_outputs
    from es.translation.functions import to_jax
    from lottery.networks.sources.jax import JaxSource

    if not isinstance(source, JaxSource):
        raise BadValue(f"{type(source).__name__} is neither a PyTorch module nor a JAX model")
    network, _ = source.network(seed)
    inputs = to_jax(batch_of(parts, seed, torch.float32, EXAMPLES)[0])
    arrays = {name: jnp.asarray(value) for name, value in params.items()}
    run = with_layer_outputs(network.apply, arrays, inputs, list(network.evolved))

    def measure(values: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        _, seen = run({**arrays, **{name: jnp.asarray(value) for name, value in values.items()}}, inputs, {})
        return {name: float(made.std()) for name, made in seen.items()}

    return measure
