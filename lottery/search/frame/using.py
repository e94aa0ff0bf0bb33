"""What a search must know of how its network uses its tensors, and what follows for masks.

One small batch goes through it. What is prunable follows from it, and for a scope that looks at the order of layers, or
a pattern that would remove outputs, what they need to know.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lottery.networks.sources.following import follow
from lottery.settings.config import SearchConfig
from lottery.trainers import Ask
from pruning.errors import BadValue, NothingToPrune
from pruning.patterns import Pattern, get_pattern
from pruning.scopes import SCOPES
from pruning.uses.uses import Uses

Shapes = Mapping[str, tuple[int, ...]]


class OrderNotFollowed(UserWarning):
    """The layer that makes the outputs was not found by running the network; the message says which one was assumed."""


def uses_for(ask: Ask, config: SearchConfig) -> Uses:
    """Return what this search must know of how its network uses its tensors.

    Args:
        ask: model and data.
        config: the search; its scope and its pattern decide what must be known.

    Raises:
        BadValue: a pattern that needs to know the axes of a prunable tensor, and they are not known.
    """
    uses = follow(ask.source, ask.parts, ask.seed, ask.loss, ask.metric)
    shapes = ask.source.prunable(ask.seed, config.prunable, config.skip, uses)
    pattern = get_pattern(config.pattern, config.pattern_params)
    asked = SCOPES[config.scope].value.follows or config.pattern != "unstructured"
    if config.pattern != "unstructured":
        _check_axes(pattern, shapes, uses)
    if not asked or not uses.reason:
        return uses
    last = list(shapes)[-1]
    needs = f"scope {config.scope!r}" if SCOPES[config.scope].value.follows else f"pattern {config.pattern!r}"
    warnings.warn(
        f"{needs}: in which order the layers run could not be followed ({uses.reason}); the order of their definition "
        f"is taken, and {last!r} for the layer that makes the outputs",
        OrderNotFollowed,
        stacklevel=2,
    )
    return replace(uses, order=tuple(shapes), outputs=frozenset({last}))


def without_outputs(pattern: Pattern, shapes: Shapes, outputs: Iterable[str], named: Sequence[str]) -> Shapes:
    """Return the tensors but those that stay dense because the pattern would remove outputs of the network itself.

    Args:
        pattern: which weights stay or go together, on the network's axes.
        shapes: the shapes of the prunable tensors.
        outputs: those whose layer makes the network's outputs.
        named: the setting `prunable`: a tensor that it holds by its full name is not left out.

    Raises:
        NothingToPrune: no other tensor is prunable.
    """
    made = [name for name in shapes if name in set(outputs) and name not in named]
    spared = {name for name in made if pattern.removes_outputs(name, shapes[name])}
    if spared == set(shapes):
        raise NothingToPrune(
            f"pattern {pattern.name!r} removes whole outputs, and {', '.join(map(repr, shapes))} makes those of the "
            "network itself; name it in `prunable` if they may go"
        )
    return {name: shape for name, shape in shapes.items() if name not in spared}


def _check_axes(pattern: Pattern, shapes: Shapes, uses: Uses) -> None:
    unknown = [name for name, shape in shapes.items() if len(shape) > 1 and name not in uses.axes]
    if unknown:
        raise BadValue(
            f"pattern {pattern.name!r}: which axes of {unknown[0]!r} are outputs and which are inputs is not known: "
            "it is no weight of a linear, convolution, recurrent, attention or embedding layer, and no factor of a "
            "product that could be followed; name it in `skip`"
        )
    divided = [
        name
        for name, shape in shapes.items()
        if name in uses.rows and pattern.on(uses.axes).removes_outputs(name, shape)
    ]
    if divided:
        raise BadValue(
            f"pattern {pattern.name!r} removes whole rows, and the weight of {divided[0]!r} is divided by the norms of "
            "its rows: 0 / 0; name it in `skip`, or remove the parametrization first"
        )
