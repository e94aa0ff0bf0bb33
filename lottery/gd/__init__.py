"""Gradient descent: the trainer that turns a mask and weights into trained weights with PyTorch."""
