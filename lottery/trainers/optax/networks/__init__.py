"""Networks, data, loss and metric, as gradient descent in JAX needs them."""
