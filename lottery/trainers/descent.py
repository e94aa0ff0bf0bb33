"""Settings that gradient descent has in PyTorch and in JAX alike: one name, one meaning, one default."""

from __future__ import annotations

from typing import Any

from lottery.settings.fields import spoken
from pruning.errors import BadValue, shown
from pruning.settings.setting import Declared, check_settings

# The headings of help texts.
LENGTH, OPTIMIZER, SCHEDULE, HOW = (
    "Training: length",
    "Training: optimizer",
    "Training: learning rate",
    "Training: how",
)
STD = "Standard deviations (for criterion snr)"

MANY, LARGE = 10**9, 1e38

STEPS: Declared = {
    "default": None,
    "help": "Optimizer steps a level. By default 1,000, unless `epochs` is given.",
    "least": 1,
    "most": 10**12,
    "group": LENGTH,
    "words": ("iterations", "num_steps", "max_steps", "train_steps"),
}
EPOCHS: Declared = {
    "default": None,
    "help": "Passes over the training part a level, instead of `steps`. For a `DataLoader` one counts as many steps as "
    "its `len` says, whatever it then yields.",
    "above": 0,
    "most": MANY,
    "group": LENGTH,
    "words": ("num_epochs", "max_epochs", "n_epochs"),
}
BATCH_SIZE: Declared = {
    "default": 64,
    "help": "Examples a step. A `DataLoader` brings its own.",
    "least": 1,
    "most": MANY,
    "group": LENGTH,
    "words": ("bs", "batchsize"),
}
LR: Declared = {
    "default": 2e-3,
    "help": "Learning rate after warmup.",
    "above": 0,
    "most": LARGE,
    "unless_function": "optimizer",
    "group": SCHEDULE,
    "words": ("learning_rate", "step_size"),
}
LR_FACTORS: Declared = {
    "default": {},
    "help": "By what the learning rate of single tensors is multiplied, by tensor-name pattern (`fc1.weight = 0.5`). "
    "Exact names win.",
    "unless_function": "optimizer",
    "group": SCHEDULE,
    "later": True,
}
LR_RULE: Declared = {
    "default": None,
    "help": "A rule for the learning rate of every tensor, by width and density (`mup`, `smupar`) or by the paths of "
    "the network (`dag`), each under the level's mask: one `lr` then holds for all. `lr_factors` come on top.",
    "choices": ("mup", "smupar", "dag"),
    "unless_function": "optimizer",
    "group": SCHEDULE,
    "later": True,
}
LR_RULE_PARAMS: Declared = {
    "default": {},
    "help": "Settings of `lr_rule`, as those of the initializer of its name: `base_width`, `base_density`, `width`, "
    "`output_multiplier`, `inputs`, `outputs`; of `dag`, `base_paths`.",
    "of": "lr_rule",
    "group": SCHEDULE,
    "later": True,
}
MOMENTUM: Declared = {
    "default": 0.0,
    "help": "Momentum of `sgd`, or of another optimizer that has one.",
    "least": 0,
    "below": 1,
    "unless_function": "optimizer",
    "group": OPTIMIZER,
}
NESTEROV: Declared = {
    "default": False,
    "help": "Whether the momentum of `sgd` is Nesterov's.",
    "unless_function": "optimizer",
    "group": OPTIMIZER,
}
CLIP_NORM: Declared = {
    "default": None,
    "help": "Largest gradient norm, over all surviving weights. By default gradients are not clipped.",
    "above": 0,
    "most": LARGE,
    "group": OPTIMIZER,
    "words": ("max_grad_norm", "gradient_clip_val", "grad_clip"),
}
MILESTONES: Declared = {
    "default": (),
    "help": "Steps at which the schedule `milestones` multiplies the learning rate by `gamma`.",
    "group": SCHEDULE,
}
GAMMA: Declared = {"default": 0.1, "help": "The factor at each milestone.", "above": 0, "most": 1e6, "group": SCHEDULE}
WARMUP: Declared = {
    "default": 0,
    "help": "Steps over which the learning rate rises linearly from 0.",
    "least": 0,
    "most": 10**12,
    "group": SCHEDULE,
    "words": ("warmup_steps",),
}
EVAL_EVERY: Declared = {
    "default": None,
    "help": "Steps between evaluations. By default a twentieth of the training.",
    "least": 1,
    "most": 10**12,
    "group": LENGTH,
    "words": ("eval_steps", "evaluate_every"),
}
PATIENCE: Declared = {
    "default": None,
    "help": "End a training after this many evaluations without a smaller validation loss, but not before the step to "
    "which survivors are rewound. By default it never ends early.",
    "least": 1,
    "most": MANY,
    "group": LENGTH,
    "words": ("early_stopping", "early_stopping_patience"),
    "later": True,
}
STD_EXAMPLES: Declared = {
    "default": 1024,
    "help": "The most training examples that `fisher` looks at.",
    "above": 0,
    "most": MANY,
    "group": STD,
}


def check_together(config: Any) -> None:
    """Raise `BadValue` for the first of these settings that is out of range or contradicts another one.

    Args:
        config: a configuration with the settings of this module.
    """
    check_settings(config)
    if config.steps is not None and config.epochs is not None:
        raise BadValue("give steps or epochs, not both")
    if any(milestone < 0 for milestone in config.milestones):
        raise BadValue(f"milestones are steps, 0 or more, not {shown(list(config.milestones))}")
    for pattern, factor in config.lr_factors.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < LARGE:
            raise BadValue(
                f"lr_factors: a factor is a number of more than 0, not {shown(factor)} for {pattern!r}; what is not "
                "trained at all is said by train_only"
            )
    if config.lr_rule_params and config.lr_rule is None:
        raise BadValue(f"lr_rule_params are settings of lr_rule: give one of {', '.join(LR_RULE['choices'])}")
    if config.nesterov and not config.momentum:
        raise BadValue("nesterov needs a momentum of more than 0")
    if config.schedule == "milestones" and not config.milestones:
        raise BadValue("schedule 'milestones' needs milestones: a list of steps")


def unread(config: Any) -> list[str]:
    """Return a line for each choice that does not read settings which were given beside it.

    They are no error: runs that were made with them can be opened again.

    Args:
        config: a configuration with the settings of this module.

    >>> from lottery.trainers.gd.config import GDConfig
    >>> unread(GDConfig(optimizer="adam", momentum=0.9, milestones=(5,)))
    ["optimizer 'adam' does not read momentum", "schedule 'constant' does not read milestones"]
    """
    of_optimizer = ("momentum", "nesterov") if config.optimizer in ("adam", "adamw") else ()
    of_schedule = ("milestones", "gamma") if config.schedule != "milestones" else ()
    lines: list[str] = []
    for choice, names in (("optimizer", of_optimizer), ("schedule", of_schedule)):
        given = [name for name in names if getattr(config, name) != _DEFAULTS[name]]
        if given:
            lines.append(f"{choice} {spoken(getattr(config, choice))!r} does not read {' and '.join(given)}")
    return lines


_DEFAULTS = {
    name: described["default"]
    for name, described in (
        ("momentum", MOMENTUM),
        ("nesterov", NESTEROV),
        ("milestones", MILESTONES),
        ("gamma", GAMMA),
    )
}
