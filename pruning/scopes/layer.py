"""One prune rate for each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pruning.ladder import Target
from pruning.names import match_patterns
from pruning.scopes import Schedule, Tensors, follow, scope


@scope("layer", source="Frankle & Carbin 2019, section 2 (arXiv 1803.03635)", reads=("layer_rates",))
def layer(schedule: Schedule, tensors: Tensors) -> list[Target]:
    """Weights compete within their tensor; the output layer is pruned at half the rate."""
    rates = tensor_rates(list(tensors.sizes), schedule.prune_rate, schedule.layer_rates)
    return follow(schedule, tensors, rates, "layer")


def tensor_rates(names: Sequence[str], prune_rate: float, layer_rates: Mapping[str, float]) -> dict[str, float]:
    """Return every tensor's prune rate; the last one, unless named, has half of it.

    Args:
        names: of the tensors, in the model's order.
        prune_rate: of those that are not named.
        layer_rates: prune rates by name pattern; of two that match, the later wins.

    Raises:
        UnknownName: a pattern that matches nothing.

    >>> tensor_rates(["conv", "fc1", "fc2"], 0.2, {"conv": 0.1})
    {'conv': 0.1, 'fc1': 0.2, 'fc2': 0.1}
    """
    rates = dict.fromkeys(names, prune_rate)
    if len(names) > 1:
        rates[names[-1]] = prune_rate / 2
    for pattern, rate in layer_rates.items():
        for name in match_patterns([pattern], names, "layer_rates"):
            rates[name] = rate
    return rates
