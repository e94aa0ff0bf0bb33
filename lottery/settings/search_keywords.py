"""The settings of a search as keywords, for editors and type checkers.

Written by `python -m lottery.cli.choices.reference` from the settings themselves: change those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict


class SearchSettings(TypedDict, total=False):
    """The settings of a search; what is left out has its default."""

    trainer: str
    """A registered name, or `package.module:NAME` of a trainer of your own."""
    criterion: str | Callable[..., Any]
    """A registered name or `package.module:function`."""
    score_at: str | None
    """Which weights are scored: `trained`, or `rewind` (pruning at initialization). By default the criterion's own
    choice.
    """
    score_rounds: int | None
    """Number of rounds of scoring and removing in which a level's mask is drawn. Densities follow an exponential
    schedule, without training between rounds. By default the criterion's own choice.
    """
    score_examples: int
    """The most training examples that a criterion's probes look at."""
    score_probes: int
    """Most products with the Hessian for each tensor, for criteria that look at curvature (`taylor-second`). More are
    more exact, and slower.
    """
    score_steps: int
    """Training steps of probes that learn (learned masks)."""
    score_lr: float | None
    """Learning rate of probes that learn. By default the probe's own."""
    data_diet: float | None
    """Search on this fraction of the training examples, the hardest ones. By default on all of them."""
    data_diet_score: str
    """The score that says how hard an example is."""
    data_diet_steps: int | None
    """Steps for which the networks that score examples are trained. By default a tenth of a training by gradient
    descent (20 of 200 epochs in the paper).
    """
    data_diet_networks: int
    """Number of networks over which an example's score is averaged."""
    data_diet_keep: str
    """Which examples stay: `hard` (the highest scores) or `easy`."""
    draw_from: str
    """The level whose training the next mask is drawn from: `previous` (iterative pruning) or `dense` (one-shot
    pruning: always level 0). With `dense`, masks are nested where a criterion looks at the same thing whatever the
    density, which learned masks and drawing in rounds do not.
    """
    candidates: str
    """The weights that compete for the next mask: `survivors`, or `all`. With `all`, a removed weight may come back
    with its value at the rewind point, and masks are not nested.
    """
    early_bird: float | None
    """Largest normalised Hamming distance between the masks of the last evaluations at which a mask counts as stable
    (0.1 in the paper). Level 0 is trained whole, and the next mask drawn from its weights at the first stable
    evaluation; later levels but the last end there. By default nothing ends early.
    """
    early_bird_window: int
    """Number of masks that are compared."""
    scope: str
    """How scores compete: in one pool (`global`), within each tensor (`layer`), or by another rule."""
    layer_densities: Mapping[str, float]
    """For scope `table`: by tensor-name pattern, the density at the last level. Exact names win; tensors that are not
    named stay dense.
    """
    pattern: str
    """Which weights are removed together: single ones, `n-m`, `blocks`, `rows`. A pattern that removes whole outputs
    leaves the layer that makes the network's outputs dense, unless `prunable` holds its weight by its own name.
    """
    pattern_params: Mapping[str, float]
    """Sizes of the pattern: `n` and `m`, or `height` and `width`."""
    levels: int
    """Number of times to prune; level 0 is dense."""
    sparsity: float | None
    """Prune until this sparsity, a fraction (0.9), instead of for a number of levels."""
    densities: Sequence[float]
    """The densities of the levels, falling, instead of a number of levels."""
    prune_rate: float
    """Fraction of the survivors that a level removes."""
    layer_rates: Mapping[str, float]
    """For scope `layer`: prune rates by tensor-name pattern. Without an entry of its own the layer that makes the
    outputs is pruned at half the rate, as in Frankle & Carbin (2019).
    """
    guard: int
    """The fewest weights that every prunable tensor keeps; 0 switches the guard off."""
    prunable: Sequence[str]
    """Name patterns: exactly these tensors are prunable."""
    skip: Sequence[str]
    """Name patterns of tensors that stay dense."""
    init: str | Callable[..., Any]
    """How first weights are drawn: a registered initializer, `package.module:function`, or `model` for the model's own.
    """
    init_params: Mapping[str, Any]
    """Settings of the initializer, as `gain`."""
    redraw: bool
    """Draw the weights of every pruned level anew under its mask, by `init` and from the seed of the first weights,
    instead of rewinding them. By default a ticket's weights are those of the rewind point.
    """
    repair: str | None
    """Change the weights of every pruned level under its mask before it is trained, so that signals pass. By default
    they stay as the rewind point has them.
    """
    repair_params: Mapping[str, Any]
    """Settings of the repair, as `spread`."""
    rewind: str | int
    """Where survivors go back to: `0`, a step (`500`), an epoch (`2ep`), `lr` (trained weights, the learning rate
    rewound) or `none` (fine-tuning).
    """
    replicates: int
    """Number of seeds, counted up from `seed`."""
    seed: int
    """Seed of the first replicate."""
    split_seed: int
    """Seed of the validation split, of a data diet, and of the episodes that policies are measured on. All replicates
    of a run share them, whichever call adds them.
    """
    seed_weights: int | None
    """Seed of the first weights, the same for all replicates: they then differ in the rest alone. By default each
    replicate's own seed.
    """
    seed_mask: int | None
    """Seed of what is random in a mask, the same for all replicates: criterion `random`, what a criterion's probes look
    at, the random masks of controls. By default each replicate's own seed. Masks that move while a network trains
    follow `seed_data`.
    """
    seed_data: int | None
    """Seed of what is random in a training, the same for all replicates: the order of the data, dropout, the
    perturbations of evolution. By default each replicate's own seed.
    """
    validation_size: int | float | None
    """Training examples (or their fraction) held out for validation. By default the data set's own."""
    tolerance: float | None
    """How much worse than dense still counts as matching, in the metric's unit. By default one standard error of the
    dense replicates but no less than one validation example, or 0.005 with one replicate (of the dense value, where the
    metric is not a fraction).
    """
    measure_at: str
    """Which measurement decides, and which weights a ticket delivers: `final` (end of training) or `early-stop`
    (minimum validation loss).
    """
