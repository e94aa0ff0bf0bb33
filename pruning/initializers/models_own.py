"""The starts that models bring along."""

from __future__ import annotations

import math

import numpy as np

from pruning.initializers import LeftAlone, initializer
from pruning.starts.distributions import normal
from pruning.starts.weight import Array, Weight


@initializer("model", source="the model's own definition")
def model(weight: Weight, rng: np.random.Generator) -> Array:
    """The model's own initialization, untouched."""
    del rng
    raise LeftAlone(f"{weight} keeps the model's own start")


@initializer("openlth", source="OpenLTH, models/initializers.py (github.com/facebookresearch/open_lth, 2ce732f)")
def openlth(weight: Weight, rng: np.random.Generator) -> Array:
    """PyTorch's own start, with the weights of linear and convolution layers Gaussian of variance 2 / fan_in."""
    if weight.kind not in ("linear", "convolution", "attention output"):
        raise LeftAlone(f"{weight} is no weight of a linear or convolution layer")
    return normal(rng, weight.shape) * math.sqrt(2 / (weight.inputs * weight.taps))
