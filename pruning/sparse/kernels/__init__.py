"""Triton kernels of the sparse forward and backward pass, for CUDA devices.

    panels.py              rows that share their columns, on the tensor cores; populations
    gather.py              one multiplication for each kept weight and example; linear layers
    gather_convolution.py  the same for two-dimensional convolutions

Activations are feature-major, [features, B], so that what a weight reads lies side by side. Importing any of this works
everywhere; calling it needs triton and a CUDA device, or triton's interpreter (`TRITON_INTERPRET=1`, for tests).

Every number about speed in these files is modelled from published rates of an H200 and not measured.
"""
