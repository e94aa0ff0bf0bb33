"""A jaxpr, run over what is known of its values instead of over arrays: calls, branches and loops are gone into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jax.extend.core import Literal

Value = TypeVar("Value")


@dataclass(frozen=True)
class Rules(Generic[Value]):
    """What is known of values.

    Attributes:
        fixed: of one that no input leads to: a literal, a constant (an atom of the program).
        plain: of the results of an operation with no programs inside, from the equation and what is known of its
            operands: one value for each result, or one for all.
        sliced: of one entry of a value along its first axis.
        either: of a value that may be any of several.
    """

    fixed: Callable[[Any], Value]
    plain: Callable[[Any, list[Value]], list[Value]]
    sliced: Callable[[Value], Value]
    either: Callable[[Sequence[Value]], Value]


def run(program: Any, given: Sequence[Value], rules: Rules[Value]) -> list[Value]:
    """Return what is known of a program's results.

    Args:
        program: the jaxpr, without its constants.
        given: what is known of its inputs.
        rules: how knowledge goes through operations.

    >>> import jax
    >>> count = Rules(lambda _: 0, lambda _, taken: [1 + max(taken)], lambda value: value, max)
    >>> run(jax.make_jaxpr(jax.jit(lambda x: (2 * x + 1, x)))(1.0).jaxpr, [0], count)
    [2, 0]
    """
    known: dict[Any, Value] = dict(zip(program.invars, given, strict=True))

    def value(atom: Any) -> Value:
        return known[atom] if not isinstance(atom, Literal) and atom in known else rules.fixed(atom)

    for step in program.eqns:
        taken = [value(atom) for atom in step.invars]
        made = _inside(step, taken, rules)
        if made is None:
            made = rules.plain(step, taken)
            made = made * len(step.outvars) if len(made) == 1 else made
        known.update(zip(step.outvars, made, strict=True))
    return [value(atom) for atom in program.outvars]


def _inside(step: Any, taken: list[Value], rules: Rules[Value]) -> list[Value] | None:
    """Return the results of an operation with programs inside; None where it has none."""
    params = step.params
    match step.primitive.name:
        case "cond":
            runs = [run(branch.jaxpr, taken[1:], rules) for branch in params["branches"]]
            return [rules.either([one[index] for one in runs]) for index in range(len(step.outvars))]
        case "while":
            consts = taken[params["cond_nconsts"] :]
            fixed, carry = consts[: params["body_nconsts"]], consts[params["body_nconsts"] :]
            return _repeated(params["body_jaxpr"].jaxpr, fixed, carry, [], rules)
        case "scan":
            first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
            sliced = [rules.sliced(value) for value in taken[second:]]
            return _repeated(params["jaxpr"].jaxpr, taken[:first], taken[first:second], sliced, rules)
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    program = getattr(inner, "jaxpr", inner)
    if program is None or len(getattr(program, "invars", ())) != len(taken):
        return None
    return run(program, taken, rules)


def _repeated(
    program: Any, fixed: list[Value], carry: list[Value], sliced: list[Value], rules: Rules[Value]
) -> list[Value]:
    """Run a loop's body twice: what the first round made, the second round takes."""
    made: list[Value] = []
    for _ in range(2):
        made = run(program, [*fixed, *carry, *sliced], rules)
        carry = [rules.either(pair) for pair in zip(carry, made[: len(carry)], strict=True)]
    return [*carry, *made[len(carry) :]]
