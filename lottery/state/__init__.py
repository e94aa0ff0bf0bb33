"""What every room stands on: tensors by name, identities, random numbers, counts."""
