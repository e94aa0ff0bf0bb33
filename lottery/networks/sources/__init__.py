"""Where networks come from: a module, a callable, a name, a JAX model."""
