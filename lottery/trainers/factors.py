"""By what the learning rate of each tensor is multiplied: as a user names tensors, and by a rule under a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lottery.trainers import Ask
from pruning.errors import BadValue
from pruning.masks.names import values_by_name
from pruning.starts.followed import Keep, followed_tensors
from pruning.starts.scaling.learning_rates import learning_rate_factors
from pruning.uses.uses import TABLE, Uses

Factor = Mapping[str, float]


def _none(mask: Keep) -> Factor:
    del mask
    return {}


@dataclass(frozen=True)
class Factors:
    """By what the learning rate of each tensor is multiplied.

    Attributes:
        given: by tensor name, as the user named them.
        rule: the same by a rule, under a mask.
    """

    given: Factor = field(default_factory=dict)
    rule: Callable[[Keep], Factor] = _none

    def under(self, mask: Keep) -> dict[str, float]:
        """Return the factors under a mask, by tensor name; tensors that are not named have 1.

        >>> Factors({"w": 2.0, "b": 3.0}, lambda mask: {"w": 0.5}).under({})
        {'w': 1.0, 'b': 3.0}
        """
        ruled = self.rule(mask)
        return {name: ruled.get(name, 1.0) * self.given.get(name, 1.0) for name in {**ruled, **self.given}}


def factors_for(ask: Ask, names: Sequence[str]) -> Factors:
    """Return the factors that a configuration names.

    Args:
        ask: source, data and configuration.
        names: of everything that is trained.

    Raises:
        UnknownName: a pattern that matches nothing.
        BadValue: a rule that does not fit the network; found under a dense mask already.
    """
    config = ask.config
    given = values_by_name(config.lr_factors, names, "lr_factors")
    if config.lr_rule is None:
        return Factors(given)
    # This module is imported with the names of all trainers, for the flags of a command: they need no PyTorch.
    from lottery.networks.sources.following import follow
    from lottery.networks.sources.source import ModelSource
    from pruning.starts.torch_tensors import torch_tensors

    uses = follow(ask.source, ask.parts, ask.seed, ask.loss, ask.metric)
    model = ask.source.build(ask.seed) if isinstance(ask.source, ModelSource) else None
    shapes = {name: array.shape for name, array in ask.source.initial_state(ask.seed).items()}
    names = [name for name in names if name in shapes]

    def rule(mask: Keep) -> Factor:
        if model is not None:
            found = [each.tensor for each in torch_tensors(model, mask, uses)]
        else:
            found = followed_tensors(shapes, mask, uses)
        tensors = [tensor for tensor in found if tensor.name in names]
        vectors = _vectors(shapes, names, [tensor.name for tensor in tensors], uses, config, given)
        return learning_rate_factors(config.lr_rule, tensors, config.optimizer, config.lr_rule_params, vectors)

    rule({})
    return Factors(given, rule)


def _vectors(
    shapes: Mapping[str, tuple[int, ...]],
    names: Sequence[str],
    seen: Sequence[str],
    uses: Uses,
    config: Any,
    given: Factor,
) -> dict[str, int]:
    """Return the lengths of what is trained and is no matrix that a rule sees: vectors, and rows of tables."""
    vectors: dict[str, int] = {}
    for name in names:
        if name in seen:
            continue
        shape = shapes[name]
        if len(shape) < 2 or uses.apart.get(name) == TABLE:
            vectors[name] = shape[-1] if shape else 1
        elif name not in given:
            why = f" ({uses.reason})" if uses.reason else ""
            raise BadValue(
                f"lr_rule {config.lr_rule!r}: what {name!r} does in the network was not found{why}; give its factor by "
                f"its name: lr_factors = {{{name!r}: 1.0}}"
            )
    return vectors
