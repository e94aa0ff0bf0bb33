"""How a network uses its tensors: found by following one forward pass, not by guessing from names or definitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pruning.uses.axes import Axes


@dataclass(frozen=True)
class Uses:
    """How a network uses its tensors.

    Attributes:
        axes: the roles of the axes of each tensor, where they are known.
        order: those that a forward pass uses, in the order of their first use; empty where it could not be followed.
        outputs: those whose layer makes the network's outputs: no other of them stands between.
        factors: those that a product multiplies with activations, where a 0 in the tensor is a 0 in the product.
        apart: of the others: what they are used for, in words. Tables are there whatever else they do (tied heads).
        work: multiplications that products with each of them took in the pass.
        total_work: those of all products; None where that is not known.
        rows: of those that are divided by norms of their own, the axes that number what has a norm each: none of these
            parts may be all 0.
        activations: the function that the result of each goes through first, element by element, by its name in
            `pruning.uses.functions.ACTIVATIONS`; `linear` where it reaches another product (attention's queries, keys
            and values do) or the outputs with none between. Shifts and scales (biases, normalization), pooling, moving
            and adding results up are looked through. Not there: where that function is none of these, where several
            uses or parts go through different ones (the gates of an LSTM that are one tensor), where it was not found.
        feeds: those whose results the input of each is made of; none for the network's own inputs.
        in_degrees: how many edges meet in the sum where the result of each goes: parallel layers count one each, and so
            does a residual connection; 1 in a plain chain. Of several uses the largest counts.
        reason: why the pass could not be followed; empty where it could.
    """

    axes: Mapping[str, Axes] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    outputs: frozenset[str] = frozenset()
    factors: frozenset[str] = frozenset()
    apart: Mapping[str, str] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    total_work: float | None = None
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    activations: Mapping[str, str] = field(default_factory=dict)
    feeds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    in_degrees: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


NOT_LOOKED_AT = Uses(reason="no batch was looked at")
TABLE = "a table that is looked up (an embedding)"
COMPUTED = "a 0 in it is no 0 in what is computed from it"
SCALES = "multiplies activations element by element"
ADDED = "added to or joined with activations"
UNUSED = "not used in a forward pass"
NOT_FOLLOWED = "the forward pass could not be followed"


@dataclass(frozen=True)
class Trace:
    """What is known of one value of a forward pass.

    Attributes:
        live: whether it depends on the network's inputs: an activation. Otherwise it is a weight, or made of weights.
        names: of an activation, the tensors that it was last multiplied with, on every path; of a weight, what it is.
    """

    live: bool = False
    names: frozenset[str] = frozenset()


NOTHING = Trace()


def joined(traces: Iterable[Trace]) -> tuple[Trace, frozenset[str]]:
    """Return the trace of what an operation makes, and the tensors that it uses on activations.

    >>> joined([Trace(True, frozenset({"fc1"})), Trace(False, frozenset({"fc2"}))])
    (Trace(live=True, names=frozenset({'fc2'})), frozenset({'fc2'}))
    """
    traces = list(traces)
    weights = frozenset[str]().union(*(trace.names for trace in traces if not trace.live))
    live = frozenset[str]().union(*(trace.names for trace in traces if trace.live))
    if not any(trace.live for trace in traces):
        return Trace(False, weights), frozenset()
    return Trace(True, weights or live), weights


def in_order(names: Iterable[str], order: Iterable[str]) -> list[str]:
    """Return names in the order of their use; those that are not used come first, as they were.

    >>> in_order(["head", "unused", "body"], ["body", "head"])
    ['unused', 'body', 'head']
    """
    place = {name: index for index, name in enumerate(order)}
    return sorted(names, key=lambda name: place.get(name, -1))
