"""How close two results are, and how close those of one computation in another order have to be."""

from __future__ import annotations

import torch

from pruning.errors import BadValue

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}
TOLERANCE |= {torch.complex128: 1e-12, torch.complex64: 1e-5}
TF32_TOLERANCE = 2e-3


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference over the largest number wanted; what is not finite there does not count.

    Raises:
        BadValue: other shapes.

    >>> relative_error(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0]))
    0.25
    """
    if found.shape != wanted.shape:
        raise BadValue(f"shape {list(found.shape)} where {list(wanted.shape)} was expected")
    if not wanted.numel():
        return 0.0
    if wanted.is_complex():
        wanted, found = torch.view_as_real(wanted.resolve_conj()), torch.view_as_real(found.resolve_conj())
    wanted, found = wanted.detach().double(), found.detach().double()
    finite = wanted.isfinite()
    if not bool(found[finite].isfinite().all()):
        return float("inf")
    scale = wanted[finite].abs().max().item() if bool(finite.any()) else 0.0
    gap = (found - wanted)[finite].abs()
    worst = gap.max().item() if gap.numel() else 0.0
    return worst / scale if scale else worst


def tolerance(outputs: torch.Tensor) -> float:
    """Return the relative error that a backend may have in this type of numbers on this device."""
    if outputs.device.type == "cuda" and outputs.dtype == torch.float32:
        tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        return TF32_TOLERANCE if tf32 else TOLERANCE[torch.float32]
    return TOLERANCE.get(outputs.dtype, 1e-2)
