"""How the weights of a search are drawn, and what is done to them before a level is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

from lottery.networks.sources.choosing import init_for
from lottery.networks.sources.repairing import repaired_start
from lottery.settings.config import SearchConfig
from lottery.settings.functions import check_given
from lottery.settings.schemes import initializer_named, repair_named
from lottery.trainers import Ask
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.initializers import Initializer
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.patterns import Pattern
from pruning.repairs import Repaired


class NotRepaired(UserWarning):
    """A repair left a prunable tensor as it was; the message says which and why."""


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
        return initializer_named(config.init, config.init_params)


@dataclass(frozen=True)
class Beginning:
    """What happens to weights and mask between the rewind point and a pruned level's training.

    Attributes:
        redraw: draws the weights anew under the mask; None where they stay as they are.
        mend: repairs them under the mask; None where nothing does.
    """

    redraw: Callable[[int, Mask], tuple[Params, Mask]] | None = None
    mend: Callable[[int, Params, Mask], Params] | None = None

    def under(self, seed: int, mask: Mask, rewound: Params) -> tuple[Params, Mask]:
        """Return the weights that a level starts from, and its mask: another one where the scheme chooses it.

        Args:
            seed: the seed of the replicate's weights.
            mask: the mask that was drawn.
            rewound: the weights at the rewind point.
        """
        params, kept = (rewound, mask) if self.redraw is None else self.redraw(seed, mask)
        return (params if self.mend is None else self.mend(seed, params, kept)), kept


AS_REWOUND = Beginning()


def beginning_of(config: SearchConfig, ask: Ask, pattern: Pattern, levels: int) -> Beginning:
    """Return how the levels of a search begin.

    Args:
        config: the settings of the search.
        ask: model and data.
        pattern: which weights stay or go together.
        levels: how many levels are pruned.

    Raises:
        BadValue: a scheme that chooses the mask, in a search that draws several masks or patterns.
        UnknownName: no such repair, or a setting that it does not have.
    """
    source = ask.source
    scheme = source.init.scheme
    if config.redraw and scheme.chooses_mask and (levels > 1 or pattern.name != "unstructured"):
        raise BadValue(
            f"init {scheme.name!r} chooses the mask itself: with redraw it takes one pruned level (densities = [0.1]) "
            f"and no pattern, not {levels} levels and pattern {pattern.name!r}"
        )

    def redraw(seed: int, mask: Mask) -> tuple[Params, Mask]:
        drawn = source.drawn(seed, mask, source.init)
        return drawn.params, drawn.mask

    return Beginning(redraw if config.redraw else None, _mending(config, ask))


def _mending(config: SearchConfig, ask: Ask) -> Callable[[int, Params, Mask], Params] | None:
    if config.repair is None:
        return None
    with users_code(f"importing the repair {config.repair!r}"):
        how = repair_named(config.repair, config.repair_params)
    init = init_for(ask.source, ask.parts, scheme_of(config))

    def mend(seed: int, params: Params, mask: Mask) -> Params:
        mended, found = repaired_start(ask.source, init, ask.parts, seed, (params, mask), how)
        left = [name for name in mask if name not in found.reports]
        if len(left) == len(mask):
            raise BadValue(f"repair {how.name!r} changes none of the prunable tensors: {_why(found, left[0])}")
        if left:
            warnings.warn(
                f"repair {how.name!r} leaves {len(left)} of {len(mask)} prunable tensors as they were: "
                f"{left[0]!r}: {_why(found, left[0])}",
                NotRepaired,
                stacklevel=2,
            )
        return mended

    return mend


def _why(found: Repaired, name: str) -> str:
    return found.left.get(name, "what it does in the network is not known")
