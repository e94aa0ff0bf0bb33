"""Natural evolution strategies: the mean and the spread follow the natural gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import CR_FM_NES, SNES, xNES

from es.strategies import Setting, Strategy, strategy
from es.strategies._evosax import OWN, adapt, factor, matrices, nonnegative, positive, replaced
from es.strategies._ties import by_rank, mass_gain, share_weights


@strategy(
    "snes",
    source="Wierstra et al. 2014 (https://www.jmlr.org/papers/v15/wierstra14a.html)",
    distribution="separable",
    settings={"lr": positive(1.0), "lr_std_init": positive(OWN), "temperature": positive(OWN)},
)
def snes(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Separable natural evolution: one standard deviation for each weight.

    Without a `temperature` T the weights of the members are evosax's; with one they are
    softmax(-T · (rank / (P - 1) - 0.5)), as in Lange & Sprekeler 2023 (arXiv 2306.00045).
    """
    algorithm = SNES(population, jnp.zeros(dims), optimizer=optax.sgd(values["lr"]))
    params = replaced(algorithm.default_params, values, ["lr_std_init"]).replace(std_init=jnp.float32(sigma))
    if not math.isnan(values["temperature"]):
        centred = jnp.arange(population) / (population - 1) - 0.5
        params = params.replace(weights=jax.nn.softmax(-values["temperature"] * centred))
    return adapt(algorithm, params, lambda state: state.std, ties=share_weights)


@strategy(
    "xnes",
    source="Glasmachers et al. 2010; Wierstra et al. 2014 (https://www.jmlr.org/papers/v15/wierstra14a.html)",
    distribution="full",
    settings={"lr": positive(1.0), "lr_std_init": positive(OWN), "lr_B": positive(OWN)},
    # one outer product for each member and their weighted sum, B before and after
    memory=matrices(lambda population: population + 3),
    instead="'snes', its separable form",
)
def xnes(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Exponential natural evolution: a step size and a matrix.

    evosax exponentiates the matrix's update element by element, so that zeros off the diagonal stay: what it samples
    from is separable. It also starts with `sigma` in both the step size and the matrix; here the matrix starts as the
    identity, and the first standard deviation is `sigma`.
    """
    algorithm = xNES(population, jnp.zeros(dims), optimizer=optax.sgd(values["lr"]))
    params = replaced(algorithm.default_params, values, ["lr_std_init", "lr_B"]).replace(std_init=jnp.float32(sigma))
    return adapt(
        algorithm,
        params,
        # x = mean + std · z B: B multiplies a row from the right
        lambda state: state.std * jnp.linalg.norm(state.B, axis=0),
        start=lambda state: state.replace(B=jnp.eye(dims)),
        ties=share_weights,
    )


_CR_FM = {"mu_eff": Setting(OWN, low=1), "c_std": factor(OWN), "c_c": factor(OWN), "c1": Setting(OWN)}
_CR_FM |= {"chi_n": positive(OWN), "alpha_dist": nonnegative(OWN), "lr_mean": positive(1.0)}
_CR_FM |= {name: nonnegative(OWN) for name in ("lr_stag_std", "lr_conv_std", "lr_B")}
_CR_FM |= {"lr_move_std": nonnegative(1.0)}


@strategy(
    "cr-fm-nes",
    source="Nomura & Ono 2022 (arXiv 2201.11422)",
    distribution="low-rank",
    settings=_CR_FM,
    paired=True,
)
def cr_fm_nes(population: int, dims: int, sigma: float, values: Mapping[str, float]) -> Strategy:
    """Cost-reduced fast-moving natural evolution: a diagonal and one direction.

    >>> from es.strategies import get_strategy
    >>> kind = get_strategy("cr-fm-nes")
    >>> kind.make is cr_fm_nes, kind.distribution, kind.paired
    (True, 'low-rank', True)
    """
    algorithm = CR_FM_NES(population, jnp.zeros(dims))
    params = replaced(algorithm.default_params, values, _CR_FM).replace(std_init=sigma)
    # x = mean + std · D · y with cov(y) = I + v vᵀ
    return adapt(algorithm, params, lambda state: state.std * state.D * jnp.sqrt(1 + state.v**2), ties=_share_both)


def _share_both(params: Any, fitness: jax.Array) -> Any:
    """Return evosax's parameters with both kinds of weights shared among ties.

    evosax cuts the negative weights off, so that they are cut off before they are shared: the others keep their sum.
    But it also reads the ranks off the weights, so that the worse members need different negative ones.
    """
    better = by_rank(jnp.maximum(params.weights, 0), fitness)
    weights = jnp.where(better > 0, better, jnp.minimum(by_rank(params.weights, fitness), 0))
    return params.replace(
        weights=weights,
        weights_hat=by_rank(params.weights_hat, fitness),
        mu_eff=params.mu_eff * mass_gain(params.weights, weights),
    )
