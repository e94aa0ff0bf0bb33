"""The JAX programs of one piece of torch code, one for each set of input shapes, made when they are first asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr

from es.translation.arrays import jax_dtype
from es.translation.fixed import released
from es.translation.outputs import plain
from es.translation.refusals import explained
from es.translation.translation import translating

Prepared = tuple[Any, Callable[[], Any], dict[str, torch.Tensor]]


def _nothing(inputs: Any) -> tuple[()]:
    del inputs
    return ()


@dataclass(frozen=True, eq=False)
class Programs:
    """A function of (parameters, inputs) that runs torch's code once for each set of shapes.

    Attributes:
        prepare: from inputs of torch: what is called, a function that calls it, and its tensors by name.
        example: a batch of tensors; other shapes get its numbers, repeated, as the code may look at constants that
            depend on shapes and may refuse odd values.
        label: how messages call it.
        items_are_tensors: let `.item()` return a tensor.
        grad: let torch record what derivatives need, for code that takes some itself.
        evolving: of the inputs, what follows from parameters: code may not branch on it.
    """

    prepare: Callable[[Any], Prepared]
    example: Any
    label: str
    items_are_tensors: bool = False
    grad: bool = False
    evolving: Callable[[Any], Any] = _nothing
    _made: dict[Any, tuple[core.ClosedJaxpr, Any]] = field(default_factory=dict, repr=False)

    def __call__(self, params: dict[str, Any], inputs: Any) -> Any:
        """Return the code's results as arrays."""
        leaves, structure = jax.tree.flatten((params, inputs))
        arrays = [leaf for leaf in leaves if _is_array(leaf)]
        rest = tuple(None if _is_array(leaf) else leaf for leaf in leaves)
        shapes = tuple((tuple(array.shape), jnp.result_type(array).name) for array in arrays)
        key = (structure, shapes, rest)
        if key not in self._made:
            kinds = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]

            def run(*values: Any, branch: bool = True) -> Any:
                each = iter(values)
                filled, given = jax.tree.unflatten(structure, [next(each) if x is None else x for x in rest])
                return self._run(filled, given, branch)

            program, (outputs, holds) = jax.make_jaxpr(run, return_shape=True)(*kinds)
            evolving = sum(map(_is_array, jax.tree.leaves((params, self.evolving(inputs)))))
            if holds is not None and not _may_branch(program, evolving):
                jax.make_jaxpr(partial(run, branch=False))(*kinds)  # which says where
            self._made[key] = program, (outputs, holds)
        program, outputs = self._made[key]
        return jax.tree.unflatten(jax.tree.structure(outputs), core.jaxpr_as_fun(program)(*arrays))[0]

    def _run(self, params: dict[str, Any], inputs: Any, branch: bool) -> tuple[Any, jax.Array | None]:
        """Return the outputs, and whether the code takes the branches that it took here; NaN where it would not.

        Args:
            params: parameters and buffers, by name.
            inputs: a batch.
            branch: let it take any.
        """
        stand_in = self._stand_in(inputs)
        called, run, tensors = self.prepare(released(stand_in))
        with (
            explained(called, self.label),
            warnings.catch_warnings(),
            translating(self.items_are_tensors, self.grad, branch) as translation,
        ):
            # torch's code asks for 64-bit types all the time
            warnings.filterwarnings("ignore", message=".*requested.* is not available, and will be truncated")
            warnings.filterwarnings("ignore", message="scatter inputs have incompatible types")
            for name, tensor in tensors.items():
                translation.shadows.set(tensor, params[name])
            for tensor, value in zip(jax.tree.leaves(stand_in), jax.tree.leaves(inputs), strict=True):
                if isinstance(tensor, torch.Tensor):
                    translation.shadows.set(tensor, jnp.asarray(value))
            outputs = plain(run(), translation.shadows.value, self.label)
        if not translation.conditions:
            return outputs, None
        holds = jnp.stack(translation.conditions).all()
        return jax.tree.map(partial(_or_nan, holds), outputs), holds

    def _stand_in(self, inputs: Any) -> Any:
        """Return tensors of the inputs' shapes with the example's numbers."""
        leaves, structure = jax.tree.flatten(inputs)
        examples = [leaf for leaf in jax.tree.leaves(self.example) if isinstance(leaf, torch.Tensor)]
        known = len(examples) == sum(map(_is_array, leaves))
        each = iter(examples)
        alike = [next(each) if known and _is_array(leaf) else None for leaf in leaves]
        return jax.tree.unflatten(structure, [_like(*pair) for pair in zip(leaves, alike, strict=True)])


def _may_branch(program: core.ClosedJaxpr, evolving: int) -> bool:
    """Say whether a program's last result, the condition of its branches, follows from labels, indices and masks alone.

    Then it is the same for every network. What is measured differs from batch to batch, and would be NaN in most.
    """
    *outputs, _ = program.jaxpr.outvars
    _, used = dce_jaxpr(program.jaxpr, [False] * len(outputs) + [True])
    numbers = [jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in program.jaxpr.invars]
    asks = any(
        use and (place < evolving or number) for place, (use, number) in enumerate(zip(used, numbers, strict=True))
    )
    return not asks and any(jnp.issubdtype(var.aval.dtype, jnp.inexact) for var in outputs)


def _or_nan(holds: jax.Array, value: Any) -> Any:
    number = jnp.issubdtype(jnp.result_type(value), jnp.inexact)
    return jnp.where(holds, value, jnp.nan) if number else value


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _like(leaf: Any, example: Any) -> Any:
    if not _is_array(leaf):
        return leaf
    if not isinstance(example, torch.Tensor):
        example = torch.ones((), dtype=torch.from_numpy(np.zeros(1, leaf.dtype)).dtype)
    if not example.numel():
        example = example.new_ones(1)
    if example.dim() != leaf.ndim:
        example = example.flatten()[:1].reshape([1] * leaf.ndim)
    for axis, count in enumerate(leaf.shape):
        if example.shape[axis] != count:
            example = example.index_select(axis, torch.arange(count) % example.shape[axis])
    if jax_dtype(example.dtype) != leaf.dtype:
        example = example.to(torch.from_numpy(np.zeros(1, leaf.dtype)).dtype)
    return example.clone()
