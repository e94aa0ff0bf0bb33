"""Settings that say where training starts: how weights are drawn and repaired, and where survivors go back to."""

from __future__ import annotations

from typing import Any

from pruning.errors import BadValue
from pruning.settings.setting import Declared

# The heading of help texts.
START = "Where training starts"

INIT: Declared = {
    "default": "model",
    "help": "How first weights are drawn: a registered initializer, `package.module:function`, or `model` for the "
    "model's own.",
    "listed": "initializers",
    "group": START,
    "words": ("initializer", "initialization", "initialiser"),
}
INIT_PARAMS: Declared = {
    "default": {},
    "help": "Settings of the initializer, as `gain`.",
    "of": "init",
    "group": START,
    "later": True,
}
REDRAW: Declared = {
    "default": False,
    "help": "Draw the weights of every pruned level anew under its mask, by `init` and from the seed of the first "
    "weights, instead of rewinding them. By default a ticket's weights are those of the rewind point.",
    "group": START,
    "later": True,
}
REPAIR: Declared = {
    "default": None,
    "help": "Change the weights of every pruned level under its mask before it is trained, so that signals pass. By "
    "default they stay as the rewind point has them.",
    "listed": "repairs",
    "group": START,
    "later": True,
}
REPAIR_PARAMS: Declared = {
    "default": {},
    "help": "Settings of the repair, as `spread`.",
    "of": "repair",
    "group": START,
    "later": True,
}
REWIND: Declared = {
    "default": "0",
    "help": "Where survivors go back to: `0`, a step (`500`), an epoch (`2ep`), `lr` (trained weights, the learning "
    "rate rewound) or `none` (fine-tuning).",
    "group": START,
    "words": ("rewind_to", "rewind_step", "rewind_epoch"),
    "takes": "int",
}


def check_start(init: Any, rewind: str, *, redraw: bool) -> None:
    """Raise `BadValue` where weights should be drawn anew and there is nothing to draw them by.

    >>> check_start("unit-scaled", "0", redraw=True)
    >>> check_start("model", "0", redraw=True)
    Traceback (most recent call last):
    pruning.errors.BadValue: redraw draws weights by `init`, which must name an initializer then, and rewind stays at 0
    """
    if redraw and (init == "model" or rewind != "0"):
        raise BadValue("redraw draws weights by `init`, which must name an initializer then, and rewind stays at 0")
