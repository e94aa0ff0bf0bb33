"""Networks: their outputs, losses, gradients and operations."""
