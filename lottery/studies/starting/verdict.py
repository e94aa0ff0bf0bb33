"""Whether a network can train from its start: one sentence, by a rule that is fixed here."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# By how much E[z²] and E[g²] may change from the first hidden layer to the last. Measured on networks of 5 to 20 layers
# and the digits, 200 steps: those that lose a factor of 1e3 to 1e6 train by Adam (79 to 98 %); by SGD one that loses
# 3e3 trains too (97 %), and those that lose 6e4 and 1e5 do not (9, 26 %). At 3e9 and more Adam fails, too (9 to 44 %).
WEAK, LOST = 1e3, 1e7
# Above this mean squared correlation two inputs cannot be told apart, where they could before.
ALIKE, APART = 0.99, 0.95


@dataclass(frozen=True)
class LayerSignal:
    """What is known of one layer at the start; NaN for what could not be measured.

    Attributes:
        name: the name of its weight.
        forward: E[z²] of what it gives out, before its activation.
        backward: E[g²] of the outputs' gradient there.
        correlation: mean squared correlation of what two inputs make of it.
        dead: how many of its units carry nothing.
        units: how many it has.
        kept: how many of its weights the mask keeps.
    """

    name: str
    forward: float
    backward: float
    correlation: float
    dead: int
    units: int
    kept: int


@dataclass(frozen=True)
class Verdict:
    """Whether a start can train.

    Attributes:
        trainable: yes or no; None where the signal could not be followed.
        sentence: the same in words, with what to change.
    """

    trainable: bool | None
    sentence: str


def verdict(
    layers: Sequence[LayerSignal], input_correlation: float, knows_mask: bool, tried: Collection[str] = ()
) -> Verdict:
    """Return whether a network can train from its start.

    The rule: no layer is cut off; from the first hidden layer to the last, neither E[z²] nor the gradients' E[g²]
    change by a factor of 10⁷ or more; and inputs that could be told apart (mean squared correlation below 0.95) still
    can at the last hidden layer (below 0.99). SGD, whose steps are as small as the gradients, may fail from a factor of
    1,000 on: that is said. Normalization between layers is not looked at: a network that has it may train all the same.

    Args:
        layers: those that were measured, in the order of the pass; the last one makes the outputs.
        input_correlation: of the inputs themselves; NaN where that is not known.
        knows_mask: whether the weights were drawn for this mask.
        tried: the initializer and the repair that made them, which are not proposed again.

    >>> fading = [LayerSignal(f"fc{i}", 10.0**-i, 1.0, 0.1, 0, 8, 64) for i in range(6)]
    >>> print(verdict(fading, 0.1, knows_mask=False).sentence.replace(": ", ":\\n"))
    trainable by Adam, slowly or not by SGD:
    the signal fades by a factor of 1e+04 from 'fc0' to 'fc4'; try --init unit-scaled
    """
    if not layers:
        return Verdict(None, "cannot tell: no layer of this network could be followed")
    emptied = [(layer, "the mask keeps none of its weights") for layer in layers if layer.kept == 0]
    silent = [(layer, "none of its units carries anything") for layer in layers if layer.dead == layer.units]
    for layer, why in [*emptied, *silent]:
        return Verdict(
            False,
            f"not trainable: no signal passes {layer.name!r}, {why}; keep more weights there (another scope, a higher "
            "density)",
        )
    hidden = layers[:-1] or layers
    first, last = hidden[0], hidden[-1]
    advice = _advice(knows_mask, tried)
    weak = ""
    for what, start, end in (("signal", first.forward, last.forward), ("gradient", last.backward, first.backward)):
        ratio = end / start if start else math.nan
        ends = (first, last) if what == "signal" else (last, first)
        if not math.isfinite(ratio) or ratio == 0:
            return Verdict(False, f"not trainable: the {what} is lost on its way to {ends[1].name!r}; {advice}")
        if max(ratio, 1 / ratio) >= WEAK:
            how, factor = ("grows", ratio) if ratio > 1 else ("fades", 1 / ratio)
            said = f"the {what} {how} by a factor of {factor:.0e} from {ends[0].name!r} to {ends[1].name!r}; {advice}"
            if factor >= LOST:
                return Verdict(False, f"not trainable: {said}")
            weak = weak or said
    if last.correlation >= ALIKE and not input_correlation >= APART:
        return Verdict(
            False,
            f"not trainable: at {last.name!r} all inputs look alike (mean squared correlation {last.correlation:.3f}); "
            f"{_advice(True, tried)}, or an activation like tanh, which keeps them apart",
        )
    if weak:
        return Verdict(True, f"trainable by Adam, slowly or not by SGD: {weak}")
    return Verdict(True, "trainable: signals and gradients keep their size, and inputs stay apart")


def _advice(knows_mask: bool, tried: Collection[str]) -> str:
    known = {"exact-orthogonal": "--init exact-orthogonal", "isometry": "--repair isometry"}
    known = known if knows_mask else {"unit-scaled": "--init unit-scaled"}
    left = [flag for name, flag in known.items() if name not in tried]
    return f"try {', or '.join(left)}" if left else "try layers that normalize, or fewer of them"
