"""The settings of chance: what each seed draws, and what follows the seed of a replicate."""

from __future__ import annotations

from typing import Any

from pruning.errors import BadValue

# Beyond this lies a mistake.
_MOST = 2**32 - 1

_ANY: dict[str, Any] = {"least": 0, "most": _MOST}
_ONE: dict[str, Any] = {"default": None, **_ANY, "later": True}

SEED: dict[str, Any] = {
    "default": 0,
    "help": "Seed of the first replicate.",
    **_ANY,
    "words": ("random_state", "random_seed"),
}
SPLIT_SEED: dict[str, Any] = {
    "default": 0,
    "help": "Seed of the validation split, of a data diet, and of the episodes that policies are measured on. All "
    "replicates of a run share them, whichever call adds them.",
    **_ANY,
}
SEED_WEIGHTS: dict[str, Any] = {
    "help": "Seed of the first weights, the same for all replicates: they then differ in the rest alone. By default "
    "each replicate's own seed.",
    **_ONE,
    "words": ("init_seed", "weight_seed"),
}
SEED_MASK: dict[str, Any] = {
    "help": "Seed of what is random in a mask, the same for all replicates: criterion `random`, what a criterion's "
    "probes look at, the random masks of controls. By default each replicate's own seed. Masks that move while a "
    "network trains follow `seed_data`.",
    **_ONE,
    "words": ("mask_seed",),
}
SEED_DATA: dict[str, Any] = {
    "help": "Seed of what is random in a training, the same for all replicates: the order of the data, dropout, the "
    "perturbations of evolution. By default each replicate's own seed.",
    **_ONE,
    "words": ("data_seed", "shuffle_seed"),
}


def check_seeds(seed: int, replicates: int, weights: int | None, data: int | None) -> None:
    """Raise `BadValue` for seeds that run out, or for replicates that would be one and the same training.

    >>> check_seeds(0, 2, 3, 5)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    pruning.errors.BadValue: seed_weights and seed_data are both given, and 2 replicates would be one dense ...
    """
    if seed >= _MOST + 1 - replicates:
        raise BadValue(f"seed must be less than {_MOST + 1 - replicates}, not {seed}")
    if replicates > 1 and weights is not None and data is not None:
        raise BadValue(
            f"seed_weights and seed_data are both given, and {replicates} replicates would be one dense training: "
            "leave one of the two out, or search with replicates=1 for each pair of seeds"
        )
