"""The settings as keywords of `find_ticket`, for editors and type checkers.

Written by `python -m lottery.cli.choices.reference` from the settings themselves: change those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lottery.settings.search_keywords import SearchSettings

if TYPE_CHECKING:
    from es.config import AskTell


class Settings(SearchSettings, total=False):
    """The settings of a search and of its trainer; what is left out has its default."""

    steps: int | None
    """optax: Optimizer steps a level. By default 1,000, unless `epochs` is given. function: Steps of a whole training,
    in the loop's own unit. By default 1,000, unless `epochs` is given.
    """
    epochs: float | None
    """optax: Passes over the training part a level, instead of `steps`. For a `DataLoader` one counts as many steps as
    its `len` says, whatever it then yields. function: Passes over the training part instead. Without data an epoch
    counts as one step.
    """
    batch_size: int
    """optax: Examples a step. A `DataLoader` brings its own. es: Examples a generation; all members see the same ones.
    Where the loss or the metric depends on which examples share a batch, a `DataLoader`'s batches stay as they are: as
    many of them as hold this many examples. function: Examples a step, to count epochs. An evaluation takes eight times
    as many at once.
    """
    optimizer: str | Callable[..., Any] | Sequence[object]
    """gd: `sgd`, `adam`, `adamw`, or any other class of `torch.optim`, by name (`rmsprop`) or as it is. Or a function
    of the parameters that returns an optimizer or a list of them (`package.module:function` in a file): `lambda params:
    RMSprop(params, lr=0.01)`; one whose first parameter is called `model` gets the model. optax: An optimizer of optax,
    by name (`sgd`, `adam`, `adamw`, `lion`, …). Or a function of the learning rate's schedule that returns one
    (`package.module:function` in a file): `lambda schedule: optax.lion(schedule)`. Or a gradient transformation with a
    name for the records: `("mine", optax.chain(…))`.
    """
    optimizer_params: Mapping[str, Any]
    """gd: Settings of the optimizer's own (`betas`, `alpha`, …). What is not given is PyTorch's default. optax:
    Settings of the optimizer's own (`b1`, `eps`, …). What is not given is optax's default.
    """
    lr: float
    """Learning rate after warmup."""
    momentum: float
    """Momentum of `sgd`, or of another optimizer that has one."""
    nesterov: bool
    """Whether the momentum of `sgd` is Nesterov's."""
    weight_decay: float
    """gd: L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`. Other optimizers take it as their class says.
    optax: L2 penalty of `sgd` and `adam`, decoupled decay of `adamw`. Other optimizers take it as optax says.
    """
    accumulate: int
    """Batches whose gradients are averaged for one optimizer step; `steps` count optimizer steps."""
    clip_norm: float | None
    """Largest gradient norm, over all surviving weights. By default gradients are not clipped."""
    schedule: str | Callable[..., Any]
    """gd: `constant`, `milestones` or `cosine`; or a scheduler of PyTorch, by name (`OneCycleLR`) or as its class. Or a
    function: `lambda optimizer, steps: OneCycleLR(optimizer, 0.1, steps)`. PyTorch's are stepped after every optimizer
    step (`ReduceLROnPlateau` after every evaluation, with the validation loss). optax: `constant`, `milestones` or
    `cosine`; or a schedule of optax, by name (`warmup_cosine_decay_schedule`). Or a function of the step that returns
    the learning rate.
    """
    schedule_params: Mapping[str, Any]
    """gd: Settings of PyTorch's scheduler, counted in optimizer steps. optax: Settings of optax's schedule, counted in
    steps.
    """
    lr_factors: Mapping[str, float]
    """By what the learning rate of single tensors is multiplied, by tensor-name pattern (`fc1.weight = 0.5`). Exact
    names win.
    """
    lr_rule: str | None
    """A rule for the learning rate of every tensor, by width and density (`mup`, `smupar`) or by the paths of the
    network (`dag`), each under the level's mask: one `lr` then holds for all. `lr_factors` come on top.
    """
    lr_rule_params: Mapping[str, Any]
    """Settings of `lr_rule`, as those of the initializer of its name: `base_width`, `base_density`, `width`,
    `output_multiplier`, `inputs`, `outputs`; of `dag`, `base_paths`.
    """
    milestones: Sequence[int]
    """Steps at which the schedule `milestones` multiplies the learning rate by `gamma`."""
    gamma: float
    """The factor at each milestone."""
    warmup: int
    """Steps over which the learning rate rises linearly from 0."""
    eval_every: int | None
    """optax: Steps between evaluations. By default a twentieth of the training. es: Generations between evaluations of
    the mean. By default a twentieth of the training.
    """
    patience: int | None
    """optax: End a training after this many evaluations without a smaller validation loss, but not before the step to
    which survivors are rewound. By default it never ends early. es: End a level's evolution after this many evaluations
    without a smaller validation loss, but not before the generation to which survivors are rewound. By default it never
    ends early. Networks then evolve one after the other.
    """
    precision: str
    """gd: `float32`; `bf16` or `fp16` for autocast, `fp16` with scaled gradients. Products and convolutions, and the
    activations between them, then have 8 (`bf16`) or 11 significant bits, in training and in evaluations; weights,
    their updates and sums stay float32. A CPU gains where it multiplies bf16 itself. es: Precision of matrix products
    on a GPU: `default` (TF32) or `float32`. optax: `float32`, or `bf16` for the forward pass and its gradients; weights
    and steps stay as they are.
    """
    steps_by: str
    """What takes the steps. `auto`: of fully connected networks in float32 on the CPU, code that is compiled once for
    this machine, by its C compiler where there is one; of others, PyTorch's operations. Layers train their survivors
    alone, by such code, where measured costs say that this is faster. `pytorch`: PyTorch's operations everywhere. Both
    give the same up to rounding.
    """
    ema: float | None
    """Decay of a running average of the weights (0.999), which is then measured, scored and delivered. Rewinding goes
    back to the weights themselves. By default there is none.
    """
    label_smoothing: float
    """Label smoothing of the default cross-entropy, in training and in the validation loss; the metric stays."""
    augment: str
    """Augmentation of image batches: `none`, or `flip-crop`."""
    device: str
    """optax: Where to train: `auto`, `cpu`, `cuda` or `cuda:0`. es: Where to evolve: `auto`, `cpu`, `cuda` or `cuda:0`.
    function: Where the model is when it is handed over, and evaluated: `auto`, `cpu`, `cuda` or `cuda:0`.
    """
    max_memory: str | None
    """How much memory networks that train in one stack may take: `8GB`, `512MB`, `1.5GiB`. A stack that would take more
    is split. By default 60 % of a CUDA device's memory, and no limit on a CPU.
    """
    std: str
    """What a weight's standard deviation is taken from, where a criterion needs it: `fisher` (gradients of single
    examples at the trained weights), `adam` (its second moment; optimizers `adam` and `adamw`) or `swag` (the spread of
    the weights at the end of training). `swag` takes a weight that hardly moved for a certain one, and prunes worse
    than `magnitude` for it.
    """
    std_window: float
    """Fraction of the steps, at the end, that `swag` looks at."""
    std_examples: int
    """The most training examples that `fisher` looks at."""
    train_only: Sequence[str]
    """gd: Train these parameters only: name patterns, or the named sets `norm`, `biases` and `all-but-first`. By
    default everything. A batch norm's running statistics follow the data anyway. es: Evolve these parameters only: name
    patterns, or the named sets `norm`, `biases` and `all-but-first` (PyTorch modules only). By default everything.
    optax: Train these parameters only: name patterns, or the named sets `norm`, `biases` and `all-but-first` (PyTorch
    modules only). By default everything.
    """
    moves: str
    """How a mask moves during training: `set` or `rigl`; `none` for a mask that stays. A mask that moves keeps its
    count in every tensor; masks of one run are then not nested.
    """
    move_every: int
    """Steps between two moves."""
    move_fraction: float
    """Largest fraction of a tensor's survivors that one move exchanges."""
    move_until: float
    """Fraction of the training after which the mask stays."""
    strategy: str | Callable[..., Any] | AskTell
    """A registered name. Or an algorithm of evosax: its class, an instance for this number of weights, or a function of
    the population's size and a solution that makes one. `sigma` is its `std_init`; one that has no such parameter
    begins with a standard deviation of its own.
    """
    population: int
    """Members of a generation. An instance of a strategy brings its own."""
    generations: int | None
    """Generations a level. By default 600 on examples and 200 in environments."""
    sigma: float
    """Standard deviation of the search distribution at the start of a level. Where the strategy has a schedule for it
    (`sigma_decay`), at generation 0: a level that is rewound to generation k begins with that of k.
    """
    sigma_factors: Mapping[str, float]
    """By what `sigma` is multiplied for single tensors, by tensor-name pattern (`fc1.weight = 0.5`). Exact names win.
    For strategies with a standard deviation of every weight; networks then evolve one after the other.
    """
    mean_decay: float
    """Fraction of the mean that is taken away after every generation (the paper's weight decay)."""
    strategy_params: Mapping[str, float]
    """Hyper-parameters of the strategy, by name."""
    episodes: int
    """Episodes that every member plays in a generation (environments only)."""
    episode_steps: int | None
    """Longest episode (environments only). By default the environment's own limit."""
    test_episodes: int
    """Episodes that the mean plays for each of validation and test (environments only)."""
    checkpoint_seconds: float
    """Least time between two checkpoints of an unfinished level."""
    train: str | Callable[..., Any] | None
    """A function that trains a network: `train(model, mask, budget)` (`package.module:function` in a file). The model
    is at the rewind point and holds its mask, whatever trains it. It is trained in place, or the function returns
    another one, or a state dict. `budget` (`lottery.trainers.function.trainer.TrainingBudget`) says from which step to
    which, how many epochs that is, and the seed. A function of `(model, mask)` trains as long as it likes, and
    survivors can then not be rewound to a later step.
    """
    evaluate: str | Callable[..., Any] | None
    """A function of a network that returns one number, where there is no data that is known here. By default the metric
    is measured on the data.
    """
    higher_is_better: bool
    """Whether a higher number of `evaluate` is better."""
    is_fraction: bool
    """Whether that number is a fraction, of which 0.005 is half a percentage point."""
