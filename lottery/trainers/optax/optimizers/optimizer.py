"""Optimizers: optax's by name, what the caller's function makes, or the caller's object under its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from lottery.settings.fields import is_function, spoken
from lottery.settings.functions import function_of
from lottery.trainers.optax.optimizers.named import COMMON, NamedOptimizer
from pruning.calls.users_code import one_line, users_code
from pruning.errors import BadValue, LotteryError, unknown

# Settings that an optimizer gets beside its learning rate where they are given (not 0).
_SHARED = ("momentum", "nesterov", "weight_decay")

Make = Callable[[Any], Any]


def _optimizers(module: Any) -> dict[str, Callable[..., Any]]:
    found = {name: value for name, value in vars(module).items() if inspect.isfunction(value)}
    return {
        name: value
        for name, value in found.items()
        if not name.startswith(("_", "scale_by_")) and [*inspect.signature(value).parameters][:1] == ["learning_rate"]
    }


KNOWN = {**_optimizers(optax.contrib), **_optimizers(optax)}
"""The optimizers of optax by name: functions whose first parameter is the learning rate."""


def known_name(name: str) -> str:
    """Return the name of an optimizer of optax in its one spelling; raises `UnknownName` for another one.

    >>> known_name("Lion"), known_name("rmsprop")
    ('lion', 'rmsprop')
    """
    if name.lower() not in KNOWN:
        raise unknown("optimizer", name, KNOWN, COMMON)
    return name.lower()


def name_of(function: Callable[..., Any]) -> str | Callable[..., Any]:
    """Return the name of a function of optax, and any other function as it is.

    >>> name_of(optax.lion), name_of(max)
    ('lion', <built-in function max>)
    """
    return next((name for name, known in KNOWN.items() if known is function), function)


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, made anew for the learning rate of every step: where optax has state, it has none of the rate.

    Attributes:
        make: returns the gradient transformation for a learning rate, inside the compiled step.
        total: steps of a whole training.
    """

    make: Make
    total: int

    def begin(self, params: Any, rate: Any) -> Any:
        """Return the state before the first step."""
        return _extended(self.make(rate)).init(params)

    def updates(
        self, state: Any, gradients: Any, params: Any, rate: Any, step: Any, loss: Callable[[Any], Any], value: Any
    ) -> tuple[Any, Any]:
        """Return what is added to the parameters, and the next state.

        Args:
            state: as the step before left it.
            gradients: masked.
            params: where they were taken.
            rate: the learning rate of this step.
            step: its number, counted from 0.
            loss: the loss of this step's batch as a function of the parameters, for optimizers that search along a
                line.
            value: that loss at `params`.
        """
        state = _at_step(state, jnp.minimum(step, self.total - 1))
        return _extended(self.make(rate)).update(gradients, state, params, value=value, grad=gradients, value_fn=loss)

    def evaluated(self, state: Any, params: Any) -> Any:
        """Return the parameters that are measured and delivered: a schedule-free optimizer keeps others to train at."""
        if isinstance(state, optax.contrib.ScheduleFreeState):
            return optax.contrib.schedule_free_eval_params(state, params)
        return params


def optimizer_for(config: Any, total: int) -> Optimizer:
    """Return the optimizer that a configuration names.

    Raises:
        BadValue: settings that it does not take, or a function that does not make one.

    >>> from lottery.trainers.optax.config import OptaxConfig
    >>> sgd = optimizer_for(OptaxConfig(optimizer="sgd", weight_decay=0.5), 1)
    >>> params = {"w": jnp.ones(1)}
    >>> args = (params, 0.1, 0, lambda params: 0.0, 0.0)
    >>> sgd.updates(sgd.begin(params, 0.1), {"w": jnp.zeros(1)}, *args)[0]["w"].tolist()
    [-0.05000000074505806]
    """
    optimizer = config.optimizer
    if isinstance(optimizer, NamedOptimizer):
        return Optimizer(lambda rate: optimizer.transformation, total)
    made = Optimizer(_given(optimizer) if is_function(optimizer) else _of_optax(config), total)
    if is_function(optimizer):
        with users_code("the optimizer's function", BadValue):
            found = made.make(jnp.asarray(config.lr))
        if not all(callable(getattr(found, part, None)) for part in ("init", "update")):
            raise BadValue(
                f"optimizer {spoken(optimizer)!r} must return a gradient transformation of optax, not "
                f"{type(found).__name__}"
            )
    return made


def _given(given: Any) -> Make:
    function = function_of("optimizer", given)
    takes_schedule = bool(_required(function))
    # Whatever an optimizer counts, it is asked for one rate: that of the step that is taken.
    return lambda rate: function(lambda count: rate) if takes_schedule else function()


def _required(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions in C do not say
        return ["schedule"]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def _of_optax(config: Any) -> Make:
    name, own = config.optimizer, dict(config.optimizer_params)
    function = KNOWN[name]
    accepted = inspect.signature(function).parameters
    # Nesterov's momentum of Adam is a switch of its own: it has no other momentum.
    of_ours = ("learning_rate", "weight_decay", *(("momentum", "nesterov") if "momentum" in accepted else ()))
    for key in own:
        if key in of_ours:
            raise BadValue(
                f"optimizer_params.{key}: it is a setting of its own: give it as "
                f"{'lr' if key == 'learning_rate' else key}=…"
            )
        if key not in accepted:
            raise unknown(f"setting of optimizer {name!r}", key, [k for k in accepted if k != "learning_rate"])
    penalty = config.weight_decay if name in ("sgd", "adam") else 0.0
    shared = {key: getattr(config, key) for key in _SHARED if getattr(config, key)}
    if penalty:
        del shared["weight_decay"]
    if name == "adamw":  # an optimizer that trainer `gd` has too is without decay where nothing is said
        shared["weight_decay"] = config.weight_decay
    for key in shared:
        if key not in accepted:
            raise BadValue(f"optimizer {name!r} has no {key}: leave it out")

    def make(rate: Any) -> Any:
        made = function(rate, **shared, **own)
        return optax.chain(optax.add_decayed_weights(penalty), made) if penalty else made

    try:
        make(jnp.asarray(config.lr))
    except LotteryError:
        raise
    except Exception as error:
        raise BadValue(f"optimizer {name!r} cannot be made: {one_line(error)}") from error
    return make


def _extended(transformation: Any) -> Any:
    return optax.with_extra_args_support(transformation)


def _at_step(state: Any, step: Any) -> Any:
    """Return an optimizer's state with its own schedules at a step of the training: after a rewind they go on there.

    A state that is a count and nothing else is a place in a schedule (`scale_by_schedule`, `inject_hyperparams`).
    """

    def is_place(node: Any) -> bool:
        return getattr(node, "_fields", ()) == ("count",)

    def moved(node: Any) -> Any:
        return node._replace(count=jnp.asarray(step, node.count.dtype)) if is_place(node) else node

    return jax.tree.map(moved, state, is_leaf=is_place)
