"""A torch module, or a torch loss, as a pure JAX function.

torchax runs torch's own Python code and hands each operation to JAX. Both functions here trace once on an example and
compare the result with torch's, and so refuse what they cannot translate faithfully before anything runs.

Types: JAX computes in 32 bits unless `jax_enable_x64` is set, so that int64 becomes int32 and float64 becomes float32,
in weights, in data and in what the code itself creates; bfloat16 and float16 stay.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as torch_tree

from es.network import Arrays, Network
from es.torchax_names import import_torchax
from pruning.errors import BadValue
from pruning.torch_modules import unwrap

torchax = import_torchax()
_TRANSLATED = (torchax.tensor.Tensor, torchax.view.View)
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def torch_network(module: nn.Module, example_inputs: Any) -> Network:
    """Return `module`, in evaluation mode, as a function of all its named parameters and buffers.

    Names are those of `named_parameters()` and `named_buffers()`, a tied tensor once under its first name; other
    tensors that the module holds are constants. Batch norm uses its running statistics. The caller's module, and
    torch's random state, do not change.

    Args:
        module: any module; wrappers (`torch.compile`, `DataParallel`) are taken off.
        example_inputs: a batch: a tensor or array, a tuple or list (positional arguments) or a mapping (keywords).
            The network takes other shapes later, wherever the module does.

    Raises:
        BadValue: no module; a layer that is stochastic in the mode that it is in, or depends on the batch; an
            operation, control flow or output that has no JAX form; outputs that differ from torch's on the example
            by more than 1e-4 of their root mean square (eight roundings in half precision).

    >>> network = torch_network(nn.Linear(2, 1), torch.ones(4, 2))
    >>> network.evolved
    ('weight', 'bias')
    >>> network.apply({"weight": jnp.ones((1, 2)), "bias": jnp.zeros(1)}, jnp.ones((4, 2))).shape
    (4, 1)
    """
    if not isinstance(module, nn.Module):
        raise BadValue(f"expected a torch.nn.Module, not {type(module).__name__}")
    module = unwrap(module)
    _check_layers(module)
    evolved = tuple(name for name, p in module.named_parameters() if p.requires_grad and p.is_floating_point())
    frozen = _duplicate(module)
    _check_randomness(frozen, example_inputs)
    frozen.eval()
    tensors = _named_tensors(frozen)
    label = type(frozen).__name__

    def apply(params: Arrays, inputs: Any) -> Any:
        missing = [name for name in tensors if name not in params]
        if missing:
            raise BadValue(f"the network's tensor {missing[0]!r} is not among the parameters")
        with _translation() as env:
            bound = _bound(frozen, {name: env.wrap(params[name]) for name in tensors}, env.wrap)
            args, kwargs = _spread(env.wrap(inputs))
            return _explained(env, bound, label, args, kwargs)

    expected = _run_torch(_bound(frozen, _cloned(tensors), torch.clone), *_spread(_to_torch(example_inputs)), label)
    _check_equal(apply, (to_jax(tensors), to_jax(example_inputs)), expected, label)
    return Network(apply, evolved)


def torch_batch_function(
    function: Callable[[Any, Any], Any], example_outputs: Any, example_targets: Any
) -> Callable[[Any, Any], jax.Array]:
    """Return a torch loss or metric as a JAX function of (outputs, targets) that jits and vmaps.

    Args:
        function: returns a scalar tensor or a number for a batch; `.item()` is understood, `float()` is not. A module
            is evaluated in evaluation mode, its tensors are constants.
        example_outputs: a batch of the network's outputs: any pytree of tensors or arrays.
        example_targets: the labels that belong to it.

    Raises:
        BadValue: what is computed has no JAX form, is no scalar, or differs from torch's value on the example.

    >>> loss = torch_batch_function(nn.functional.mse_loss, torch.ones(3), torch.zeros(3))
    >>> loss(jnp.full(3, 2.0), jnp.zeros(3)).item()
    4.0
    """
    label = getattr(function, "__name__", type(function).__name__)
    frozen = _duplicate(function).eval() if isinstance(function, nn.Module) else function

    def compute(outputs: Any, targets: Any) -> jax.Array:
        with _translation(items_are_tensors=True) as env:
            called = frozen
            if isinstance(frozen, nn.Module):
                called = _bound(frozen, {name: env.wrap(t) for name, t in _named_tensors(frozen).items()}, env.wrap)
            value = jnp.asarray(_explained(env, called, label, (env.wrap(outputs), env.wrap(targets)), {}))
        if value.size != 1:
            raise BadValue(f"{label} returns an array of shape {value.shape}; expected one number for a batch")
        return value.reshape(())

    expected = _run_torch(frozen, (_to_torch(example_outputs), _to_torch(example_targets)), {}, label)
    _check_equal(compute, (to_jax(example_outputs), to_jax(example_targets)), expected, label)
    return compute


def to_jax(tree: Any) -> Any:
    """Return a pytree with its tensors and arrays as JAX arrays, copied; other leaves stay.

    64-bit types become 32-bit ones unless `jax_enable_x64` is set.

    Raises:
        BadValue: an integer that does not fit.

    >>> to_jax([torch.tensor([1, 2]), 3])
    [Array([1, 2], dtype=int32), 3]
    """
    return jax.tree.map(_array, tree)


def _array(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        host = leaf.detach().cpu().to_dense().resolve_conj().resolve_neg().contiguous()
        leaf = host.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if host.dtype == torch.bfloat16 else host.numpy()
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    if leaf.size and leaf.dtype != dtype and leaf.dtype.kind in "iu":
        low, high = leaf.min(), leaf.max()
        if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
            raise BadValue(f"integers from {low} to {high} do not fit {dtype}; JAX needs jax_enable_x64 for them")
    return jnp.array(leaf, dtype)


def _to_torch(tree: Any) -> Any:
    """Return a pytree with tensors and arrays as tensors of their own, on the host; int32 becomes torch's int64."""

    def tensor(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().cpu().clone()
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
            return leaf
        array = np.array(leaf)
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)

    return jax.tree.map(tensor, tree)


def _spread(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


# ---------------------------------------------------------------------------------------------- copies of the module


def _named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _cloned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _constants(module: nn.Module) -> list[torch.Tensor]:
    """Return the tensors that the submodules hold as plain attributes, also inside lists and dictionaries."""
    kept = ("_parameters", "_buffers", "_modules")
    values = [value for layer in module.modules() for key, value in vars(layer).items() if key not in kept]
    return [leaf for leaf in torch_tree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _duplicate(module: nn.Module) -> nn.Module:
    """Return a copy on the host whose parameters are plain tensors that share the caller's values where they can."""
    memo: dict[int, Any] = {id(t): t.detach().cpu().clone() for t in _constants(module)}
    memo |= {id(t): t.detach().cpu() for t in _named_tensors(module).values()}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise BadValue(f"{type(module).__name__} cannot be copied: {_first_line(error)}") from error


def _bound(
    frozen: nn.Module, tensors: Mapping[str, Any], constant: Callable[[torch.Tensor], torch.Tensor]
) -> nn.Module:
    """Return a copy of `frozen` with other tensors in place of its own.

    A copy for each call keeps the function pure when `forward` assigns attributes; the memo of `deepcopy` reaches a
    tensor wherever it is referred to (tied weights, the weight lists of recurrent layers).
    """
    memo: dict[int, Any] = {id(t): constant(t) for t in _constants(frozen)}
    memo |= {id(t): tensors[name] for name, t in _named_tensors(frozen).items()}
    for parameter in frozen.parameters():
        # What makes any tensor an instance of nn.Parameter, which some code asks for
        memo[id(parameter)]._is_param = True
    return copy.deepcopy(frozen, memo)


# ------------------------------------------------------------------------------------------------------- translation


class _RandomNumber(Exception):
    """A translated function asked for a random number."""


class _Environment(torchax.tensor.Environment):
    """torchax's environment, stricter and more faithful.

    Every tensor that is created or captured belongs to JAX whatever its device; random numbers are an error; some
    operations are mended (`_MENDED`); an error knows the operation that raised it.
    """

    def __init__(self, items_are_tensors: bool) -> None:
        # torchax makes a random key here, which has no place in the traced function
        with jax.ensure_compile_time_eval():
            super().__init__()
        for operation, mended in _MENDED.items():
            self.override_op_definition(operation, mended, is_view_op=True)
        if items_are_tensors:
            self.override_op_definition(torch.Tensor.item, lambda tensor: tensor)

    def wrap(self, tree: Any) -> Any:
        """Return a pytree with arrays, and torch's own tensors, as translated tensors."""
        return jax.tree.map(self._wrapped, tree)

    def _wrapped(self, leaf: Any) -> Any:
        array = leaf if isinstance(leaf, _TRANSLATED) else _array(leaf)
        return torchax.tensor.Tensor(array, self) if isinstance(array, jax.Array) else array

    def dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        tensors = [leaf for leaf in torch_tree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(isinstance(tensor, _TRANSLATED) for tensor in tensors):
            args, kwargs = torch_tree.tree_map_only(torch.Tensor, self._captured, (args, kwargs))
        # Code asks for the values of its index ranges; large tensors are better made inside the compiled function
        known = not tensors and getattr(func, "overloadpacket", func) in _KNOWN_VALUES
        try:
            with jax.ensure_compile_time_eval() if known else nullcontext():
                if args and self._loses_write(func, args[0]):
                    whole = args[0].torch()
                    super().dispatch(func, types, (whole, *args[1:]), kwargs)
                    args[0].update(whole)
                    return args[0]
                return super().dispatch(func, types, args, kwargs)
        except torchax.tensor.OperatorNotFound:
            raise
        except Exception as error:
            if not hasattr(error, "operation"):
                error.operation = torchax.tensor._name_of_func(func)  # pyright: ignore[reportAttributeAccessIssue]
            raise

    def _captured(self, tensor: torch.Tensor) -> torch.Tensor:
        # A scalar stays torch's: torchax reads its value, and a Python number promotes types as torch's scalars do.
        return tensor if tensor.dim() == 0 else self._wrapped(tensor)

    def _loses_write(self, func: Any, target: Any) -> bool:
        """Say whether torchax would write to a copy of a view (`x[0].zero_()`)."""
        writes = isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable
        return writes and isinstance(target, torchax.view.View) and not self._get_op_or_decomp(func).is_view_op

    def _should_use_torchax_tensor(self, device: Any) -> bool:
        return True

    def _to_copy(self, the_tensor: Any, new_dtype: Any, new_device: Any) -> Any:
        tensor = the_tensor.torch() if isinstance(the_tensor, torchax.view.View) else the_tensor
        tensor = tensor if isinstance(tensor, torchax.tensor.Tensor) else self._wrapped(tensor)
        if new_dtype is None or new_dtype == tensor.dtype:
            return tensor
        return tensor.apply_jax(jnp.astype, torchax.ops.mappings.t2j_dtype(new_dtype))

    def get_and_rotate_prng_key(self, generator: Any = None) -> Any:
        raise _RandomNumber


def _copy_into(target: Any, source: Any, non_blocking: bool = False) -> Any:
    value = source.jax() if isinstance(source, _TRANSLATED) else to_jax(source)
    value = jnp.broadcast_to(value, target.shape).astype(target.jax().dtype)
    if isinstance(target, torchax.view.View):
        target.update(value)
    else:
        target._elem = value
    return target


def _convolution(inputs: Any, weight: Any, *settings: Any) -> Any:
    bias, stride, padding, dilation, transposed, output_padding, groups = settings
    if transposed and groups > 1:
        # torchax reshapes [groups * in, out] to [in, groups * out] without moving the groups
        weight = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)
    env = inputs._env
    arrays = env.t2j_iso((inputs, weight, bias))
    mended = torchax.ops.jaten._aten_convolution(*arrays, stride, padding, dilation, transposed, output_padding, groups)
    return env.j2t_iso(mended)


_InplaceOp = torchax.ops.op_base.InplaceOp
_KNOWN_VALUES = (torch.ops.aten.arange, torch.arange, torch.tensor, torch.as_tensor, torch.linspace)
_MENDED = {
    # torchax takes the source's shape in place of the target's
    torch.ops.aten.copy_: _copy_into,
    # torchax changes the shape by way of that copy
    torch.ops.aten.transpose_: _InplaceOp(torch.ops.aten.transpose, replace=True),
    torch.ops.aten.unsqueeze_: _InplaceOp(torch.ops.aten.unsqueeze, replace=True),
    torch.ops.aten.convolution: _convolution,
}


@contextmanager
def _translation(items_are_tensors: bool = False) -> Iterator[_Environment]:
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), warnings.catch_warnings():
        # torch's code asks for 64-bit types all the time
        warnings.filterwarnings("ignore", message=".*requested.* is not available, and will be truncated")
        warnings.filterwarnings("ignore", message="scatter inputs have incompatible types")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield _Environment(items_are_tensors)
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


def _explained(env: _Environment, called: Callable[..., Any], label: str, args: Any, kwargs: Any) -> Any:
    """Return what `called` returns, in arrays; an error names the submodule and the operation."""
    try:
        with env:
            outputs = called(*args, **kwargs)
            return _plain(outputs, lambda tensor: env._wrapped(tensor).jax(), label)
    except BadValue:
        raise
    except Exception as error:
        where = _innermost(error, called, label)
        if isinstance(error, torchax.tensor.OperatorNotFound):
            operation = str(error).removeprefix("Operator with name ").split()[0]
            reason = f"the model uses {operation}, which has no JAX form here (in {where})"
        elif isinstance(error, _NEEDS_VALUES):
            reason = (
                f"{where} reads the values of a tensor (in `if`, `.item()`, `float()` or a size), which a compiled "
                "function cannot do: compute with tensors throughout, for instance with torch.where"
            )
        elif isinstance(error, _RandomNumber):
            reason = f"{where} draws random numbers even in evaluation mode, and evolution needs a pure function"
        else:
            operation = getattr(error, "operation", "")
            reason = f"{where} cannot be translated to JAX: {f'{operation}: ' if operation else ''}{_first_line(error)}"
        raise BadValue(reason) from error


def _innermost(error: Exception, called: Any, label: str) -> str:
    names = {id(m): n for n, m in called.named_modules()} if isinstance(called, nn.Module) else {}
    where, frames = label, error.__traceback__
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if id(owner) in names:
            where = _called(names[id(owner)], owner)
        frames = frames.tb_next
    return where


def _called(name: str, layer: Any) -> str:
    return f"{name} ({type(layer).__name__})" if name else type(layer).__name__


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _plain(outputs: Any, convert: Callable[[torch.Tensor], Any], label: str) -> Any:
    """Return the outputs in containers that JAX knows; a mapping of another class becomes a dictionary."""
    if isinstance(outputs, torch.Tensor):
        return convert(outputs)
    if outputs is None or isinstance(outputs, int | float | complex | np.generic):
        return outputs
    if isinstance(outputs, Mapping):
        return {key: _plain(value, convert, label) for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        parts = [_plain(value, convert, label) for value in outputs]
        if hasattr(outputs, "_fields"):
            return type(outputs)(*parts)
        return tuple(parts) if isinstance(outputs, tuple) else parts
    raise BadValue(f"{label} returns a {type(outputs).__name__}; expected tensors, in tuples, lists or dictionaries")


# ------------------------------------------------------------------------------------------------------------ checks


def _check_layers(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        label = _called(name, layer)
        if isinstance(layer, torch.jit.ScriptModule):
            raise BadValue(f"{label} is a compiled script without Python code; pass the module that it was made from")
        if any(is_lazy(tensor) for tensor in layer.parameters(recurse=False)):
            raise BadValue(f"{label} does not know its shapes yet: call the model once on a batch first")
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise BadValue(f"{label} keeps no running statistics, so that each output depends on its whole batch")
        if layer.training and _is_stochastic(layer):
            raise _stochastic(label)


def _is_stochastic(layer: nn.Module) -> bool:
    if isinstance(layer, _DropoutNd):
        return bool(layer.p > 0)
    return isinstance(layer, nn.RReLU) or (
        isinstance(layer, nn.RNNBase | nn.MultiheadAttention) and float(layer.dropout) > 0
    )


def _stochastic(label: str) -> BadValue:
    return BadValue(
        f"{label} is stochastic in training mode, and evolution evaluates in evaluation mode: "
        "call model.eval() first, or remove it"
    )


def _check_randomness(frozen: nn.Module, example_inputs: Any) -> None:
    """Refuse a layer of any class that draws random numbers in the mode that it is in."""
    if not any(layer.training for layer in frozen.modules()):
        return
    probe = _bound(frozen, _cloned(_named_tensors(frozen)), torch.clone)
    before: dict[int, torch.Tensor] = {}
    found: list[str] = []
    for name, layer in probe.named_modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
        label = _called(name, layer)
        layer.register_forward_pre_hook(lambda layer, _: before.update({id(layer): torch.get_rng_state()}))
        layer.register_forward_hook(
            lambda layer, _, __, label=label: (
                None if torch.equal(before[id(layer)], torch.get_rng_state()) else found.append(label)
            )
        )
    args, kwargs = _spread(_to_torch(example_inputs))
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Training mode may fail on an example that evaluation takes; only the latter matters here.
        with suppress(Exception):
            probe(*args, **kwargs)
    if found:
        raise _stochastic(found[0])


def _run_torch(called: Callable[..., Any], args: Any, kwargs: Any, label: str) -> Any:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return _plain(called(*args, **kwargs), _array, label)
    except BadValue:
        raise
    except Exception as error:
        raise BadValue(f"{label} fails on the example: {_first_line(error)}") from error


def _check_equal(function: Callable[..., Any], inputs: tuple[Any, ...], expected: Any, label: str) -> None:
    with jax.default_matmul_precision("highest"):
        found = jax.jit(function)(*inputs)
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
