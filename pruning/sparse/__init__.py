"""The sparse forward pass: what a mask leaves of a layer, computed without the rest."""
