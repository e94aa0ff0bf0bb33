"""The computer: devices, versions, terminal, and PyTorch's settings, which are the caller's."""
