"""Names of this toolkit's own modules in identities: those that the first runs used, wherever a module is now.

A run is found again by the names of what it was made with. A module that moves keeps its name here.
"""

from __future__ import annotations

FIRST_NAMES = {
    "lottery.networks.objectives.labels": "lottery.data.labels",
    "lottery.networks.objectives": "lottery",
    "lottery.networks.models": "lottery.models",
    "lottery.networks.initializers": "lottery.initializers",
    "lottery.networks.evaluation": "lottery.gd.evaluation",
    "lottery.data.datasets": "lottery.datasets",
    "lottery.data.batches": "lottery.gd.batches",
    "lottery.trainers.gd.optimizers.learning_rate": "lottery.gd.learning_rate",
    "lottery.trainers.gd.optimizers.named": "lottery.gd.optimizers",
    "lottery.trainers.gd.optimizers.rates": "lottery.gd.rates",
    "lottery.trainers.gd.augment": "lottery.gd.augment",
    "lottery.trainers.gd.loop": "lottery.gd",
    "lottery.trainers.gd.moves": "lottery.gd.moves",
    "lottery.search.data_scores": "lottery.data_scores",
    "lottery.search.probes": "lottery.probes",
    "es.translation": "es",
    "es.tasks.environments.given": "es.tasks.given_environments",
    "pruning.masks.holding": "pruning.holding",
    "pruning.copies": "pruning",
    "pruning.calls": "pruning",
}


def known_as(module: str | None) -> str:
    """Return the name under which a module stands in identities; some built-in functions say None.

    >>> known_as("lottery.networks.models.mlp"), known_as("torch.nn")
    ('lottery.models.mlp', 'torch.nn')
    """
    if module is None:
        return "None"
    now, rest = module, ""
    while now not in FIRST_NAMES:
        now, dot, last = now.rpartition(".")
        if not dot:
            return module
        rest = f".{last}{rest}"
    return f"{FIRST_NAMES[now]}{rest}"
