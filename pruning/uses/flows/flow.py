"""What becomes of the result of every product in one forward pass: plain data that both frameworks write.

A spot is where numbers come together: the result of a product, of a sum, of anything that moves or mixes elements. A
signal is a function, element by element, of one spot. So a function that a network is made of by hand (x · sigmoid(x))
is one curve over one spot, and is told by its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pruning.uses.flows.recognition import GRID, is_line, recognized

Curve = NDArray[np.generic]
Kind = Literal["product", "sum", "passing", "unknown"]
Meeting = Literal["sum", "product", "choice", "other"]
"""What an operation does, element by element, with values of different spots."""


@dataclass(frozen=True, eq=False)
class Spot:
    """Where numbers come together.

    Attributes:
        kind: `product` of weights and activations or of activations alone (also what ends like one: a softmax); `sum`;
            `passing` where elements are moved, normalized, pooled, shifted or scaled; `unknown` for anything else.
        names: of a product, its weights.
        before: the signals that it is made of.
        depth: how many reductions (means, norms) lie between it and its roots.
        roots: the spots that it was moved or reduced from.
    """

    kind: Kind
    names: frozenset[str] = frozenset()
    before: tuple[Signal, ...] = ()
    depth: int = 0
    roots: frozenset[Spot] = frozenset()


@dataclass(frozen=True, eq=False)
class Signal:
    """A function, element by element, of a spot.

    Attributes:
        spot: the spot.
        curve: its values on `GRID`.
        unscaled: where it is another signal times a number: that one.
    """

    spot: Spot
    curve: Curve = field(default_factory=lambda: GRID)
    unscaled: Signal | None = None

    @property
    def name(self) -> str | None:
        """The name of the function."""
        return "linear" if self.curve is GRID else recognized(self.curve)

    @property
    def constant(self) -> bool:
        """Whether it is the same number everywhere: no signal at all."""
        return self.curve is not GRID and bool((self.curve == self.curve[0]).all())

    @property
    def straight(self) -> bool:
        """Whether the function is a line."""
        return self.curve is GRID or is_line(self.curve)


class Flow:
    """The spots of one forward pass, in the order in which they came about.

    >>> flow = Flow()
    >>> hidden = flow.product({"fc"}, [flow.source()])
    >>> active = flow.elementwise("other", [hidden], lambda: np.tanh(hidden.curve))
    >>> head = flow.product({"head"}, [active])
    >>> flow.output(head)
    >>> active.name, len(flow.spots)
    ('tanh', 4)
    """

    def __init__(self) -> None:
        self.spots: list[Spot] = []

    def source(self) -> Signal:
        """Return an input of the network."""
        return self._made("passing", (), depth=0)

    def product(self, names: Iterable[str], before: Sequence[Signal]) -> Signal:
        """Return the result of a product; with no names, one of activations alone."""
        return self._made("product", before, names, depth=0)

    def passed(self, before: Sequence[Signal], reduced: bool = False) -> Signal:
        """Return what is made of signals by moving or mixing their elements; `reduced`: as a statistic of them.

        Of a value that is cut into parts, each part is a spot of its own.
        """
        return self._made("passing", before, depth=min(each.spot.depth for each in before) + reduced)

    def lost(self, before: Sequence[Signal]) -> Signal:
        """Return what an unknown operation makes."""
        return self._made("unknown", before, depth=0)

    def output(self, signal: Signal) -> None:
        """Note an output of the network."""
        self.product((), [signal])

    def elementwise(
        self,
        how: Meeting,
        signals: Sequence[Signal],
        evaluate: Callable[[], Curve] | None,
        choosing: Sequence[Signal] = (),
    ) -> Signal:
        """Return what an operation makes of signals, element by element.

        Args:
            how: what it does.
            signals: what it is given.
            evaluate: gives its result where all are their curves; None where it takes other numbers for each element
                (biases, masks).
            choosing: what only says which of the others is taken.
        """
        everything = [*choosing, *signals]
        if evaluate is not None and len({each.spot for each in everything}) == 1:
            scaled = signals[0] if how == "product" and len(signals) == 1 else None
            return Signal(everything[0].spot, evaluate(), scaled)
        if not signals or (how == "choice" and any(_related(one, other) for one in choosing for other in signals)):
            return self.lost(everything)
        if len({each.spot for each in signals}) == 1:
            alone = how in ("sum", "product", "choice")
            if how == "choice" and len(signals) == 1 and signals[0].unscaled:  # dropout: what is left is scaled up
                return self.passed([signals[0].unscaled])
            return self.passed(signals) if alone else self.lost(signals)
        if (main := _normalized(signals)) is not None:
            return self.product((), [Signal(main.spot)]) if main.name == "exp" else self.passed([main])
        match how:
            case "sum":
                return self._made("sum", signals, depth=min(each.spot.depth for each in signals))
            case "product":
                return self._made("product", signals, depth=min(each.spot.depth for each in signals))
            case "choice":
                return self.passed(signals)
            case "other":
                return self.lost(signals)

    def _made(self, kind: Kind, before: Sequence[Signal], names: Iterable[str] = (), *, depth: int) -> Signal:
        moved = depth > 0 or (kind == "passing" and all(each.straight for each in before))
        roots = (
            frozenset(root for each in before for root in (each.spot.roots or {each.spot})) if moved else frozenset()
        )
        spot = Spot(kind, frozenset(names), tuple(before), depth, roots)
        self.spots.append(spot)
        return Signal(spot)


def _related(one: Signal, other: Signal) -> bool:
    """Say whether two signals are made of the same."""
    return not (one.spot.roots or {one.spot}).isdisjoint(other.spot.roots or {other.spot})


def _normalized(signals: Sequence[Signal]) -> Signal | None:
    """Return the signal that is normalized where all others are statistics of it (its mean, its norm)."""
    least = min(each.spot.depth for each in signals)
    shallow = [each for each in signals if each.spot.depth == least]
    main = shallow[0]
    roots = main.spot.roots or {main.spot}
    deeper = all((each.spot.roots or {each.spot}) <= roots for each in signals)
    return main if deeper and all(each is main for each in shallow) else None
