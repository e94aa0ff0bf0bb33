"""Models of JAX people, whichever library made them."""
