"""Learning rates tensor by tensor: factors that keep one rate right while a network grows wider, sparser or deeper."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pruning.errors import BadValue, unknown
from pruning.starts.scaling.graph import path_sum
from pruning.starts.scaling.widths import Base, base_of
from pruning.starts.tensor import Tensor

RULES = ("mup", "smupar", "dag")
"""The rules by name."""

_KINDS = {"sgd": "sgd", "adam": "adam", "adamw": "adam"}


def learning_rate_factors(
    rule: str,
    tensors: Sequence[Tensor],
    optimizer: str,
    settings: Mapping[str, Any] | None = None,
    vectors: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Return by what the learning rate of each tensor is multiplied, by name.

    `mup` and `smupar`, with m_d the ratio of widths and m_ρ that of densities (1 in `mup`), to a base network at which
    the learning rate was chosen:

    | tensor                    | Adam         | SGD          |
    |---------------------------|--------------|--------------|
    | hidden weight             | 1/(m_d m_ρ)  | 1/m_ρ        |
    | input weight              | 1/m_ρ        | m_d/m_ρ      |
    | output weight             | 1/(m_d m_ρ)  | 1/(m_d m_ρ)  |
    | the same, `multiplied`    | 1/m_ρ        | m_d/m_ρ      |
    | table (embedding)         | 1            | m_d          |
    | bias, norm (`vectors`)    | 1            | m_d; 1 at the output |

    Those of Adam for hidden weights, tables and vectors are table 1 of Dey et al. 2024; the columns at m_ρ = 1 are
    tables 3 and 8 (`multiplied`: the model divides its outputs by m_d) of Yang et al. 2022, and what microsoft/mup
    does. m_ρ in input and output weights, which table 1 has dense, and in the whole column of SGD is derived here:
    Adam moves every weight by about η, so that a sum over m_ρ times as many moves needs η/m_ρ; the gradient of a
    weight does not shrink with the density around it, so that SGD needs the same. Where the output weight itself is
    sparse, gradients below it change a little with its density, which these rules do not correct.

    `dag`: one factor for the whole network, (Σ_p L_p³ / base_paths)^(−1/2) over its paths p of L_p weights, and 1/q
    for a kernel of q taps along each axis (Chen et al. 2024, equation 9). Paths through a tensor that the mask empties
    do not count. base_paths is that sum where the learning rate was chosen: L³ for a chain of L weights. Vectors have
    the factor of the network.

    Args:
        rule: `mup`, `smupar` or `dag`.
        tensors: the weights, under their masks.
        optimizer: `sgd`, `adam` or `adamw`; `dag` does not look at it.
        settings: `base_width` (needed), `base_density`, `width`, `output_multiplier`, `inputs` and `outputs`, as those
            of the initializers of these names; for `dag` `base_paths` (1 by default).
        vectors: the lengths of other trained parameters, by name.

    Raises:
        UnknownName: another rule, or a setting that it does not have.
        BadValue: a base width that is missing or does not divide, another optimizer, no path from inputs to outputs.

    >>> import numpy as np
    >>> from pruning.starts.tensor import Layout
    >>> from pruning.starts.weight import Place
    >>> keep = np.arange(128 * 128).reshape(128, 128) % 4 == 0
    >>> hidden = Tensor("fc2.weight", keep, Layout(keep.shape, (), (0,), (1,)), place=Place(1))
    >>> learning_rate_factors("smupar", [hidden], "adam", {"base_width": 64})
    {'fc2.weight': 2.0}
    """
    if rule not in RULES:
        raise unknown("rule of learning rates", rule, RULES)
    known = list(inspect.signature(_by_paths if rule == "dag" else base_of).parameters)
    known = [
        name for name in known if name not in ("rule", "tensors", "vectors", *(["base_density"] * (rule == "mup")))
    ]
    settings, vectors = dict(settings or {}), dict(vectors or {})
    for name in settings:
        if name not in known:
            raise unknown(f"setting of {rule}", name, known)
    if rule == "dag":
        return _by_paths(tensors, vectors, **settings)
    base = base_of(rule, **{"base_width": None, **settings})
    if optimizer not in _KINDS:
        raise BadValue(f"{rule} has rules for the optimizers {', '.join(_KINDS)}, not for {optimizer!r}")
    adaptive = _KINDS[optimizer] == "adam"
    found = {tensor.name: _of_weight(tensor, base, adaptive) for tensor in tensors}
    at_output = {_layer(tensor.name) for tensor in tensors if base.role(tensor.weights()[0]) == "output"}
    for name, units in vectors.items():
        plain = adaptive or _layer(name) in at_output
        found[name] = 1.0 if plain else base.wider(units, f"entries of {name!r}")
    return found


def _of_weight(tensor: Tensor, base: Base, adaptive: bool) -> float:
    weight = tensor.weights()[0]
    role = base.role(weight)
    denser = base.denser(float(tensor.keep.mean()))
    if role in ("input", "table"):
        wider = 1.0 if adaptive else base.wider(weight.outputs, f"outputs of {weight}")
        return wider / (denser if role == "input" else 1.0)
    wider = base.wider(weight.inputs, f"inputs of {weight}")
    if role == "hidden":
        return 1 / (wider * denser) if adaptive else 1 / denser
    if base.multiplied:
        return 1 / denser if adaptive else wider / denser
    return 1 / (wider * denser)


def _by_paths(tensors: Sequence[Tensor], vectors: Mapping[str, int], base_paths: float = 1.0) -> dict[str, float]:
    if not base_paths > 0:
        raise BadValue(f"base_paths must be more than 0, not {base_paths!r}: L³ for a chain of L weights")
    factor = 1 / math.sqrt(path_sum(tensors) / base_paths)
    factors = {tensor.name: factor / _kernel(tensor) for tensor in tensors}
    return {**factors, **dict.fromkeys(vectors, factor)}


def _kernel(tensor: Tensor) -> float:
    """Return the taps of a kernel along one axis, their geometric mean where axes differ."""
    weight = tensor.weights()[0]
    axes = len(weight.shape) - 2
    return weight.taps ** (1 / axes) if axes else 1.0


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
