"""How a network uses its tensors: what multiplies what, found by following a forward pass."""
