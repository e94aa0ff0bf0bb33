"""A JAX model at its start, looked at on a few examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from es.jax_models.layer_outputs import with_layer_outputs, zero_taps
from es.network import Apply, Network
from lottery.studies.measures.signal import squared_correlation
from lottery.studies.starting.lens import Array, Lens, Passed, signs
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.uses.uses import Uses


@dataclass(frozen=True, eq=False)
class _Model:
    apply: Apply
    params: Mapping[str, jax.Array]
    mask: Mask
    inputs: Any
    uses: Uses


def jax_lens(
    network: Network, params: Params, mask: Mask, inputs: Any, uses: Uses, loss: Callable[[Any], Any] | None
) -> Lens:
    """Return what can be seen of a JAX model.

    Args:
        network: a function of named arrays.
        params: the arrays at the start.
        mask: what is kept.
        inputs: a few examples.
        uses: how the network uses its arrays.
        loss: of the outputs for these examples; None without labels.
    """
    masked = {name: jnp.asarray(value) for name, value in mask.apply(dict(params)).items()}
    model = _Model(lambda arrays, batch: network.apply(arrays, batch), masked, mask, inputs, uses)
    number = isinstance(inputs, jax.Array | np.ndarray) and jnp.issubdtype(inputs.dtype, jnp.floating)
    return Lens(
        layers=lambda: _layers(model),
        jacobian=(lambda count: _jacobian(model, count)) if number else None,
        example_gradients=lambda count: _example_gradients(model, count),
        gradient_norm=None if loss is None else lambda: _gradient_norm(model, loss),
        answers=lambda value: _answers(model, value),
        paths=lambda: None,
        input_correlation=squared_correlation(np.asarray(inputs)) if number else math.nan,
    )


def _layers(model: _Model) -> dict[str, Passed]:
    run = with_layer_outputs(model.apply, model.params, model.inputs, list(model.mask))
    taps = zero_taps(run, model.params, model.inputs)

    def summed(added: Any) -> tuple[jax.Array, Any]:
        outputs, seen = run(model.params, model.inputs, added)
        first = _outputs(outputs)
        return (first * signs(first.shape)).sum(), seen

    gradients, seen = jax.grad(summed, has_aux=True)(taps)
    # JAX gives a mapping back in the order of its keys; a run by itself shows that of the pass.
    order = list(run(model.params, model.inputs, {})[1])
    return {
        name: Passed(np.asarray(seen[name]), np.asarray(gradients[name]), _axis(name, model, seen[name]))
        for name in order
    }


def _axis(name: str, model: _Model, values: jax.Array) -> int:
    """Return the axis of a product that is as long as the weight has outputs: the last such one."""
    axes = model.uses.axes.get(name)
    count = math.prod(axes.shape[axis] for axis in axes.outputs) if axes is not None else values.shape[-1]
    return next((axis for axis in reversed(range(1, values.ndim)) if values.shape[axis] == count), values.ndim - 1)


def _jacobian(model: _Model, count: int) -> Array:
    def one(example: jax.Array) -> jax.Array:
        flat = _outputs(model.apply(model.params, example[None])).reshape(-1)
        return flat if flat.size <= 64 else jnp.asarray(_sums(flat.size)) @ flat

    return np.asarray(jax.vmap(jax.jacrev(one))(model.inputs[:count])).reshape(count, -1, model.inputs[0].size)


def _sums(width: int) -> Array:
    return np.linalg.qr(np.random.default_rng(0).standard_normal((width, 64)))[0].T.astype(np.float32)


def _example_gradients(model: _Model, count: int) -> Array:
    def summed(weights: Mapping[str, jax.Array], example: Any) -> jax.Array:
        outputs = _outputs(model.apply({**model.params, **weights}, jax.tree.map(lambda leaf: leaf[None], example)))[0]
        return (outputs * signs(outputs.shape)).sum()

    weights = {name: model.params[name] for name in model.mask}
    few = jax.tree.map(lambda leaf: leaf[:count], model.inputs)
    found = jax.vmap(jax.grad(summed), (None, 0))(weights, few)
    return np.concatenate([np.asarray(found[name])[:, keep] for name, keep in model.mask.items()], axis=1)


def _gradient_norm(model: _Model, loss: Callable[[Any], Any]) -> float:
    def measured(weights: Mapping[str, jax.Array]) -> jax.Array:
        return jnp.asarray(loss(model.apply({**model.params, **weights}, model.inputs))).reshape(())

    found = jax.grad(measured)({name: model.params[name] for name in model.mask})
    return math.sqrt(sum(float((np.asarray(found[name])[keep] ** 2).sum()) for name, keep in model.mask.items()))


def _answers(model: _Model, value: float) -> Array:
    kept = {name: jnp.asarray(np.where(keep, value, 0), model.params[name].dtype) for name, keep in model.mask.items()}
    plain = {name: jnp.zeros_like(array) for name, array in model.params.items() if "bias" in name.rpartition(".")[2]}
    return np.asarray(_outputs(model.apply({**model.params, **plain, **kept}, model.inputs)), np.float64)


def _outputs(outputs: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)]
    if not leaves:
        raise BadValue("the network gives out no array of numbers: a signal cannot be followed through it")
    return jnp.asarray(leaves[0])
