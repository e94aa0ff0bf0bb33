"""A population of networks that share one mask and one minibatch, evaluated together.

    population [P, D], inputs ──▶ outputs [P, …]

Equal to `jax.vmap(apply)` over densely scattered weights up to rounding, and faster: what the members share is computed
once, removed weights cost nothing where leaving them out pays, and convolutions become matrix products.

    evaluation     the way in: traces the network, chooses how much is evaluated at once
    interpreter    runs a jaxpr for all members; what has no rule goes through `jax.vmap`
    values         what a value can be meanwhile: shared, one for each member, or a weight not yet made into numbers
    layout, products, convolutions, pooling    the rules
    tables, cost   the structure of a mask, and what each way to use it costs
    chunks, examples    parts of the population, and of the batch where a network treats every example on its own
"""

from es.population.evaluation import population_outputs

__all__ = ["population_outputs"]
