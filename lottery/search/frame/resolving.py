"""From flat settings and whatever people call data to checked configurations and parts."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.data.datasets import load_data
from lottery.data.parts import Parts, prepare
from lottery.data.unseen import Unseen
from lottery.search.data_scores import DATA_SCORES
from lottery.settings.config import SearchConfig
from lottery.settings.fields import build
from lottery.trainers import NOTHING, TRAINERS
from lottery.trainers.choosing import check_names, trainer_kind, trainer_name
from pruning.calls.calling import Forward
from pruning.errors import BadValue

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness


def resolve(settings: Mapping[str, Any]) -> tuple[SearchConfig, Any]:
    """Return the search's and the trainer's configuration; raises `UsageError` for what is wrong.

    >>> resolve({"levels": 3, "lr": 0.1})[1].lr
    0.1
    """
    settings = {**settings, "trainer": trainer_name(settings)}
    kind = trainer_kind(settings["trainer"])
    check_names(settings)
    config, trainer_config = build(SearchConfig, settings), build(kind.config, settings)
    DATA_SCORES[config.data_diet_score]  # a wrong name is said also where there is no diet
    if config.data_diet is not None and NOTHING in kind.data:
        raise BadValue(
            f"data_diet chooses training examples, and trainer {config.trainer!r} brings its own: leave data_diet out"
        )
    if config.early_bird is not None and not kind.ends_early:
        able = [entry.name for entry in TRAINERS if entry.value.ends_early]
        raise BadValue(
            f"early_bird ends a training early, which trainer {config.trainer!r} cannot: leave it out, or use trainer "
            f"{' or '.join(map(repr, able))}"
        )
    moves = kind.moves(trainer_config)
    if moves and config.pattern != "unstructured":
        raise BadValue(f"moves {moves!r} exchanges single weights, which breaks pattern {config.pattern!r}")
    if moves and config.measure_at != "final":
        raise BadValue(
            f"moves {moves!r} changes the mask until the last step, and the weights at the early-stop step are under "
            "another mask than the ticket's: use measure_at 'final'"
        )
    return config, trainer_config


def parts_of(data: Any, config: SearchConfig, forward: Forward | None = None) -> Parts | Episodes | Fitness | Unseen:
    """Return checked parts of a data set, an environment, a fitness function, or nothing for a loop of your own."""
    if data is None and NOTHING in trainer_kind(config.trainer).data:
        return Unseen()
    if not isinstance(data, str | Path) and (task := _task(data)) is not None:
        if forward is not None:
            raise BadValue(f"{task.name} is no data set of which batches are handed to the model: leave forward out")
        return task
    if isinstance(data, str) and ":" in data:
        from es.tasks.environments import is_environment
        from lottery.data.episodes import load_episodes

        if is_environment(data):
            if forward is not None:
                raise BadValue(
                    f"{data} is an environment, whose observations are handed to the model: leave forward out"
                )
            return load_episodes(data)
    return prepare(load_data(data), config.split_seed, config.validation_size, forward)


def _task(data: Any) -> Episodes | Fitness | None:
    """Return an environment or a fitness function of the caller's; None for data."""
    from es.tasks.environments import is_environment_object
    from lottery.data.fitness import Fitness

    if isinstance(data, Fitness):
        return data
    if is_environment_object(data):
        from lottery.data.episodes import given_episodes

        return given_episodes(data)
    return Fitness(data) if isinstance(data, types.FunctionType | functools.partial) or _is_jitted(data) else None


def _is_jitted(thing: Any) -> bool:
    return callable(thing) and callable(getattr(thing, "lower", None)) and hasattr(thing, "__wrapped__")


def default_data(settings: Mapping[str, Any]) -> str | None:
    """Return the data of a search that names none: a trainer may bring its own.

    >>> default_data({}), default_data({"train": max})
    ('digits', None)
    """
    return None if NOTHING in trainer_kind(trainer_name(settings)).data else SearchConfig.data
