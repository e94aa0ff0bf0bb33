"""What a network's start says of its training: signals forward and backward, layer by layer."""
