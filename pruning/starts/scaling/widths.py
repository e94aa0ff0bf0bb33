"""How a network compares with the one at which its numbers were chosen: wider, sparser, and where in it a weight is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pruning.errors import BadValue, shown
from pruning.starts.weight import Weight

Role = Literal["input", "hidden", "output", "table"]
"""What grows with a network's width: only the outputs of an `input` weight, both sides of a `hidden` one, only the
inputs of an `output` one; a `table` (an embedding) is looked up."""


@dataclass(frozen=True)
class Base:
    """The network at which standard deviations and learning rate were chosen, and how weights compare with it.

    Attributes:
        width: units of its hidden layers.
        density: of its weights.
        own: the width of the network that is drawn; None for the number of units of each weight by itself.
        by_density: whether a weight's density counts (SμPar) or not (μP).
        multiplied: whether the model divides its outputs by the ratio of widths by itself.
        inputs: name patterns of weights that are fed by the network's inputs, beside the first one.
        outputs: name patterns of weights that make the network's outputs, beside those found.
    """

    width: int
    density: float = 1.0
    own: int | None = None
    by_density: bool = True
    multiplied: bool = False
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()

    def role(self, weight: Weight) -> Role:
        """Return what of a weight grows with the width.

        Raises:
            BadValue: where it stands in the network is not known, and no pattern names it.
        """
        if _named(weight, self.inputs):
            return "input"
        if _named(weight, self.outputs):
            return "output"
        if weight.kind == "embedding":
            return "table"
        if weight.place is None and not (self.inputs and self.outputs):
            raise BadValue(
                f"where {weight} stands in the network was not found: name the first and the last weights, as "
                "inputs=['fc1.weight'] and outputs=['fc3.weight']; all others then count as hidden"
            )
        if weight.place is None:
            return "hidden"
        return "output" if weight.place.last else "input" if weight.place.index == 0 else "hidden"

    def wider(self, units: int, what: str) -> float:
        """Return m_d: by what the width is larger than that of the base.

        Args:
            units: of the weight that is looked at.
            what: what has that many, for messages.

        Raises:
            BadValue: neither of the two widths divides the other.

        >>> Base(64).wider(256, "inputs of 'w'"), Base(64).wider(32, "inputs of 'w'")
        (4.0, 0.5)
        >>> Base(64).wider(100, "inputs of 'w'")
        Traceback (most recent call last):
        pruning.errors.BadValue: base_width 64 does not divide the 100 inputs of 'w': use 50, or give width
        """
        width = self.own if self.own is not None else units
        if width % self.width and self.width % width:
            nearest = next(size for size in range(min(self.width, width), 0, -1) if width % size == 0)
            said = f"the width {width}" if self.own is not None else f"the {units} {what}"
            also = "" if self.own is not None else ", or give width"
            raise BadValue(f"base_width {self.width} does not divide {said}: use {nearest}{also}")
        return width / self.width

    def denser(self, density: float) -> float:
        """Return m_ρ: by what a weight is denser than those of the base; 1 where density does not count."""
        return density / self.density if self.by_density and density else 1.0


def base_of(
    rule: str,
    base_width: int | None,
    base_density: float = 1.0,
    width: int | None = None,
    output_multiplier: bool = False,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Base:
    """Return the base of a rule from its settings.

    Args:
        rule: `mup` or `smupar`.
        base_width: units of the base's hidden layers.
        base_density: density of the base.
        width: that of the network; None for every weight's own.
        output_multiplier: whether the model divides its outputs by the ratio of widths by itself.
        inputs: name patterns of weights at the network's inputs.
        outputs: name patterns of weights at its outputs.

    Raises:
        BadValue: no base width, or a number out of range.

    >>> base_of("mup", None)
    Traceback (most recent call last):
    pruning.errors.BadValue: mup needs base_width, the hidden width at which sigma and learning rate were chosen: ...
    """
    if base_width is None:
        raise BadValue(
            f"{rule} needs base_width, the hidden width at which sigma and learning rate were chosen: as "
            "--set init_params.base_width=64, or lr_rule_params.base_width for a rule of learning rates"
        )
    for name, value in (("base_width", base_width), ("width", width)):
        if value is not None and (isinstance(value, bool) or value != int(value) or value < 1):
            raise BadValue(f"{name} must be a whole number, 1 or more, not {shown(value)}")
    if not 0 < base_density <= 1:
        raise BadValue(f"base_density must be more than 0 and at most 1, not {shown(base_density)}")
    patterns = [(each,) if isinstance(each, str) else tuple(each) for each in (inputs, outputs)]
    own = None if width is None else int(width)
    return Base(int(base_width), float(base_density), own, rule == "smupar", bool(output_multiplier), *patterns)


def _named(weight: Weight, patterns: Sequence[str]) -> bool:
    return any(weight.name == pattern or fnmatchcase(weight.name, pattern) for pattern in patterns)
