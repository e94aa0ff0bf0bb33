"""What compaction gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from pruning.mask import Mask


@dataclass(frozen=True)
class LayerWidths:
    """One line of the per-layer table: how wide a layer was, and how wide it is.

    Attributes:
        name: the name of the layer, in both networks.
        inputs: columns (input channels or features) before.
        outputs: rows (output channels or features) before.
        inputs_left: columns after.
        outputs_left: rows after.
    """

    name: str
    inputs: int
    outputs: int
    inputs_left: int
    outputs_left: int


@dataclass(frozen=True)
class Compacted:
    """A smaller network that computes what the masked one does in eval mode.

    Attributes:
        module: the network, in eval mode; it shares nothing with the model that it was made of.
        mask: which of its weights stay, by its own parameter names. Weights that no output depends on are gone.
        layers: linear and convolution layers that were followed, in the order of the data.
        opaque: submodules that were left as they are, and why; `""` is the model itself.
        folded: batch norms that became part of the layer before them, by name, with that layer's name.
    """

    module: nn.Module
    mask: Mask
    layers: tuple[LayerWidths, ...]
    opaque: Mapping[str, str]
    folded: Mapping[str, str]
