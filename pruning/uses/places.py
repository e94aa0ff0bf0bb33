"""Which elements of which weights a value of a forward pass is made of, where a 0 of the weight is a 0 there.

Transposing, casting, slicing, stacking, scaling and gathering move the elements of a weight and keep its zeros. For
such a value, and for each axis of the weight, an integer tensor of the value's shape says where on this axis an element
comes from (-1: it is no element of this weight). Mostly these are expanded ranges and take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Origin:
    """Where elements come from.

    Attributes:
        name: the name of the weight.
        chosen: whether an index that the network computed has chosen them (experts of a token, a code of a codebook).
    """

    name: str
    chosen: bool = False


Coordinates = tuple[torch.Tensor, ...]
Places = Mapping[Origin, Coordinates]
NOWHERE: Places = {}

# Functions of one tensor, element by element, that are 0 at 0; beside them what copies and masks.
_SAME = frozenset(
    {
        "_conj",
        "_conj_physical",
        "_neg_view",
        "_to_copy",
        "_weight_norm_interface",
        "abs",
        "alias",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "clone",
        "conj_physical",
        "contiguous",
        "detach",
        "dropout",
        "elu",
        "erf",
        "expm1",
        "fake_quantize_per_tensor_affine",
        "floor",
        "frac",
        "gelu",
        "hardshrink",
        "hardtanh",
        "leaky_relu",
        "lift_fresh",
        "log1p",
        "mish",
        "nan_to_num",
        "native_dropout",
        "neg",
        "relu",
        "resolve_conj",
        "resolve_neg",
        "round",
        "sgn",
        "sign",
        "silu",
        "sin",
        "sinh",
        "softshrink",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "tril",
        "triu",
        "trunc",
    }
)
_RESHAPED = frozenset({"view", "_unsafe_view", "_reshape_alias", "reshape", "flatten", "unflatten"})
_MOVED = frozenset({"index", "index_select", "gather", "cat", "stack", "repeat", "flip", "roll", "constant_pad_nd"})
# Views that change the type of what is looked at, or count in memory instead of along axes.
_NOT_MOVED = frozenset({"as_strided", "view_as_real", "view_as_complex", "_view_as_real_physical"})


def whole(name: str, weight: torch.Tensor) -> Places:
    """Return the places of a weight itself.

    >>> rows, columns = whole("w", torch.zeros(2, 3))[Origin("w")]
    >>> rows.tolist(), columns.tolist()
    ([[0, 0, 0], [1, 1, 1]], [[0, 1, 2], [0, 1, 2]])
    """
    ranges = []
    for axis, size in enumerate(weight.shape):
        shape = [1] * weight.ndim
        shape[axis] = size
        ranges.append(torch.arange(size, dtype=torch.int32, device=weight.device).view(shape).expand(weight.shape))
    return {Origin(name): tuple(ranges)}


def base_name(operation: Any) -> str:
    """Return the name of an operation of `torch.ops.aten`, the same for the one that writes in place.

    >>> base_name(torch.ops.aten.mul_.Tensor)
    'mul'
    """
    return operation._schema.name.partition("::")[2].removesuffix("_")


def carried(
    operation: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    results: Sequence[torch.Tensor],
    places_of: Callable[[torch.Tensor], Places],
) -> list[Places]:
    """Return the places of what an operation makes; nowhere where a 0 of the weight need be no 0 of the result.

    Args:
        operation: of `torch.ops.aten`.
        arguments: the positional arguments of the call.
        keywords: the keyword arguments of the call.
        results: the results of the operation.
        places_of: what is known of its operands.

    >>> weight = torch.ones(2, 3)
    >>> moved = carried(torch.ops.aten.t.default, [weight], {}, [weight.t()], lambda tensor: whole("w", tensor))
    >>> moved[0][Origin("w")][0].tolist()
    [[0, 1], [0, 1], [0, 1]]
    """
    nothing = [NOWHERE] * len(results)
    tensors = [leaf for leaf in _flat(arguments) if isinstance(leaf, torch.Tensor)]
    if not results or not any(places_of(tensor) for tensor in tensors):
        return nothing
    name, first, result = base_name(operation), arguments[0], results[0]
    match name:
        case "mul":
            return [_united([_spread(places_of(t), result.shape) for t in tensors]), *nothing[1:]]
        case "div" | "copy":
            return [_spread(places_of(tensors[0 if name == "div" else 1]), result.shape)]
        case "add" | "sub" | "rsub":
            return [_common([places_of(tensor) for tensor in tensors])]
        case "complex":
            return [_united([places_of(tensor) for tensor in tensors])]
        case "where" if len(tensors) == 3:
            return [_spread(_beside_zeros(tensors[1:], places_of), result.shape)]
        case "pow" if not isinstance(arguments[1], torch.Tensor) and isinstance(first, torch.Tensor):
            return [places_of(first) if arguments[1] > 0 else NOWHERE]
        case "masked_fill":
            return [_spread(places_of(first), result.shape) if not torch.as_tensor(arguments[2]).any() else NOWHERE]
        case "clamp":
            low, high = (*arguments[1:], None, None)[:2]
            return [places_of(first) if (low or 0) <= 0 <= (high or 0) else NOWHERE]
        case "view_as_real":
            return [_mapped(places_of(first), lambda c: c.unsqueeze(-1).expand(result.shape))]
        case "view_as_complex":
            return [_mapped(places_of(first), lambda c: c.select(-1, 0))]
        case _ if name in _SAME and isinstance(first, torch.Tensor):
            return [places_of(first) if result.shape == first.shape else NOWHERE, *nothing[1:]]
        case _ if name in _RESHAPED:
            return [_mapped(places_of(first), lambda c: c.reshape(result.shape))]
        case _ if name in _MOVED or (operation.is_view and name not in _NOT_MOVED and not keywords.get("dtype")):
            return _moved(operation, arguments, keywords, len(results), places_of)
        case _:
            return nothing


def varies(coordinate: torch.Tensor, dimension: int) -> bool:
    """Say whether the place on an axis changes along a dimension of the value (looked at along one line).

    >>> rows = whole("w", torch.zeros(2, 3))[Origin("w")][0]
    >>> varies(rows, 0), varies(rows, 1)
    (True, False)
    """
    if coordinate.shape[dimension] < 2 or coordinate.stride(dimension) == 0:
        return False
    start = [0] * coordinate.ndim
    if coordinate[tuple(start)] < 0:  # beside other things: from the first element that is the weight's
        start = [int(index[0]) for index in torch.nonzero(coordinate >= 0, as_tuple=True)]
    line = coordinate[tuple(slice(None) if d == dimension else at for d, at in enumerate(start))]
    line = line[line >= 0]
    return bool((line != line[0]).any())


def _moved(
    operation: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    count: int,
    places_of: Callable[[torch.Tensor], Places],
) -> list[Places]:
    """Do to the coordinates what is done to the elements."""
    data, others = arguments[0], list(arguments[1:])
    listed = list(data) if isinstance(data, list | tuple) else [data]
    origins = dict.fromkeys(origin for tensor in listed for origin in places_of(tensor))
    found: list[dict[Origin, Coordinates]] = [{} for _ in range(count)]
    if base_name(operation) == "constant_pad_nd":
        others = [others[0], -1]
    for origin in origins:
        axes = next(len(places[origin]) for tensor in listed if origin in (places := places_of(tensor)))
        made: list[Sequence[torch.Tensor]] = []
        for axis in range(axes):
            given = [_coordinate(places_of(tensor), origin, axis, tensor) for tensor in listed]
            moved = operation(given if isinstance(data, list | tuple) else given[0], *others, **keywords)
            made.append([moved] if isinstance(moved, torch.Tensor) else moved)
        for index in range(count):
            found[index][origin] = tuple(each[index] for each in made)
    return list(found)


def _coordinate(places: Places, origin: Origin, axis: int, tensor: torch.Tensor) -> torch.Tensor:
    if origin in places:
        return places[origin][axis]
    return torch.full((), -1, dtype=torch.int32, device=tensor.device).expand(tensor.shape)


def _mapped(places: Places, function: Callable[[torch.Tensor], torch.Tensor]) -> Places:
    return {origin: tuple(map(function, coordinates)) for origin, coordinates in places.items()}


def _spread(places: Places, shape: torch.Size) -> Places:
    return _mapped(places, lambda coordinate: coordinate.expand(shape))


def _united(several: Sequence[Places]) -> Places:
    """Return the places of a product of these: it is 0 where any is. An origin that is there twice is not known."""
    origins = [origin for places in several for origin in places]
    return {o: c for places in several for o, c in places.items() if origins.count(o) == 1}


def _common(several: Sequence[Places]) -> Places:
    """Return the places of a sum of these: it is 0 only where all are made of the same element."""
    first, *others = several
    alike = all(
        places.keys() == first.keys()
        and all(a is b for origin in first for a, b in zip(first[origin], places[origin], strict=True))
        for places in others
    )
    return first if alike else NOWHERE


def _beside_zeros(tensors: Sequence[torch.Tensor], places_of: Callable[[torch.Tensor], Places]) -> Places:
    """Return the places of a choice between a weight and zeros."""
    one, other = tensors
    for mine, theirs in ((one, other), (other, one)):
        if places_of(mine) and not places_of(theirs) and not bool(theirs.any()):
            return places_of(mine)
    return NOWHERE


def _flat(arguments: Sequence[Any]) -> list[Any]:
    return [leaf for a in arguments for leaf in (a if isinstance(a, list | tuple) else [a])]
