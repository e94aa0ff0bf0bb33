"""A network and what is asked of it: outputs, losses, gradients, operations."""
