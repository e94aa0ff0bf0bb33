"""How the weights of a search are drawn, and what is done to them before a level is trained."""

from __future__ import annotations

from dataclasses import dataclass

from lottery.networks.sources.source import Source
from lottery.settings.config import SearchConfig
from lottery.settings.functions import check_given
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.initializers import Initializer, get_initializer
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.patterns import Pattern


def scheme_of(config: SearchConfig) -> Initializer:
    """Return the initializer that a search names, with its settings.

    Raises:
        UnknownName: no such initializer, or a setting that it does not have.
        BadValue: it was a function of a caller's, which a record does not hold.

    >>> scheme_of(SearchConfig(init="unit-scaled", init_params={"gain": 1.0})).to
    {'gain': 1.0}
    """
    check_given("init", config.init)
    with users_code(f"importing the initializer {config.init!r}"):
        return get_initializer(config.init, config.init_params)


@dataclass(frozen=True)
class Beginning:
    """What happens to weights and mask between the rewind point and a pruned level's training.

    Attributes:
        source: where networks come from whose weights are drawn anew under the mask; None where they stay as they are.
    """

    source: Source | None = None

    def under(self, seed: int, mask: Mask, rewound: Params) -> tuple[Params, Mask]:
        """Return the weights that a level starts from, and its mask: another one where the scheme chooses it.

        Args:
            seed: the seed of the replicate.
            mask: the mask that was drawn.
            rewound: the weights at the rewind point.
        """
        if self.source is None:
            return rewound, mask
        drawn = self.source.drawn(seed, mask, self.source.init)
        return drawn.params, drawn.mask


AS_REWOUND = Beginning()


def beginning_of(config: SearchConfig, source: Source, pattern: Pattern, levels: int) -> Beginning:
    """Return how the levels of a search begin.

    Args:
        config: the settings of the search.
        source: where networks come from.
        pattern: which weights stay or go together.
        levels: how many levels are pruned.

    Raises:
        BadValue: a scheme that chooses the mask, in a search that draws several masks or patterns.
    """
    scheme = source.init.scheme
    if config.redraw and scheme.chooses_mask and (levels > 1 or pattern.name != "unstructured"):
        raise BadValue(
            f"init {scheme.name!r} chooses the mask itself: with redraw it takes one pruned level (densities = [0.1]) "
            f"and no pattern, not {levels} levels and pattern {pattern.name!r}"
        )
    return Beginning(source) if config.redraw else AS_REWOUND
