"""torch's own Python code run on JAX arrays: the environment, its mended operations, and errors that name them.

torchax runs the code and hands each operation to JAX. Types: JAX computes in 32 bits unless `jax_enable_x64` is set, so
that int64 becomes int32 and float64 becomes float32; bfloat16 and float16 stay.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as torch_tree

from es.torchax_names import import_torchax
from pruning.errors import BadValue

torchax = import_torchax()
TRANSLATED = (torchax.tensor.Tensor, torchax.view.View)
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def to_jax(tree: Any) -> Any:
    """Return a pytree with its tensors and arrays as JAX arrays, copied; other leaves stay.

    64-bit types become 32-bit ones unless `jax_enable_x64` is set.

    Raises:
        BadValue: an integer that does not fit.

    >>> to_jax([torch.tensor([1, 2]), 3])
    [Array([1, 2], dtype=int32), 3]
    """
    return jax.tree.map(to_jax_array, tree)


def to_jax_array(leaf: Any) -> Any:
    """Return one array or tensor as a JAX array, in 32 bits; anything else as it is."""
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
        array = leaf if isinstance(leaf, TRANSLATED) else to_jax_array(leaf)
        return torchax.tensor.Tensor(array, self) if isinstance(array, jax.Array) else array

    def dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        tensors = [leaf for leaf in torch_tree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(isinstance(tensor, TRANSLATED) for tensor in tensors):
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
        except Exception as error:  # whatever it is goes on its way, with the operation's name on it
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
    value = source.jax() if isinstance(source, TRANSLATED) else to_jax(source)
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
def translation(items_are_tensors: bool = False) -> Iterator[_Environment]:
    """Run torch's code on JAX arrays inside the block; torch itself is as before afterwards."""
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


def explained(env: _Environment, called: Any, label: str, call: Callable[[], Any]) -> Any:
    """Return what a call of `called` returns, in arrays; an error names the submodule of it and the operation."""
    try:
        with env:
            outputs = call()
            return plain(outputs, lambda tensor: env._wrapped(tensor).jax(), label)
    except BadValue:
        raise
    except Exception as error:  # a caller's code runs here, on arrays that it was not written for
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
            reason = f"{where} cannot be translated to JAX: {f'{operation}: ' if operation else ''}{first_line(error)}"
        raise BadValue(reason) from error


def _innermost(error: Exception, called: Any, label: str) -> str:
    names = {id(m): n for n, m in called.named_modules()} if isinstance(called, nn.Module) else {}
    where, frames = label, error.__traceback__
    while frames is not None:
        owner = frames.tb_frame.f_locals.get("self")
        if id(owner) in names:
            where = called_in(names[id(owner)], owner)
        frames = frames.tb_next
    return where


def called_in(name: str, layer: Any) -> str:
    """Return how messages call a submodule."""
    return f"{name} ({type(layer).__name__})" if name else type(layer).__name__


def first_line(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def plain(outputs: Any, convert: Callable[[torch.Tensor], Any], label: str) -> Any:
    """Return the outputs in containers that JAX knows; a mapping of another class becomes a dictionary."""
    if isinstance(outputs, torch.Tensor):
        return convert(outputs)
    if outputs is None or isinstance(outputs, int | float | complex | np.generic):
        return outputs
    if isinstance(outputs, Mapping):
        return {key: plain(value, convert, label) for key, value in outputs.items()}
    if isinstance(outputs, tuple | list):
        parts = [plain(value, convert, label) for value in outputs]
        if hasattr(outputs, "_fields"):
            return type(outputs)(*parts)
        return tuple(parts) if isinstance(outputs, tuple) else parts
    raise BadValue(f"{label} returns a {type(outputs).__name__}; expected tensors, in tuples, lists or dictionaries")


# ------------------------------------------------------------------------------------------------------------ checks
