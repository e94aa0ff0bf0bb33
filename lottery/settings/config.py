"""The configuration of a search: the settings of `find_ticket` and `lottery prune`, with their defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pruning.errors import BadValue, unknown
from pruning.ladder import MAX_LEVELS, Target, check_fraction
from pruning.patterns import get_pattern
from pruning.scopes import SCOPES, PrunableTensors, Schedule, place
from pruning.settings.ranges import check_ranges
from pruning.uses.uses import Uses

MEASURE_AT = ("final", "early-stop")
SCORE_AT = ("trained", "rewind")
DRAW_FROM = ("previous", "dense")
CANDIDATES = ("survivors", "all")
DIET_KEEPS = ("hard", "easy")
# The least and the most of each; beyond the most lies a mistake, which would fill the memory before it is seen.
_RANGES = {
    "levels": (0, MAX_LEVELS),
    "prune_rate": (1e-9, 1),
    "replicates": (1, 10_000),
    "seed": (0, 2**32 - 1),
    "split_seed": (0, 2**32 - 1),
    "guard": (0, 10**9),
    "score_examples": (1, 10**9),
    "score_probes": (1, 10**9),
    "score_steps": (1, 10**9),
    "score_lr": (0, 1e38),
    "score_rounds": (1, 10**6),
    "data_diet_steps": (0, 10**9),
    "data_diet_networks": (1, 10_000),
    "early_bird_window": (2, 10**6),
}


@dataclass(frozen=True)
class SearchConfig:
    """What to search for; how to train is the trainer's own configuration.

    Attributes:
        model: a registered name or `package.module:callable`; by default `mlp` for data sets, `policy` for
            environments.
        data: a registered name, a path, or an environment: `gymnax:CartPole-v1`.
        trainer: `gd` (gradient descent), `es` (evolution strategies), or `function` (a loop of your own: `train`).
        criterion: a registered name or `package.module:function`.
        score_at: which weights are scored: `trained`, or `rewind` (pruning at initialization). By default the
            criterion's own choice.
        score_rounds: in how many rounds of scoring and removing a level's mask is drawn (on an exponential schedule,
            without training between them); by default the criterion's own choice.
        score_examples: the most training examples that a criterion's probes look at.
        score_probes: products with the Hessian that each tensor may cost a criterion that looks at curvature
            (`taylor-second`): more are more exact, and slower.
        score_steps: training steps of probes that learn (learned masks).
        score_lr: their learning rate; by default the probe's own.
        data_diet: fraction of the training examples that the search learns from, or all of them where it is absent.
        data_diet_score: what chooses them (`lottery list data-scores`): `el2n` or `grand`.
        data_diet_steps: steps that the networks which score examples have trained for; by default a tenth of a
            training by gradient descent (20 of 200 epochs in the paper).
        data_diet_networks: over how many networks the scores are averaged.
        data_diet_keep: which examples stay: `hard` (the highest scores) or `easy`.
        draw_from: which level's training the next mask is drawn from: `previous` (iterative pruning) or `dense`
            (one-shot pruning: always level 0's; masks are then nested where a criterion looks at the same thing
            whatever the density, which learned masks and drawing in rounds do not).
        candidates: which weights compete for the next mask: `survivors`, or `all` (a removed weight, at its rewind
            value, may be revived; masks are then not nested).
        early_bird: for Early-Bird tickets (trainer `gd`): the largest normalised Hamming distance (0.1 in the paper)
            between the masks of the last evaluations at which a mask counts as stable. Level 0 is trained whole, and
            the next mask drawn from its weights at the first stable evaluation; later levels but the last end there.
        early_bird_window: how many masks are compared.
        scope: how scores compete (`lottery list scopes`): in one pool (`global`) or within each tensor.
        layer_densities: for scope `table`: by tensor-name pattern, the density at the last level. Exact names win;
            tensors that are not named stay dense.
        pattern: which weights are removed together (`lottery list patterns`): `unstructured`, `n-m`, `blocks`, `rows`.
            One that removes whole outputs leaves the layer that makes the network's outputs dense, unless `prunable`
            holds its weight by its own name.
        pattern_params: the pattern's sizes: `n` and `m`, or `height` and `width`.
        levels: how many times to prune; level 0 is dense.
        sparsity: prune until this sparsity instead of for a number of levels.
        densities: an explicit falling list of densities instead.
        prune_rate: fraction of the survivors that a level removes.
        layer_rates: prune rates by tensor-name pattern (scope `layer`). Without an entry of its own the layer that
            makes the outputs is pruned at half the rate, as in Frankle & Carbin (2019).
        guard: the fewest weights that every prunable tensor keeps; 0 switches the guard off.
        prunable: name patterns; where given, exactly these tensors are prunable.
        skip: name patterns of tensors that stay dense.
        init: a registered initializer, or `model` for the model's own.
        rewind: `0`, a step (`500`), an epoch (`2ep`), `lr` or `none`.
        replicates: how many seeds, counted up from `seed`.
        seed: of the first replicate.
        split_seed: of the validation split, of a data diet, and of the episodes that policies are measured on: all
            replicates of a run share them, whichever call adds them.
        validation_size: training examples (or their fraction) held out for validation; by default the data set's own.
        tolerance: how much worse than dense still counts as matching, in the metric's unit. By default one standard
            error of the dense replicates but no less than one validation example, or 0.005 with one replicate (of the
            dense value, where the metric is not a fraction).
        measure_at: which measurement decides, and which weights a ticket delivers: `final` (end of training) or
            `early-stop` (minimum validation loss).
        metric: the name of one of scikit-learn's scorers (`f1`, `balanced_accuracy`, …); by default the accuracy, or
            the squared error.
    """

    model: str | None = None
    data: str = "digits"
    trainer: str = "gd"
    criterion: str = "magnitude"
    score_at: str | None = None
    score_rounds: int | None = None
    score_examples: int = 1024
    score_probes: int = 64
    score_steps: int = 500
    score_lr: float | None = None
    data_diet: float | None = None
    data_diet_score: str = "el2n"
    data_diet_steps: int | None = None
    data_diet_networks: int = 10
    data_diet_keep: str = "hard"
    draw_from: str = "previous"
    candidates: str = "survivors"
    early_bird: float | None = None
    early_bird_window: int = 5
    scope: str = "global"
    layer_densities: Mapping[str, float] = field(default_factory=dict)
    pattern: str = "unstructured"
    pattern_params: Mapping[str, float] = field(default_factory=dict)
    levels: int = 12
    sparsity: float | None = None
    densities: tuple[float, ...] = ()
    prune_rate: float = 0.2
    layer_rates: Mapping[str, float] = field(default_factory=dict)
    guard: int = 1
    prunable: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    init: str = "model"
    rewind: str = "0"
    replicates: int = 1
    seed: int = 0
    split_seed: int = 0
    validation_size: int | float | None = None
    tolerance: float | None = None
    measure_at: str = "final"
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES.names())
        get_pattern(self.pattern, self.pattern_params)
        for name, known in (("measure_at", MEASURE_AT), ("draw_from", DRAW_FROM), ("candidates", CANDIDATES)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if self.score_at is not None and self.score_at not in SCORE_AT:
            raise unknown("score_at", self.score_at, SCORE_AT)
        if self.data_diet_keep not in DIET_KEEPS:
            raise unknown("data_diet_keep", self.data_diet_keep, DIET_KEEPS)
        if self.data_diet is not None:
            check_fraction("data_diet", self.data_diet, zero=False)
        check_fraction("prune_rate", self.prune_rate, zero=False)
        if self.sparsity is not None:
            check_fraction("sparsity", self.sparsity, zero=True)
        check_ranges(self, _RANGES)
        if self.seed >= 2**32 - self.replicates:
            raise BadValue(f"seed must be less than {2**32 - self.replicates}, not {self.seed}")
        if self.score_lr is not None and not self.score_lr > 0:
            raise BadValue(f"score_lr must be more than 0, not {self.score_lr:g}")
        size = self.validation_size
        if (isinstance(size, float) and not 0 < size < 1) or (isinstance(size, int) and size < 1):
            raise BadValue(f"validation_size must be a number of examples or a fraction of them, not {size:g}")
        if len(self.densities) > MAX_LEVELS:
            raise BadValue(f"densities are those of {MAX_LEVELS:,} levels at most, not of {len(self.densities):,}")
        if self.early_bird is not None:
            if not 0 <= self.early_bird <= 1:
                raise BadValue(f"early_bird must be a distance between 0 and 1, not {self.early_bird:g}")
            if self.trainer != "gd":
                raise BadValue("early_bird ends a training by gradient descent: leave it out, or use trainer 'gd'")
            if self.draw_from != "previous":
                raise BadValue("early_bird draws each mask from the level before it: use draw_from 'previous'")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise BadValue(f"tolerance must be 0 or more and finite, not {self.tolerance:g}")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the replicates."""
        return tuple(range(self.seed, self.seed + self.replicates))


def ladder(
    config: SearchConfig,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    uses: Uses | None = None,
) -> list[Target]:
    """Return how many weights every level keeps, level 0 first.

    Args:
        config: the search.
        sizes: weights at level 0 in each tensor, in the model's order.
        shapes: the tensors' shapes; by default vectors of these sizes.
        uses: how the network uses them; by default in their order, and the last makes the outputs.

    Raises:
        UnknownName: a name pattern that matches no tensor.
        BadValue: a level that empties a tensor or that cannot be met, or a table that the scope does not read.

    >>> config = SearchConfig(scope="layer", levels=7)
    >>> sizes = {"fc1.weight": 235_200, "fc2.weight": 30_000, "fc3.weight": 1_000}
    >>> round(sum(ladder(config, sizes)[7].values()) / 266_200, 4)
    0.2107
    """
    schedule = Schedule(
        prune_rate=config.prune_rate,
        levels=config.levels,
        sparsity=config.sparsity,
        densities=config.densities,
        guard=config.guard,
        layer_rates=config.layer_rates,
        layer_densities=config.layer_densities,
    )
    shapes = shapes or {name: (size,) for name, size in sizes.items()}
    tensors = (
        PrunableTensors(shapes, sizes, uses.order, uses.outputs) if uses is not None else PrunableTensors(shapes, sizes)
    )
    return place(config.scope, schedule, tensors)
