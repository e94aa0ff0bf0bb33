"""Tensors of one module that lie in the same memory: a view of a parameter, kept as an attribute.

A parameter is copied by itself, and so a copied view of it would go on showing the values of the original. Here the
memory is copied once, and every tensor lies in the copy as it lay in the original.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pruning.errors import BadValue

_ALIGNED = 16  # bytes: every element type may begin there


def groups_in_memory(tensors: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return the groups of tensors whose memory overlaps, where a parameter is among them.

    >>> weight = nn.Parameter(torch.zeros(4))
    >>> [[len(one) for one in group] for group in groups_in_memory([weight, weight.detach()[1:], torch.ones(2)])]
    [[4, 3]]
    """
    by_storage: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        if type(tensor) in (torch.Tensor, nn.Parameter) and _has_memory(tensor):
            by_storage.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
    groups: list[list[torch.Tensor]] = []
    for lying_together in by_storage.values():
        if len(lying_together) < 2:
            continue
        end = -1
        for tensor in sorted(lying_together, key=lambda each: span(each)[0]):
            first, last = span(tensor)
            if first >= end:
                groups.append([])
            groups[-1].append(tensor)
            end = max(end, last)
    return [group for group in groups if len(group) > 1 and any(isinstance(each, nn.Parameter) for each in group)]


def copied_together(group: list[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Return a copy of each tensor of a group, by the original's `id`; they overlap as the originals do.

    Raises:
        BadValue: a view through which gradients flow, and that reads its parameter as another type.

    >>> whole = torch.zeros(3)
    >>> view = whole[1:]
    >>> made = copied_together([whole, view])
    >>> _ = made[id(whole)].fill_(7)
    >>> made[id(view)].tolist(), view.tolist()
    ([7.0, 7.0], [0.0, 0.0])
    """
    first = min(span(each)[0] for each in group) // _ALIGNED * _ALIGNED
    last = max(span(each)[1] for each in group)
    with torch.no_grad():
        storage = group[0].untyped_storage()
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device)
        memory = whole.set_(storage, first, (last - first,), (1,)).clone().untyped_storage()
    made: dict[int, torch.Tensor] = {}
    for tensor in sorted(group, key=lambda each: not each.is_leaf):
        base = made.get(id(tensor._base))
        offset = tensor.storage_offset() - first // tensor.element_size()
        if not tensor.is_leaf and base is not None:
            if base.dtype != tensor.dtype:
                raise BadValue(
                    f"an attribute is a view of shape {tuple(tensor.shape)} of a parameter, as {tensor.dtype}: it "
                    "cannot be copied so that it follows the copied parameter; make the view in forward"
                )
            with torch.enable_grad():
                made[id(tensor)] = base.as_strided(tensor.size(), tensor.stride(), offset)
            continue
        with torch.no_grad():
            alone = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            alone.set_(memory, offset, tensor.size(), tensor.stride())  # pyright: ignore[reportArgumentType]
        wants_gradient = tensor.requires_grad and tensor.is_leaf
        is_parameter = isinstance(tensor, nn.Parameter)
        made[id(tensor)] = nn.Parameter(alone, wants_gradient) if is_parameter else alone.requires_grad_(wants_gradient)
    return made


def require_disjoint(module: nn.Module) -> None:
    """Raise `BadValue` where two parameters share elements: a mask and a ticket hold each tensor by itself.

    >>> layer = nn.Linear(2, 2)
    >>> layer.bias = nn.Parameter(layer.weight.detach()[0])
    >>> try:
    ...     require_disjoint(layer)
    ... except BadValue as error:
    ...     print(str(error)[:47])
    parameters 'weight' and 'bias' lie in one memor
    """
    named = {id(parameter): name for name, parameter in module.named_parameters() if not is_lazy(parameter)}
    for group in groups_in_memory(p for p in module.parameters() if id(p) in named):
        for number, one in enumerate(group):
            for other in group[number + 1 :]:
                if _meet(one, other):
                    names = sorted([named[id(one)], named[id(other)]], key=list(named.values()).index)
                    raise BadValue(
                        f"parameters {names[0]!r} and {names[1]!r} lie in one memory, as views of each other: hold one "
                        "parameter in both places, or one alone, and transpose or cut it in forward"
                    )


def _meet(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors of one storage have an element in common."""
    first, last = min(span(one)[0], span(other)[0]), max(span(one)[1], span(other)[1])
    size = one.element_size()
    if size != other.element_size() or first % size:
        return True
    used = torch.zeros((last - first) // size, dtype=torch.bool)
    for tensor in (one, other):
        view = used.as_strided(tensor.size(), tensor.stride(), int(tensor.storage_offset()) - first // size)
        if tensor is other:
            return bool(view.any())
        view.fill_(True)
    return False


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return where a tensor's elements begin and end in its memory, in bytes.

    >>> span(torch.zeros(4)[1:3]), span(torch.zeros(2, 3)[:, 0])
    ((4, 12), (0, 16))
    """
    first = int(tensor.storage_offset()) * tensor.element_size()
    if not tensor.numel():
        return first, first
    reach = sum((size - 1) * int(stride) for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    return first, first + (reach + 1) * tensor.element_size()


def _has_memory(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        return False
    return not (tensor.is_conj() or tensor.is_neg()) and tensor.numel() > 0
