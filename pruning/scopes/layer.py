"""One prune rate for each tensor."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pruning.ladder import Target
from pruning.masks.names import match_patterns
from pruning.scopes import PrunableTensors, Schedule, follow, scope


@scope("layer", source="Frankle & Carbin 2019, section 2 (arXiv 1803.03635)", reads=("layer_rates",), follows=True)
def layer(schedule: Schedule, tensors: PrunableTensors) -> list[Target]:
    """Weights compete within their tensor; the layer that makes the outputs is pruned at half the rate."""
    rates = tensor_rates(list(tensors.sizes), schedule.prune_rate, schedule.layer_rates, tensors.making_outputs)
    return follow(schedule, tensors, rates, "layer")


def tensor_rates(
    names: Sequence[str], prune_rate: float, layer_rates: Mapping[str, float], outputs: Collection[str]
) -> dict[str, float]:
    """Return every tensor's prune rate; those that make the outputs, unless named, have half of it.

    Args:
        names: the names of the tensors, in the model's order.
        prune_rate: of those that are not named.
        layer_rates: prune rates by name pattern; of two that match, the later wins.
        outputs: those whose layer makes the network's outputs. Where all do, none is special.

    Raises:
        UnknownName: a pattern that matches nothing.

    >>> tensor_rates(["fc2", "conv", "fc1"], 0.2, {"conv": 0.1}, ["fc2"])
    {'fc2': 0.1, 'conv': 0.1, 'fc1': 0.2}
    """
    special = set(outputs) if set(names) - set(outputs) else set()
    rates = {name: prune_rate / 2 if name in special else prune_rate for name in names}
    for pattern, rate in layer_rates.items():
        for name in match_patterns([pattern], names, "layer_rates"):
            rates[name] = rate
    return rates
