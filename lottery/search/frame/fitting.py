"""Whether a trainer takes a search's network and data; where not, which one does."""

from __future__ import annotations

from collections.abc import Callable

from lottery.data.parts import Parts
from lottery.trainers import EPISODES, EXAMPLES, FITNESS, NOTHING, TRAINERS, Ask, TrainerKind
from pruning.errors import BadValue

_DATA = {EXAMPLES: "examples", EPISODES: "episodes", FITNESS: "a fitness function", NOTHING: "data of its own"}
_FRAMEWORKS = {"torch": "PyTorch modules", "jax": "JAX models"}


def check_fits(name: str, kind: TrainerKind, ask: Ask) -> None:
    """Raise `BadValue` where a trainer takes no such network or data.

    Args:
        name: the trainer's name.
        kind: the trainer.
        ask: what it would be asked.
    """
    data, framework = learned_from(ask.parts), ask.source.framework
    if data not in kind.data:
        takes = " or ".join(_DATA[each] for each in sorted(kind.data))
        what = {EPISODES: "is an environment", FITNESS: "is a fitness function"}.get(data, "is data")
        if data == NOTHING:
            raise BadValue(f"trainer {name!r} learns from {takes}, and no data was given")
        raise BadValue(f"trainer {name!r} learns from {takes}, and {ask.parts.name} {what}: {_use(data, framework)}")
    if framework not in kind.frameworks:
        takes = " and ".join(_FRAMEWORKS[each] for each in sorted(kind.frameworks))
        what = "in JAX" if framework == "jax" else "a PyTorch module"
        raise BadValue(
            f"trainer {name!r} trains {takes}, and this model is {what}: {_use(data, framework)}, or train "
            "ticket.rewound(model) in a loop of your own with pruning.pytrees.apply_mask after each step"
        )


def learned_from(parts: object) -> str:
    """Return which kind of data a trainer would learn from: `examples`, `episodes`, `fitness` or `nothing`.

    >>> from lottery.data.unseen import Unseen
    >>> learned_from(Unseen())
    'nothing'
    """
    if isinstance(parts, Parts):
        return EXAMPLES
    return {"Episodes": EPISODES, "Fitness": FITNESS}.get(type(parts).__name__, NOTHING)


def able(data: str, framework: str) -> list[str]:
    """Return the names of the trainers that take such data and networks.

    >>> able(EXAMPLES, "jax"), able(EPISODES, "torch")
    (['es', 'optax'], ['es'])
    """
    fits: Callable[[TrainerKind], bool] = lambda kind: data in kind.data and framework in kind.frameworks  # noqa: E731
    return [entry.name for entry in TRAINERS if fits(entry.value)]


def _use(data: str, framework: str) -> str:
    found = able(data, framework)
    return f"use trainer {' or '.join(map(repr, found))}" if found else "no trainer takes both this model and this data"
