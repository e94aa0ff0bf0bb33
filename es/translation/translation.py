"""torch's own Python code, run by torch, with every operation repeated in JAX on what changes between calls.

The parameters and inputs of a module have a value in JAX beside their own (`es.translation.shadows`). torch runs the
code as always, so that classes, types, shapes, hooks and derivatives are what the code was written for; each operation
that takes such a tensor is applied to the JAX values, too, and its result has one. All else is a constant, whose value
code may read. What reads the value of a tensor that changes cannot be compiled, and is refused; but for a truth value
that follows from the data alone, as when labels are checked: it is taken to be what it is here, and kept as a
condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as torch_tree
from torch.utils._python_dispatch import _disable_current_modes

from es.translation.arrays import jax_dtype
from es.translation.operations import decomposition, find, function_of, functional
from es.translation.refusals import DependsOnValues, DrawsNumbers, NoForm, OperationFailed, ReadsValues
from es.translation.shadows import Shadows
from pruning.errors import BadValue, first_line
from pruning.uses.operations import Operations

# What these return is memory that nobody has written yet: as a constant it may be any number, too large ones as well.
_UNWRITTEN = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}
# What `if` asks of one number; `torch.equal` of two tensors is not among them.
_TRUTHS = ("aten::_local_scalar_dense", "aten::is_nonzero")
# A seed that nobody takes: while torch has it, the code has not seeded torch itself.
_NOT_SEEDED = 0x6C6F7474657279
# What hands out a tensor's numbers without any operation that could be seen.
_READERS = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.data_ptr)


class Translation(Operations):
    """Repeats torch's operations in JAX."""

    def __init__(self, branch: bool = True) -> None:
        """Begin without any tensor that changes; `branch` lets code read truth values."""
        super().__init__()
        self.branch = branch
        self.shadows = Shadows()
        self.conditions: list[jax.Array] = []

    def tracked(self, tree: Any) -> bool:
        """Say whether anything in a pytree changes between calls."""
        return any(leaf in self.shadows for leaf in torch_tree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))

    def repeat(self, run: Callable[[], Any], in_jax: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
        """Return the result of `run`; its tensors have the values that the JAX function gives for the arguments."""
        arrays, keywords = torch_tree.tree_map_only(torch.Tensor, self.shadows.value, (args, kwargs))
        results = run()
        try:
            values = in_jax(*arrays, **keywords)
        except (BadValue, NoForm, ReadsValues, DependsOnValues):
            raise
        except jax.errors.ConcretizationTypeError as error:
            raise DependsOnValues(name) from error
        except Exception as error:  # JAX, or torchax, may raise anything on what it was not written for
            raise OperationFailed(f"{name}: {first_line(error)}") from error
        self._set(results, values, name)
        return results

    def repeat_whole(self, function: Callable[..., Any], jax_function: Callable[..., Any], args: Any, name: str) -> Any:
        """As `repeat`, for a function of torch whose operations are not looked at one by one."""

        def run() -> Any:
            with _disable_current_modes():
                return function(*args)

        return self.repeat(run, jax_function, args, {}, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See one operation."""
        kwargs = kwargs or {}
        name = func._schema.name
        if not self.tracked((args, kwargs)):
            result = _without_randomness(func, args, kwargs)
            return result.zero_() if name in _UNWRITTEN else result
        if torch.Tag.data_dependent_output in func.tags and not _returns_tensors(func):
            return self._truth(func, args, kwargs)
        if torch.Tag.inplace_view in func.tags:
            return self._change_shape(func, args, kwargs)
        if func._schema.is_mutable:
            return self._write(func, args, kwargs)
        jax_function = find(func)
        if jax_function is not None:
            return self.repeat(lambda: _without_randomness(func, args, kwargs), jax_function, args, kwargs, name)
        if _returns_views(func):
            return self._view(func, args, kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            _without_randomness(func, args, kwargs)
        by_others = decomposition(func)
        if by_others is not None:
            with self:
                result = by_others(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if torch.Tag.dynamic_output_shape in func.tags:
            raise DependsOnValues(name)
        raise NoForm(name)

    def _view(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that returns another window onto its argument; some copy where no window will do."""
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                results = func.decompose(*args, **kwargs)
            if results is not NotImplemented:
                return results
        results = func(*args, **kwargs)
        for result in torch_tree.tree_leaves(results):
            if result.numel() and result not in self.shadows:
                raise NoForm(func._schema.name)  # a copy, which would pass for a constant
            self.shadows.set(result, self.shadows.value(result))
        return results

    def _truth(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Code branches on a truth value: note what it must be for the branch to be the right one."""
        found = func(*args, **kwargs)
        if not (self.branch and isinstance(found, bool) and func._schema.name in _TRUTHS):
            raise ReadsValues(func._schema.name)
        self.conditions.append(self.shadows.value(args[0]).reshape(()).astype(bool) == found)
        return found

    def quietly(self, look: Callable[[], Any]) -> Any:
        """Return the result of `look`, which may read this run's values; no computed value may depend on it."""
        with _disable_current_modes():
            return look()

    def _write(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation that changes its target: what it writes is computed by the one that returns it."""
        schema, name = func._schema.arguments, func._schema.name
        given = {a.name: kwargs.get(a.name, args[i] if i < len(args) else None) for i, a in enumerate(schema)}
        targets = [given[a.name] for a in schema if a.alias_info is not None and a.alias_info.is_write]
        computed = functional(func)
        if computed is None or not all(isinstance(target, torch.Tensor) for target in targets):
            raise DrawsNumbers(name) if torch.Tag.nondeterministic_seeded in func.tags else NoForm(name)
        names = {a.name for a in computed._schema.arguments}
        before = [self.shadows.contents(target) for target in targets]
        with self:
            results = computed(
                *[arg for arg, a in zip(args, schema, strict=False) if a.name in names],
                **{key: value for key, value in kwargs.items() if key in names},
            )
        results = (results,) if isinstance(results, torch.Tensor) else tuple(results)
        values = [self.shadows.value(result) for result in results]
        written = func(*args, **kwargs)
        for target, value, old in zip(targets, values, before, strict=False):
            value = jnp.broadcast_to(value, target.shape).astype(jax_dtype(target.dtype))
            self.shadows.write(target, value, old)
        return written

    def _change_shape(self, func: Any, args: Any, kwargs: Any) -> Any:
        """`x.t_()`: the same storage, seen otherwise."""
        result = func(*args, **kwargs)
        self.shadows.forget(args[0])
        return result

    def _set(self, results: Any, values: Any, name: str) -> None:
        tensors = [leaf for leaf in torch_tree.tree_leaves(results) if leaf is not None]
        arrays = [leaf for leaf in torch_tree.tree_leaves(values) if leaf is not None]
        if len(tensors) < len(arrays):
            raise OperationFailed(f"{name} gives {len(arrays)} results in JAX and {len(tensors)} in torch")
        for tensor in tensors[len(arrays) :]:
            self.shadows.unknown(tensor, name)
        for tensor, array in zip(tensors, arrays, strict=False):
            if not isinstance(tensor, torch.Tensor):
                continue
            array = jnp.asarray(array)
            if array.shape != tensor.shape:
                raise OperationFailed(f"{name} gives shape {array.shape} in JAX and {tuple(tensor.shape)} in torch")
            self.shadows.set(tensor, array.astype(jax_dtype(tensor.dtype)))


class _Functions(TorchFunctionMode):
    """Sees torch's functions before they fall apart into operations."""

    def __init__(self, translation: Translation, items_are_tensors: bool) -> None:
        super().__init__()
        self.translation = translation
        self.items_are_tensors = items_are_tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(map(_is_wrapped, torch_tree.tree_leaves((args, kwargs)))):
            return func(*args, **kwargs)
        if func in _READERS and self.translation.tracked(args):
            raise ReadsValues(f"Tensor.{func.__name__}")
        if func is torch.Tensor.item and self.items_are_tensors and self.translation.tracked(args):
            return args[0].reshape(())
        instead = function_of(func)
        if instead is not None and self.translation.tracked((args, kwargs)):
            result = instead(self.translation, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def _is_wrapped(value: Any) -> bool:
    """Say whether `torch.func` differentiates or maps over a tensor: then only its operations can be seen."""
    return isinstance(value, torch.Tensor) and is_functorch_wrapped_tensor(value)


def _without_randomness(func: Any, args: Any, kwargs: Any) -> Any:
    """Apply an operation that may draw random numbers; code that seeds torch before draws the same ones each time."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return func(*args, **kwargs)
    if kwargs.get("generator") is None and torch.initial_seed() != _NOT_SEEDED:
        return func(*args, **kwargs)
    before = torch.get_rng_state()
    result = func(*args, **kwargs)
    if kwargs.get("generator") is not None or not torch.equal(before, torch.get_rng_state()):
        raise DrawsNumbers(func._schema.name)
    return result


def _returns_tensors(func: Any) -> bool:
    return any("Tensor" in str(result.type) for result in func._schema.returns)


def _returns_views(func: Any) -> bool:
    return any(result.alias_info is not None for result in func._schema.returns)


@contextmanager
def translating(items_are_tensors: bool = False, grad: bool = False, branch: bool = True) -> Iterator[Translation]:
    """Repeat in JAX what torch does inside the block; torch itself is as before afterwards.

    Args:
        items_are_tensors: let `.item()` return a tensor.
        grad: let torch record what derivatives need.
        branch: let code read truth values; what they must be is in the translation's `conditions`.

    >>> x = torch.ones(2)
    >>> with translating() as translation:
    ...     translation.shadows.set(x, jnp.array([1.0, 2.0]))
    ...     y = 3 * x
    >>> translation.shadows.value(y).tolist(), y.tolist()
    ([3.0, 6.0], [3.0, 3.0])
    """
    translation = Translation(branch)
    with ExitStack() as stack:
        stack.enter_context(_plain_kernels())
        stack.enter_context(_exporting())
        stack.enter_context(_unvalidated_distributions())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.default_generator.manual_seed(_NOT_SEEDED)  # those of other devices are not given back
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.enter_context(_Functions(translation, items_are_tensors))
        stack.enter_context(translation)
        yield translation


@contextmanager
def _exporting() -> Iterator[None]:
    """Say to the code that it is being exported: much of it then reads no values to save work (a mask of ones)."""
    flags = {name: getattr(torch.compiler, name) for name in ("_is_compiling_flag", "_is_exporting_flag")}
    try:
        for name in flags:
            setattr(torch.compiler, name, True)
        yield
    finally:
        for name, before in flags.items():
            setattr(torch.compiler, name, before)


@contextmanager
def _unvalidated_distributions() -> Iterator[None]:
    """Let `torch.distributions` take its arguments as they are: checking them reads their values."""
    kind = torch.distributions.Distribution
    before = kind._validate_args
    kind.set_default_validate_args(False)
    try:
        yield
    finally:
        kind.set_default_validate_args(before)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Let torch compute by its elementary operations inside the block, not by kernels that do several at once."""
    fastpath, onednn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
            torch._C._set_mkldnn_enabled(onednn)
