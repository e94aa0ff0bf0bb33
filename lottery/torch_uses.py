"""How a PyTorch network uses its tensors: one batch goes through it, and every operation is listened to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lottery.objective import call
from lottery.randomness import seeded_everywhere
from pruning.axes import Axes
from pruning.torch_axes import axes_in_product, torch_axes
from pruning.uses import NOTHING, Trace, Uses, joined


def torch_uses(
    model: nn.Module,
    names: Iterable[str],
    inputs: Any,
    loss: Callable[[Any, Any], Any] | None = None,
    targets: Any = None,
) -> Uses:
    """Follow a forward pass from its inputs to the outputs that the loss looks at.

    Args:
        model: the network; it is not changed.
        names: of its tensors.
        inputs: a small batch, as the model is called with it.
        loss: `loss(outputs, targets)`: outputs that it does not look at (hidden states) do not count.
        targets: what it is given.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> uses = torch_uses(network, ["2.weight", "0.weight"], torch.ones(1, 3))
    >>> uses.order, uses.outputs
    (('0.weight', '2.weight'), frozenset({'2.weight'}))
    """
    names = list(names)
    network = copy.deepcopy(model).train()
    parameters = dict(network.named_parameters())
    by_kind = torch_axes(network)
    following = _Following({name: parameters[name] for name in names}, inputs)
    try:
        with seeded_everywhere(0), torch.enable_grad(), following:
            outputs = call(network, inputs)
    except Exception as error:  # a caller's model may do anything
        return Uses(by_kind, reason=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
    made = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    found = [following.trace(leaf).names for leaf in made]
    if loss is not None and len(made) != 1:
        found = _looked_at(following, made, found, lambda: loss(outputs, targets))
    made_by = frozenset[str]().union(*found)
    reason = "" if made_by else "its outputs do not depend on them by any operation that could be followed"
    axes = {**following.axes, **by_kind}
    return Uses(axes, tuple(following.order) if made_by else (), made_by, reason=reason)


def _looked_at(
    following: _Following, made: list[torch.Tensor], found: list[frozenset[str]], loss: Callable[[], Any]
) -> list[frozenset[str]]:
    """Return the names of those outputs that the loss depends on; of all where that does not show."""
    marks: dict[str, frozenset[str]] = {}
    for index, (leaf, names) in enumerate(zip(made, found, strict=True)):
        key = next((mark for mark in following.trace(leaf).names if mark in marks), f"output {index}")
        marks[key] = marks.get(key, frozenset()) | names  # two outputs in one memory share a mark
        following.set(leaf, Trace(True, frozenset({key})))
    try:
        with seeded_everywhere(0), torch.enable_grad(), following:
            value = loss()
    except Exception:  # a caller's loss may need what it finds in training only; then every output counts
        return found
    seen = following.trace(value).names if isinstance(value, torch.Tensor) else frozenset()
    if not made:  # outputs of a kind of their own: the loss knows what is in them
        return [seen]
    return [marks[mark] for mark in seen if mark in marks] or found


class _Following(TorchDispatchMode):
    """Knows of every piece of memory what it depends on: views and writes in place follow by themselves."""

    def __init__(self, weights: Mapping[str, torch.Tensor], inputs: Any) -> None:
        super().__init__()
        self.order: list[str] = []
        self._seen: dict[str, set[Axes]] = {}
        self._weights = dict(weights)
        self._traces: dict[int, Trace] = {}
        self._alive: list[Any] = []  # memory that is in use is never another's
        for name, tensor in weights.items():
            self.set(tensor, Trace(False, self.trace(tensor).names | {name}))
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, torch.Tensor):
                self.set(leaf, Trace(True))

    @property
    def axes(self) -> dict[str, Axes]:
        """The axes of weights that are factors of products, all of one kind."""
        return {name: next(iter(seen)) for name, seen in self._seen.items() if len(seen) == 1}

    def trace(self, tensor: torch.Tensor) -> Trace:
        """Return what is known of a tensor."""
        return self._traces.get(_memory(tensor), NOTHING)

    def set(self, tensor: torch.Tensor, trace: Trace) -> None:
        """Remember it."""
        self._traces[_memory(tensor)] = trace
        self._alive.append(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        trace, used = joined([self.trace(tensor) for tensor in given])
        self.order += [name for name in self._weights if name in used and name not in self.order]
        for name in used:
            axes = axes_in_product(func, args, self._weights[name])
            if axes is not None:  # of two products that differ neither is believed
                self._seen.setdefault(name, set()).add(axes)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (trace != NOTHING):
                self.set(tensor, trace)
        return result


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
