"""Fresh weights for controls: as the search drew its own, or by an initializer under the ticket's mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lottery.networks.sources.choosing import init_for
from lottery.networks.sources.redrawing import warn_left, warn_not_redrawn
from lottery.search.frame.frame import Frame
from lottery.search.frame.seeds import weights_seed
from lottery.settings.fields import spoken
from lottery.settings.schemes import initializer_named
from lottery.state.identity import identify
from lottery.studies.ablation.controls import DRAWING
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.initializers import INITIALIZERS, Initializer
from pruning.jobs import Params
from pruning.mask import Mask

Fresh = Callable[[int, int, Mask], Params]


def scheme_for(
    kinds: Sequence[str], init: str | Callable[..., Any], settings: Mapping[str, Any] | None
) -> Initializer | None:
    """Return the initializer that draws the fresh weights of controls; None for the way of the search.

    Args:
        kinds: names of ablations.
        init: an initializer or the name of one; `model` for the way of the search.
        settings: its settings.

    Raises:
        UnknownName: no such initializer, or a setting that it does not have.
        BadValue: a kind that draws no weights, or an initializer that chooses the mask.

    >>> scheme_for(["reinit"], "unit-scaled", {"gain": 1.0}).to
    {'gain': 1.0}
    >>> scheme_for(["random-mask"], "unit-scaled", {})
    Traceback (most recent call last):
    pruning.errors.BadValue: ablation 'random-mask' draws no weights: init goes with reinit, sign-reinit
    """
    with users_code(f"importing the initializer {spoken(init)!r}"):
        scheme = initializer_named(init, settings)
    if scheme.name == "model":
        return None
    for kind in kinds:
        if kind not in DRAWING:
            raise BadValue(f"ablation {kind!r} draws no weights: init goes with {', '.join(DRAWING.names())}")
    if scheme.chooses_mask:
        known = [entry.name for entry in INITIALIZERS if not entry.value.chooses_mask and entry.name != "model"]
        raise BadValue(
            f"init {scheme.name!r} chooses the mask itself, and a control keeps the ticket's: take one of "
            f"{', '.join(known)}"
        )
    return scheme


def label_of(scheme: Initializer) -> str:
    """Return the name of a scheme with its settings, as a part of a folder's name.

    >>> label_of(initializer_named("unit-scaled")), label_of(initializer_named("unit-scaled", {"gain": 1}))
    ('unit-scaled', 'unit-scaled-gain=1')
    """
    words = [scheme.name, *(f"{name}={value}" for name, value in sorted(scheme.to.items()))]
    return "".join(letter if letter.isalnum() or letter in "-=._" else "_" for letter in "-".join(words))


def said_of(scheme: Initializer | None) -> dict[str, Any]:
    """Return what the record of a control says of the initializer that drew it.

    >>> said_of(initializer_named("unit-scaled", {"gain": 1.0}))
    {'drawn_by': {'init': 'unit-scaled', 'init_params': {'gain': 1.0}}}
    """
    if scheme is None:
        return {}
    said = {"init": scheme.name, "init_params": {name: spoken(value) for name, value in scheme.to.items()}}
    own = {} if scheme.name in INITIALIZERS else {"code": identify(scheme.draw)}
    return {"drawn_by": {**said, **own}}


def fresh_for(frame: Frame, scheme: Initializer | None) -> Fresh:
    """Return what draws another initialization: `fresh(seed, repeat, mask)`.

    Without a scheme it is the same one at every level; with one, it is drawn under the mask. Every replicate and repeat
    has another.

    Raises:
        BadValue: when it is called: a model that has one initialization only, or weights that the scheme cannot serve.
    """
    source = frame.ask.source
    init = None if scheme is None else init_for(source, frame.ask.parts, scheme)

    def fresh(seed: int, repeat: int, mask: Mask) -> Params:
        own, other = frame.initial[seed], _other_seed(weights_seed(frame.config, seed), repeat)
        if init is None:
            drawn = _as_searched(frame, own, other)
        else:
            found = source.drawn(other, mask, init)
            warn_left(found.left, mask, init.scheme.name)
            drawn = found.params
        warn_not_redrawn(own, drawn, frame.dense[seed])
        return drawn

    return fresh


def _as_searched(frame: Frame, own: Params, other: int) -> Params:
    source = frame.ask.source
    if not source.varies:
        raise BadValue(
            f"model {source.name!r} has one initialization only: to draw another, name how (ablate with init=…, "
            "--init NAME; lottery list initializers), or search with a callable that makes the model from a seed"
        )
    fresh = source.initial_state(other)
    if all(np.array_equal(own[name], fresh[name]) for name in own):
        raise BadValue(f"model {source.name!r} is the same for every seed: it cannot be drawn afresh")
    return fresh


def _other_seed(seed: int, repeat: int) -> int:
    return int(np.random.SeedSequence([seed, repeat, 0x5EED]).generate_state(1, np.uint32)[0])
