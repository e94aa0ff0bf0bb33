"""Run the jaxpr of one network for a whole population.

What depends on no evolved parameter is computed once; a weight stays a table of columns until an operation needs its
numbers; an operation without a rule goes through `jax.vmap`, so that every network works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from es.population.values import Members, Value, canonical, front, is_shared


@dataclass(frozen=True)
class Context:
    """What every rule may look at.

    Attributes:
        population: [P, D].
    """

    population: jax.Array

    @property
    def members(self) -> int:
        """P."""
        return self.population.shape[0]


Rule = Callable[[Context, core.JaxprEqn, Sequence[Value]], "Value | None"]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register what to do for primitives of these names; a rule returns None when it does not apply."""

    def add(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = function
        return function

    return add


def evaluate(context: Context, jaxpr: core.Jaxpr, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
    """Return the outputs of a jaxpr for these arguments, shared or not."""
    values: dict[core.Var, Value] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: core.Var | core.Literal) -> Value:
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, core.Literal) else values[atom]  # pyright: ignore[reportAttributeAccessIssue]

    for equation in jaxpr.eqns:
        results = _equation(context, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> Sequence[Value]:
    inner = called(equation)
    if all(is_shared(operand) for operand in operands):
        return bind(equation, operands)
    if inner is not None:
        return evaluate(context, inner.jaxpr, inner.consts, operands)
    if equation.primitive.name in RULES:
        result = RULES[equation.primitive.name](context, equation, operands)
        if result is not None:
            return [result]
    return _mapped(context, equation, operands)


def called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Return the jaxpr that an equation does nothing but call, if it does."""
    if equation.primitive.name in ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"):
        for key in ("jaxpr", "call_jaxpr"):
            if isinstance(equation.params.get(key), core.ClosedJaxpr):
                return equation.params[key]
    if equation.primitive.name in ("checkpoint", "remat2") and isinstance(equation.params.get("jaxpr"), core.Jaxpr):
        return core.ClosedJaxpr(equation.params["jaxpr"], ())
    return None


def bind(equation: core.JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Apply the primitive of an equation to arrays."""
    params = equation.primitive.get_bind_params(equation.params)
    # some releases of JAX give the functions that a primitive takes apart from its other parameters
    functions, params = params if isinstance(params, tuple) else ((), params)
    results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def _mapped(context: Context, equation: core.JaxprEqn, operands: Sequence[Value]) -> list[Value]:
    """The plain formulation of one equation."""
    arrays, axes = zip(*[front(operand, context.population) for operand in operands], strict=True)
    results = jax.vmap(lambda *args: bind(equation, args), in_axes=axes)(*arrays)
    return [Members(result, canonical(result.ndim - 1)) for result in results]
