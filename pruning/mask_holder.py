"""A mask in a training loop of one's own: held from here on, and let go at the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pruning.mask import Mask
from pruning.torch_modules import hold_mask, reapply_mask, release_mask


@dataclass(frozen=True)
class MaskHolder:
    """What holds a mask on a module (see `hold_mask`); as a context, for as long as the block runs.

    Attributes:
        model: whose removed weights are 0.
        mask: which weights those are.
    """

    model: nn.Module
    mask: Mask

    def reapply(self) -> None:
        """Set removed weights to 0 again after a write that PyTorch does not see (`weight.data`)."""
        reapply_mask(self.model)

    def release(self) -> None:
        """Let go; removed weights are 0 until somebody changes them."""
        release_mask(self.model)

    def __enter__(self) -> nn.Module:
        """Return the model, which holds its mask already."""
        return self.model

    def __exit__(self, *raised: object) -> None:
        """Let go, with removed weights at 0."""
        self.reapply()
        self.release()


def mask_holder(model: nn.Module, mask: Mask) -> MaskHolder:
    """Apply a mask now and keep it through training, in any loop and with any optimizer.

    Raises:
        MaskMismatch: names or shapes that do not fit.

    >>> layer = nn.Linear(2, 1)
    >>> with mask_holder(layer, Mask({"weight": [[1, 0]]})):
    ...     layer.weight.data += 1
    >>> layer.weight[0, 1].item()
    0.0
    """
    return MaskHolder(hold_mask(model, mask), mask)
