"""A population of networks that share one mask and one minibatch, evaluated together.

    population [P, D], inputs ──▶ outputs [P, …]

Equal to `jax.vmap(apply)` over densely scattered weights, up to rounding, and faster: what the members share is
computed once, removed weights cost nothing, and convolutions become matrix products. See `evaluate` in `interpreter`.
"""

from es.population.evaluation import population_outputs

__all__ = ["population_outputs"]
