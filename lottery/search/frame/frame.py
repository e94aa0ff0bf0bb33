"""The model, the data and the trainer of a search: made once; the search and every study of it start from them.

model, data, loss, metric, settings ─▶ frame ─▶ search, control, instability, transfer, connection, analysis
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lottery.data.parts import Parts, Tensors
from lottery.networks.sources.choosing import model_source
from lottery.networks.sources.redrawing import check_initializer, warn_left, warn_same_replicates
from lottery.networks.sources.source import ModelSource, Source, Start
from lottery.runs.given import Given
from lottery.search.frame.beginning import scheme_of
from lottery.search.frame.coverage import coverage, warn_not_covered
from lottery.search.frame.diet import with_data_diet
from lottery.search.frame.facts import Facts
from lottery.search.frame.fitting import check_fits
from lottery.search.frame.held_out import held_out
from lottery.search.frame.resolving import parts_of, resolve
from lottery.search.frame.rewind import Rewind, parse_rewind
from lottery.search.frame.seeds import weights_seed
from lottery.search.frame.using import uses_for, without_outputs
from lottery.settings.config import SearchConfig
from lottery.settings.fields import recorded
from lottery.state.by_seed import BySeed
from lottery.trainers import Ask, Setup
from lottery.trainers.choosing import trainer_kind
from pruning.alive_rows import Rows
from pruning.errors import BadValue
from pruning.jobs import Params
from pruning.mask import Mask
from pruning.patterns import Pattern, check_pattern, get_pattern
from pruning.uses.uses import Uses
from pruning.watch import Watch

if TYPE_CHECKING:
    from lottery.runs.ticket import Ticket


@dataclass(frozen=True)
class Frame:
    """The model, the data and the trainer of a search; nothing here depends on how weights are scored.

    Attributes:
        config: settings of the search.
        ask: model, data, loss and metric, as the trainer was given them.
        setup: the trainer, and what it measures.
        uses: how the network uses its tensors.
        pattern: which weights stay or go together, on the network's axes.
        dense: the mask of level 0, by replicate seed.
        initial: initial weights by replicate seed; made when they are asked for.
        rewind: where survivors go back to.
        facts: the facts that every ticket records.
    """

    config: SearchConfig
    ask: Ask
    setup: Setup
    uses: Uses
    pattern: Pattern
    dense: Mapping[int, Mask]
    initial: Mapping[int, Params]
    rewind: Rewind
    facts: Facts

    @property
    def name(self) -> str:
        """The readable part of a run's name."""
        return f"{self.facts.data}-{self.facts.model}-{self.config.trainer}-{self.config.criterion}"

    @property
    def rows(self) -> Rows:
        """Of tensors whose rows must not be emptied, the axes that number them; none where the guard is off."""
        return self.uses.rows if self.config.guard else {}

    @property
    def test_examples(self) -> int | None:
        """Size of the test part, where known."""
        parts = self.ask.parts
        return len(parts.test) if isinstance(parts, Parts) and isinstance(parts.test, Tensors) else None


def frame_of(given: Given, settings: Mapping[str, Any], watch: Watch, ticket: Ticket | None = None) -> Frame:
    """Resolve and check model, data and trainer; nothing is written, and only a data diet trains anything.

    Args:
        given: model, data, loss, metric.
        settings: flat settings of a search and of its trainer.
        watch: receives the trainer's progress.
        ticket: where training begins, instead of at the model's own initialization.

    Raises:
        UsageError: something of it is wrong.
    """
    config, trainer_config = resolve(settings)
    source, ask = _asked(given, config, trainer_config, watch, ticket)
    first = weights_seed(config, config.seed)
    setup = trainer_kind(config.trainer).setup(ask)
    uses = uses_for(ask, config)
    warn_not_covered(ask, config, source.prunable(first, config.prunable, (), uses), uses)
    pattern = get_pattern(config.pattern, config.pattern_params).on(uses.axes)
    dense = BySeed(lambda seed: _dense_mask(config, source, weights_seed(config, seed), pattern, uses))
    sizes = dense[config.seed].counts()
    if any(dense[seed].counts() != sizes for seed in config.seeds):
        raise BadValue("the replicates were pruned to different counts before the search; it needs the same ones")
    check_pattern(pattern, dense[config.seed].shapes())
    rewind = parse_rewind(config.rewind, setup.total_steps, setup.steps_per_epoch)
    if setup.late_start is not None and (rewind.to_step or rewind.start):
        raise BadValue(setup.late_start)
    initial = BySeed(lambda seed: source.initial_state(weights_seed(config, seed)))
    check_initializer(source, source.init.scheme.name, first, dense[config.seed])
    if ticket is None and source.init.changes and not source.init.first:
        left = source.drawn(first, dense[config.seed], source.init).left
        warn_left(left, dense[config.seed], source.init.scheme.name)
    if ticket is None and config.seed_weights is None:
        warn_same_replicates({seed: initial[seed] for seed in config.seeds}, dense[config.seed])
    facts = _facts(given, config, ask, setup, dense[config.seed], uses)
    return Frame(config, ask, setup, uses, pattern, dense, initial, rewind, facts)


def _asked(
    given: Given, config: SearchConfig, trainer_config: Any, watch: Watch, ticket: Ticket | None
) -> tuple[Source, Ask]:
    """Return where networks come from, and what the trainer is given."""
    parts = parts_of(given.data, config, given.forward)
    source = model_source(given.model, parts, scheme_of(config))
    if ticket is not None:
        source = source.starting_at(Start(ticket.params, ticket.mask))
    if given.forward is not None and not isinstance(source, ModelSource):
        raise BadValue(
            "forward calls PyTorch modules, and this model is in JAX: let its `apply` take the batch, as "
            "(params, lambda params, batch: …)"
        )
    if config.replicates > 1 and not source.varies:
        raise BadValue(
            f"{config.replicates} replicates need a callable that makes the model from a seed; "
            "a module instance has one initialization only"
        )
    if config.seed_weights is not None and not source.varies:
        raise BadValue(
            f"seed_weights draws the weights of a model, and {source.name!r} has one initialization only: give a "
            "callable that makes it from a seed, or init=… (lottery list initializers)"
        )
    metric = config.metric if given.metric is None else given.metric
    ask = Ask(source, parts, trainer_config, given.loss, metric, watch, config.seed, config.split_seed)
    kind = trainer_kind(config.trainer)
    check_fits(config.trainer, kind, ask)
    return source, with_data_diet(kind.prepared(ask), config)


def _facts(given: Given, config: SearchConfig, ask: Ask, setup: Setup, dense: Mask, uses: Uses) -> Facts:
    source, parts = ask.source, ask.parts
    silent = trainer_kind(config.trainer).no_result
    settings = {**recorded(config), **recorded(ask.config), "model": source.name, "data": parts.name}
    model = parts.default_model if given.model is None else given.model  # one without a length is not false
    named = {"model": model, "data": given.data}
    return Facts(
        model=source.name,
        data=parts.name,
        train_examples=len(parts.train) if isinstance(parts, Parts) and isinstance(parts.train, Tensors) else None,
        validation_examples=held_out(parts, config, setup.episodes),
        framework=source.framework,
        layout=source.layout,
        given={key: value for key, value in named.items() if isinstance(value, str)},
        source=source.facts(weights_seed(config, config.seed)),
        trainer=config.trainer,
        criterion=config.criterion,
        scope=config.scope,
        rewind=config.rewind,
        measure_at=config.measure_at,
        metric=setup.metric,
        config={key: value for key, value in settings.items() if key not in silent},
        coverage=coverage(ask, list(dense), uses),
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
