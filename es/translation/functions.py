"""A torch module, or a torch loss, as a pure JAX function.

torch's own code runs on an example, and each of its operations is repeated in JAX (`es.translation.translation`). Both
functions here compare the result with torch's, and so refuse before anything runs what they cannot translate.

Types: JAX computes in 32 bits unless `jax_enable_x64` is set, so that int64 becomes int32 and float64 becomes float32,
in weights, in data and in what the code itself creates; bfloat16 and float16 stay.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from es.network import Arrays, Network, taking_halves
from es.translation.arrays import require_leaves, to_jax, to_jax_array, to_torch
from es.translation.outputs import plain, restored
from es.translation.programs import Prepared, Programs
from es.translation.randomness import noisy_layers, without_draws
from es.translation.refusals import called_in
from pruning.calls.calling import Whole, call_once
from pruning.copies.copying import copy_module, tensors_within
from pruning.copies.modes import written_on_eval
from pruning.copies.own_parameters import check_as_it_runs
from pruning.copies.shared_memory import groups_in_memory
from pruning.errors import BadValue, first_line
from pruning.torch_modules import is_trainable, unwrap

jax.tree_util.register_pytree_node(
    Whole, lambda whole: ([whole.batch], whole.forward), lambda forward, batches: Whole(next(iter(batches)), forward)
)

__all__ = ["to_jax", "to_torch", "torch_batch_function", "torch_network"]


def torch_network(module: nn.Module, example_inputs: Any) -> Network:
    """Return `module`, in evaluation mode, as a function of all its named parameters and buffers.

    Names are those of `named_parameters()` and `named_buffers()`, a tied tensor once under its first name; other
    tensors that the module holds are constants. Batch norm uses its running statistics, and dropout does nothing
    (`noisy_layers` names such layers). The caller's module, and torch's random state, do not change.

    Args:
        module: any module; wrappers (`torch.compile`, `DataParallel`) are taken off.
        example_inputs: a batch: a tensor or array, a tuple or list (positional arguments) or a mapping (keywords).
            The network takes other shapes later, wherever the module does.

    Raises:
        BadValue: no module; a batch that holds more than tensors and numbers; a layer that draws random numbers in
            evaluation mode, or that was left in training mode in a module that is not and draws them there; one that
            depends on the batch; an operation, control flow or output that has no JAX form; outputs that differ from
            torch's on the example by more than 1e-4 of their root mean square (eight roundings in half precision).

    >>> network = torch_network(nn.Linear(2, 1), torch.ones(4, 2))
    >>> network.evolved
    ('weight', 'bias')
    >>> network.apply({"weight": jnp.ones((1, 2)), "bias": jnp.zeros(1)}, jnp.ones((4, 2))).shape
    (4, 1)
    """
    if not isinstance(module, nn.Module):
        raise BadValue(f"expected a torch.nn.Module, not {type(module).__name__}")
    module = unwrap(module)
    require_leaves(example_inputs, "a batch")
    _check_layers(module)
    evolved = tuple(name for name, p in module.named_parameters() if is_trainable(p))
    if (written := written_on_eval(module)) is not None:
        raise BadValue(
            f"eval() of {type(module).__name__} writes its parameter {written!r}, as a layer that merges an adapter "
            "does, and evolution would evolve what was merged: train it by gradient descent, or give the model in "
            "evaluation mode"
        )
    if not module.training and (noisy := noisy_layers(module, example_inputs)):
        raise BadValue(
            f"{noisy[0]} was left in training mode, where it draws random numbers, and evolution evaluates in "
            "evaluation mode: call eval() on the whole model first, or remove it"
        )
    frozen = _duplicate(module).eval()
    _check_own(module, frozen, example_inputs)
    tensors = _named_tensors(frozen)
    label = type(frozen).__name__

    def run(inputs: Any) -> Prepared:
        bound = _bound(frozen)
        return bound, (lambda: call_once(bound, inputs)), _named_tensors(bound)

    example, grad = _run_torch(lambda: run(to_torch(example_inputs)), label)
    programs = Programs(run, to_torch(example_inputs), label, grad=grad)

    def apply(params: Arrays, inputs: Any) -> Any:
        missing = [name for name in tensors if name not in params]
        if missing:
            raise BadValue(f"the network's tensor {missing[0]!r} is not among the parameters")
        return programs({name: params[name] for name in tensors}, inputs)

    expected = plain(example, to_jax_array, label)
    _check_equal(apply, (to_jax(tensors), to_jax(example_inputs)), expected, label)
    complex_ones = [name for name in evolved if tensors[name].is_complex()]
    return Network(taking_halves(apply, complex_ones), evolved, lambda outputs: restored(example, outputs), expected)


def torch_batch_function(
    function: Callable[[Any, Any], Any],
    example_outputs: Any,
    example_targets: Any,
    own_classes: Callable[[Any], Any] = lambda outputs: outputs,
) -> Callable[[Any, Any], jax.Array]:
    """Return a torch loss or metric as a JAX function of (outputs, targets) that jits and vmaps.

    Args:
        function: returns a scalar tensor or a number for a batch; `.item()` is understood, `float()` is not. A module
            is evaluated in evaluation mode, its tensors are constants.
        example_outputs: a batch of the network's outputs: any pytree of tensors or arrays.
        example_targets: the labels that belong to it.
        own_classes: makes of the outputs what the function takes (`Network.restored`).

    Raises:
        BadValue: what is taken holds more than tensors and numbers; random numbers are drawn; what is computed has no
            JAX form, is no scalar, or differs from torch's value on the example.

    >>> loss = torch_batch_function(nn.functional.mse_loss, torch.ones(3), torch.zeros(3))
    >>> loss(jnp.full(3, 2.0), jnp.zeros(3)).item()
    4.0
    """
    label = getattr(function, "__name__", type(function).__name__)
    require_leaves((example_outputs, example_targets), f"what {label} takes")
    frozen = _duplicate(function).eval() if isinstance(function, nn.Module) else function

    def run(pair: Any) -> Prepared:
        called = _bound(frozen) if isinstance(frozen, nn.Module) else frozen
        return called, (lambda: called(own_classes(pair[0]), pair[1])), {}

    example = to_torch((example_outputs, example_targets))

    def compute(outputs: Any, targets: Any) -> jax.Array:
        value = jnp.asarray(programs({}, (outputs, targets)))
        if value.size != 1:
            raise BadValue(f"{label} returns an array of shape {value.shape}; expected one number for a batch")
        return value.reshape(())

    value, grad = _run_torch(lambda: run(to_torch((example_outputs, example_targets))), label)
    programs = Programs(run, example, label, items_are_tensors=True, grad=grad, evolving=lambda pair: pair[0])
    expected = plain(value, to_jax_array, label)
    _check_equal(compute, (to_jax(example_outputs), to_jax(example_targets)), expected, label)
    return compute


# ---------------------------------------------------------------------------------------------- copies of the module


def _named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _constants(module: nn.Module) -> list[torch.Tensor]:
    """Return the tensors that the module holds in other places than parameters and buffers."""
    named = {id(tensor) for tensor in _named_tensors(module).values()}
    return [tensor for tensor in tensors_within(module) if id(tensor) not in named]


def _duplicate(module: nn.Module) -> nn.Module:
    """Return a copy on the host that shares the caller's values where it can."""
    instead: dict[int, Any] = {id(t): t.detach().cpu().clone() for t in _constants(module)}
    instead |= {id(t): t.detach().cpu() for t in module.buffers()}
    instead |= {id(t): nn.Parameter(t.detach().cpu(), t.requires_grad) for t in module.parameters()}
    return copy_module(module, instead)


def _bound(frozen: nn.Module) -> nn.Module:
    """Return a copy of `frozen` with tensors of its own.

    A copy for each run keeps the function pure when `forward` assigns attributes or writes to buffers.
    """
    return copy_module(frozen)


# ------------------------------------------------------------------------------------------------------- translation


def _check_layers(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        label = called_in(name, layer)
        if isinstance(layer, torch.jit.ScriptModule) and any(True for _ in layer.parameters()):
            raise BadValue(f"{label} is a compiled script without Python code; pass the module that it was made from")
        if any(is_lazy(tensor) for tensor in layer.parameters(recurse=False)):
            raise BadValue(f"{label} does not know its shapes yet: call the model once on a batch first")
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise BadValue(f"{label} keeps no running statistics, so that each output depends on its whole batch")


def _check_own(module: nn.Module, frozen: nn.Module, example_inputs: Any) -> None:
    """Refuse a module that computes with other parameters than its own, or sees them in another way than by name."""
    if groups_in_memory(tensors_within(module)):
        raise BadValue(
            f"{type(module).__name__} keeps a view of a parameter as an attribute, which does not follow what evolves: "
            "make the view in forward, or train it by gradient descent"
        )
    bound = _bound(frozen)
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # what fails is said by the run that is compared with JAX
        check_as_it_runs(bound, lambda: call_once(bound, to_torch(example_inputs)))


def _run_torch(prepare: Callable[[], Prepared], label: str) -> tuple[Any, bool]:
    """Return torch's result, and whether the code itself takes derivatives and needs them recorded."""
    for grad in (False, True):
        try:
            called, run, _ = prepare()
            with torch.set_grad_enabled(grad), torch.random.fork_rng(devices=[]):
                return without_draws(called, run, label), grad
        except BadValue:
            raise
        except Exception as error:  # a caller's code runs here, and may raise anything
            if grad or "does not require grad" not in str(error):
                raise BadValue(f"{label} fails on the example: {first_line(error)}") from error
    raise AssertionError("a loop over two values ended without a result")


def _check_equal(function: Callable[..., Any], inputs: tuple[Any, ...], expected: Any, label: str) -> None:
    # the translation is compared here, whatever the compiler makes of it later: that takes half the time
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    with jax.default_matmul_precision("highest"):
        found = jax.jit(function, compiler_options=quick)(*inputs)
    wanted, got = (jax.tree.leaves(jax.tree.map(np.asarray, tree)) for tree in (expected, found))
    tolerance = _tolerance([*jax.tree.leaves(inputs), *wanted])
    for want, have in zip(wanted, got, strict=True):
        if want.shape != have.shape:
            raise BadValue(f"{label} gives shape {have.shape} in JAX and {want.shape} in torch")
        difference = _difference(want, have)
        if not difference <= tolerance:
            raise BadValue(
                f"{label} differs between JAX and torch by {difference:.1e} of its root mean square on the example; "
                f"{tolerance:.0e} is allowed (a write through a transposed or reshaped view is one cause)"
            )


def _tolerance(arrays: list[Any]) -> float:
    kinds = [array.dtype for array in arrays if hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.inexact)]
    return max([1e-4, *(8 * float(jnp.finfo(kind).eps) for kind in kinds)])


def _difference(want: np.ndarray[Any, Any], have: np.ndarray[Any, Any]) -> float:
    want, have = (a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for a in (want, have))
    finite = np.isfinite(want)
    if not np.array_equal(want[~finite], have[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    error, size = (float(np.sqrt(np.mean(np.abs(a[finite]) ** 2))) for a in (have - want, want))
    return error / max(size, 1e-6)
