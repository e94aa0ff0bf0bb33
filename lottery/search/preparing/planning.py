"""From settings, model and data to the plan of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lottery.data.parts import Parts, Tensors
from lottery.networks.sources.source import Source
from lottery.search.levels.drawing import Drawing
from lottery.search.levels.plan import Plan
from lottery.search.levels.rewind import parse_rewind
from lottery.search.preparing.held_out import held_out
from lottery.search.preparing.using import without_outputs
from lottery.settings.config import SearchConfig, ladder
from lottery.settings.fields import recorded
from lottery.state.by_seed import BySeed
from lottery.trainers import Setup
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.patterns import Pattern, check_pattern
from pruning.scopes import SCOPES
from pruning.selection import check_targets
from pruning.uses.uses import Uses

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.data.unseen import Unseen


def plan_of(
    config: SearchConfig,
    trainer_config: Any,
    drawing: Drawing,
    source: Source,
    parts: Parts | Episodes | Fitness | Unseen,
    setup: Setup,
    given: Mapping[str, Any],
    uses: Uses,
) -> Plan:
    """Return everything that decides a search.

    Args:
        config: of the search.
        trainer_config: of its trainer.
        drawing: how masks are drawn.
        source: where networks come from.
        parts: the data.
        setup: the trainer, ready.
        given: model and data as the caller gave them.
        uses: how the network uses its weights.

    Raises:
        UsageError: a schedule, a pattern or a rewind point that this network cannot have.
    """
    dense = BySeed(lambda seed: _dense_mask(config, source, seed, drawing.pattern, uses))
    sizes = dense[config.seed].counts()
    if any(dense[seed].counts() != sizes for seed in config.seeds):
        raise BadValue("the replicates were pruned to different counts before the search; it needs the same ones")
    shapes = dense[config.seed].shapes()
    check_pattern(drawing.pattern, shapes)
    targets = ladder(config, sizes, shapes, uses if SCOPES[config.scope].value.follows else None)
    for mask in dense.values():
        candidates = Mask.dense(shapes) if config.candidates == "all" else mask
        check_targets(targets, candidates, config.guard, drawing.pattern)
    resolved = {**recorded(config), **recorded(trainer_config), "model": source.name, "data": parts.name}
    for private in ("device", "checkpoint_seconds"):  # how, not what: they change no result
        resolved.pop(private, None)
    about = {
        "model": source.name,
        "data": parts.name,
        "train_examples": len(parts.train) if isinstance(parts, Parts) and isinstance(parts.train, Tensors) else None,
        "validation_examples": held_out(parts, config, trainer_config),
        "framework": source.framework,
        "layout": source.layout,
        "given": {key: value for key, value in given.items() if isinstance(value, str)},
        **source.facts(config.seed),
        "trainer": config.trainer,
        "criterion": config.criterion,
        "scope": config.scope,
        "rewind": config.rewind,
        "measure_at": config.measure_at,
        "metric": {
            "name": setup.metric.name,
            "higher_is_better": setup.metric.higher_is_better,
            "is_fraction": setup.metric.is_fraction,
        },
        "config": resolved,
    }
    return Plan(
        config=config,
        drawing=drawing,
        targets=targets,
        dense=dense,
        rewind=parse_rewind(config.rewind, setup.total_steps, setup.steps_per_epoch),
        total_steps=setup.total_steps,
        about=about,
    )


def _dense_mask(config: SearchConfig, source: Source, seed: int, pattern: Pattern, uses: Uses) -> Mask:
    """Return level 0's mask: everything, or what `torch.nn.utils.prune` had left of it."""
    shapes = source.prunable(seed, config.prunable, config.skip, uses)
    dense = Mask.dense(without_outputs(pattern, shapes, uses.outputs, config.prunable))
    already = source.initial_mask(seed)
    if already is None:
        return dense
    elsewhere = [name for name in already if name not in dense]
    if elsewhere:
        raise BadValue(
            f"{elsewhere[0]!r} was pruned by torch.nn.utils.prune and is not prunable here; name it in `prunable` "
            "or make its pruning permanent with prune.remove (where it holds a mask: with release_mask)"
        )
    return Mask({name: already.get(name, keep) for name, keep in dense.items()})
