"""The configuration of a search: the settings of `find_ticket` and `lottery prune`, with their defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lottery.settings import seeding, start
from pruning.errors import BadValue
from pruning.ladder import MAX_LEVELS, check_fraction
from pruning.patterns import get_pattern
from pruning.scopes import SCOPES
from pruning.settings.setting import check_settings, setting

# The headings of help texts.
SEARCH, LEVELS, MASK = "The search", "How much to prune", "Which weights are pruned"
SCORES, DIET, EARLY_BIRD = "How weights are scored", "Data diet", "Early-Bird"

# Beyond this lies a mistake, which would fill the memory before it is seen.
_MANY = 10**9


@dataclass(frozen=True)
class SearchConfig:
    """The settings of a search; how to train is the trainer's own configuration."""

    model: str | None = setting(
        None,
        "A registered name or `package.module:callable`. By default `mlp` for data sets, `policy` for environments.",
        listed="models",
        group=SEARCH,
    )
    data: str = setting(
        "digits",
        "A registered name, a folder of IDX files, an `.npz` file, or an environment: `gymnax:CartPole-v1`.",
        listed="data",
        group=SEARCH,
    )
    trainer: str = setting(
        "gd",
        "A registered name, or `package.module:NAME` of a trainer of your own.",
        listed="trainers",
        group=SEARCH,
    )
    criterion: str = setting(
        "magnitude",
        "A registered name or `package.module:function`.",
        listed="criteria",
        group=SCORES,
        takes="Callable[..., Any]",
    )
    score_at: str | None = setting(
        None,
        "Which weights are scored: `trained`, or `rewind` (pruning at initialization). By default the criterion's own "
        "choice.",
        choices=("trained", "rewind"),
        group=SCORES,
    )
    score_rounds: int | None = setting(
        None,
        "Number of rounds of scoring and removing in which a level's mask is drawn. Densities follow an exponential "
        "schedule, without training between rounds. By default the criterion's own choice.",
        least=1,
        most=10**6,
        group=SCORES,
    )
    score_examples: int = setting(
        1024, "The most training examples that a criterion's probes look at.", least=1, most=_MANY, group=SCORES
    )
    score_probes: int = setting(
        64,
        "Most products with the Hessian for each tensor, for criteria that look at curvature (`taylor-second`). More "
        "are more exact, and slower.",
        least=1,
        most=_MANY,
        group=SCORES,
    )
    score_steps: int = setting(
        500, "Training steps of probes that learn (learned masks).", least=1, most=_MANY, group=SCORES
    )
    score_lr: float | None = setting(
        None, "Learning rate of probes that learn. By default the probe's own.", above=0, most=1e38, group=SCORES
    )
    data_diet: float | None = setting(
        None,
        "Search on this fraction of the training examples, the hardest ones. By default on all of them.",
        above=0,
        below=1,
        group=DIET,
    )
    data_diet_score: str = setting(
        "el2n", "The score that says how hard an example is.", listed="data-scores", group=DIET
    )
    data_diet_steps: int | None = setting(
        None,
        "Steps for which the networks that score examples are trained. By default a tenth of a training by gradient "
        "descent (20 of 200 epochs in the paper).",
        least=0,
        most=_MANY,
        group=DIET,
    )
    data_diet_networks: int = setting(
        10, "Number of networks over which an example's score is averaged.", least=1, most=10_000, group=DIET
    )
    data_diet_keep: str = setting(
        "hard",
        "Which examples stay: `hard` (the highest scores) or `easy`.",
        choices=("hard", "easy"),
        group=DIET,
    )
    draw_from: str = setting(
        "previous",
        "The level whose training the next mask is drawn from: `previous` (iterative pruning) or `dense` (one-shot "
        "pruning: always level 0). With `dense`, masks are nested where a criterion looks at the same thing whatever "
        "the density, which learned masks and drawing in rounds do not.",
        choices=("previous", "dense"),
        group=SCORES,
    )
    candidates: str = setting(
        "survivors",
        "The weights that compete for the next mask: `survivors`, or `all`. With `all`, a removed weight may come back "
        "with its value at the rewind point, and masks are not nested.",
        choices=("survivors", "all"),
        group=SCORES,
    )
    early_bird: float | None = setting(
        None,
        "Largest normalised Hamming distance between the masks of the last evaluations at which a mask counts as "
        "stable (0.1 in the paper). Level 0 is trained whole, and the next mask drawn from its weights at the first "
        "stable evaluation; later levels but the last end there. By default nothing ends early.",
        least=0,
        most=1,
        noun="a distance",
        group=EARLY_BIRD,
    )
    early_bird_window: int = setting(5, "Number of masks that are compared.", least=2, most=10**6, group=EARLY_BIRD)
    scope: str = setting(
        "global",
        "How scores compete: in one pool (`global`), within each tensor (`layer`), or by another rule.",
        choices=SCOPES.names,
        listed="scopes",
        group=MASK,
    )
    layer_densities: Mapping[str, float] = setting(
        {},
        "For scope `table`: by tensor-name pattern, the density at the last level. Exact names win; tensors that are "
        "not named stay dense.",
        group=LEVELS,
    )
    pattern: str = setting(
        "unstructured",
        "Which weights are removed together: single ones, `n-m`, `blocks`, `rows`. A pattern that removes whole "
        "outputs leaves the layer that makes the network's outputs dense, unless `prunable` holds its weight by its "
        "own name.",
        listed="patterns",
        group=MASK,
    )
    pattern_params: Mapping[str, float] = setting(
        {}, "Sizes of the pattern: `n` and `m`, or `height` and `width`.", of="pattern", group=MASK
    )
    levels: int = setting(12, "Number of times to prune; level 0 is dense.", least=0, most=MAX_LEVELS, group=LEVELS)
    sparsity: float | None = setting(
        None,
        "Prune until this sparsity, a fraction (0.9), instead of for a number of levels.",
        least=0,
        below=1,
        group=LEVELS,
        words=("target_sparsity", "final_sparsity", "amount"),
    )
    densities: tuple[float, ...] = setting(
        (), "The densities of the levels, falling, instead of a number of levels.", group=LEVELS, words=("density",)
    )
    prune_rate: float = setting(
        0.2,
        "Fraction of the survivors that a level removes.",
        above=0,
        below=1,
        group=LEVELS,
        words=("pruning_rate", "prune_fraction", "rate"),
    )
    layer_rates: Mapping[str, float] = setting(
        {},
        "For scope `layer`: prune rates by tensor-name pattern. Without an entry of its own the layer that makes the "
        "outputs is pruned at half the rate, as in Frankle & Carbin (2019).",
        group=LEVELS,
    )
    guard: int = setting(
        1,
        "The fewest weights that every prunable tensor keeps; 0 switches the guard off.",
        least=0,
        most=_MANY,
        group=MASK,
    )
    prunable: tuple[str, ...] = setting((), "Name patterns: exactly these tensors are prunable.", group=MASK)
    skip: tuple[str, ...] = setting(
        (), "Name patterns of tensors that stay dense.", group=MASK, words=("exclude", "ignore")
    )
    init: str | Callable[..., Any] = setting(**start.INIT)
    init_params: Mapping[str, Any] = setting(**start.INIT_PARAMS)
    redraw: bool = setting(**start.REDRAW)
    repair: str | None = setting(**start.REPAIR)
    repair_params: Mapping[str, Any] = setting(**start.REPAIR_PARAMS)
    rewind: str = setting(**start.REWIND)
    replicates: int = setting(
        1,
        "Number of seeds, counted up from `seed`.",
        least=1,
        most=10_000,
        group=SEARCH,
        words=("seeds", "repeats", "n_seeds", "trials"),
    )
    seed: int = setting(**seeding.SEED, group=SEARCH)
    split_seed: int = setting(**seeding.SPLIT_SEED, group=SEARCH)
    seed_weights: int | None = setting(**seeding.SEED_WEIGHTS, group=SEARCH)
    seed_mask: int | None = setting(**seeding.SEED_MASK, group=SEARCH)
    seed_data: int | None = setting(**seeding.SEED_DATA, group=SEARCH)
    validation_size: int | float | None = setting(
        None,
        "Training examples (or their fraction) held out for validation. By default the data set's own.",
        group=SEARCH,
        words=("val_size", "validation_split"),
    )
    tolerance: float | None = setting(
        None,
        "How much worse than dense still counts as matching, in the metric's unit. By default one standard error of "
        "the dense replicates but no less than one validation example, or 0.005 with one replicate (of the dense "
        "value, where the metric is not a fraction).",
        least=0,
        group=SEARCH,
        words=("tol",),
    )
    measure_at: str = setting(
        "final",
        "Which measurement decides, and which weights a ticket delivers: `final` (end of training) or `early-stop` "
        "(minimum validation loss).",
        choices=("final", "early-stop"),
        group=SEARCH,
    )
    metric: str | None = setting(
        None,
        "Name of one of scikit-learn's scorers (`f1`, `balanced_accuracy`, …). By default the accuracy, or the squared "
        "error.",
        group=SEARCH,
        takes="GivenMetric",
    )

    def __post_init__(self) -> None:
        get_pattern(self.pattern, self.pattern_params)
        if self.data_diet is not None:
            check_fraction("data_diet", self.data_diet, zero=False)
        check_fraction("prune_rate", self.prune_rate, zero=False)
        if self.sparsity is not None:
            check_fraction("sparsity", self.sparsity, zero=True)
        check_settings(self)
        seeding.check_seeds(self.seed, self.replicates, self.seed_weights, self.seed_data)
        size = self.validation_size
        if (isinstance(size, float) and not 0 < size < 1) or (isinstance(size, int) and size < 1):
            raise BadValue(f"validation_size must be a number of examples or a fraction of them, not {size:g}")
        if len(self.densities) > MAX_LEVELS:
            raise BadValue(f"densities are those of {MAX_LEVELS:,} levels at most, not of {len(self.densities):,}")
        if self.early_bird is not None and self.draw_from != "previous":
            raise BadValue("early_bird draws each mask from the level before it: use draw_from 'previous'")
        start.check_start(self.init, self.rewind, redraw=self.redraw)
        if self.tolerance == math.inf:
            raise BadValue("tolerance must be 0 or more and finite, not inf")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the replicates."""
        return tuple(range(self.seed, self.seed + self.replicates))
