"""Which networks a caller means: a module, a JAX model, a callable, a registered name or `package.module:callable`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from es.jax_models.kinds import is_jax_model, needs_example
from lottery.data.parts import Parts
from lottery.networks.models import MODELS
from lottery.networks.sources.following import follow
from lottery.networks.sources.initializing import Init
from lottery.networks.sources.source import Make, ModelSource, Source, require_torch
from lottery.state.machine.callers_settings import staying_here
from lottery.state.randomness import seeded_everywhere
from pruning.calls.users_code import users_code
from pruning.errors import BadValue
from pruning.initializers import Initializer, get_initializer
from pruning.registry import import_by_path

if TYPE_CHECKING:
    from lottery.data.episodes import Episodes
    from lottery.data.fitness import Fitness
    from lottery.data.unseen import Unseen

    Given = Parts | Episodes | Fitness | Unseen

# This many examples are shown to a model that makes its weights when it first sees some.
FEW = 8


def model_source(model: Any, parts: Given, init: str | Initializer = "model") -> Source:
    """Return a source for a module, a JAX model, a callable, a registered name or `package.module:callable`.

    Args:
        model: what the caller handed over; None for the data's own default. A JAX model is any of
            `es.jax_models.kinds`. A callable that has a parameter `seed`, or exactly one parameter without a default,
            is given the seed (as a key of JAX where the parameter is called `key`, as `nnx.Rngs` where it is called
            `rngs`); one that needs `shape` and `outputs` is given the data's; any other is called without arguments.
        parts: the data, which sizes a named model.
        init: how its weights are drawn: an initializer or the name of one; `model` leaves them.

    Raises:
        UnknownName: a name that is not registered, or a path that cannot be imported.
        BadValue: something that is not a model.
    """
    source = _bare_source(model, parts)
    drawn = init_for(source, parts, init)
    return source.with_init(drawn) if drawn.changes else source


def init_for(source: Source, parts: Given, init: str | Initializer) -> Init:
    """Return how an initializer draws the networks of a source, by what a few training examples show of them."""
    scheme = get_initializer(init) if isinstance(init, str) else init
    return Init(scheme, functools.cache(lambda: follow(source, parts, 0)))


def _bare_source(model: Any, parts: Given) -> Source:
    model = parts.default_model if model is None else model
    if model is None:
        raise BadValue(f"say which model {parts.name} is for: parameters, a pair (params, apply) or a JAX module")
    if isinstance(model, str) and ":" in model:
        with users_code(f"importing the model {model!r}"):
            thing, name = import_by_path(model, "model"), model
    else:
        thing, name = model, getattr(model, "__name__", type(model).__name__)
    if isinstance(thing, nn.Module):
        module, name = thing, type(thing).__name__
        return ModelSource(name, lambda seed: module, varies=False)
    if isinstance(thing, str):
        return _sized_source(thing, MODELS[thing].value, parts)
    if is_jax_model(thing):
        name = "jax" if isinstance(thing, tuple | list | Mapping) else type(thing).__name__
        return _jax_source(name, lambda seed: thing, parts, varies=needs_example(thing))
    if not callable(thing):
        raise BadValue(f"model: expected a torch.nn.Module, a callable or a name, not {type(model).__name__}")
    if takes_sizes(thing):
        return _sized_source(name, thing, parts)
    make = seeded_maker(thing)
    with staying_here(), seeded_everywhere(0), users_code(f"the model {name!r}"):
        in_jax = is_jax_model(make(0))
    if in_jax:
        return _jax_source(name, make, parts, varies=True)
    return ModelSource(name, make, varies=True)


def torch_source(model: Any, parts: Given, init: str | Initializer = "model") -> ModelSource:
    """As `model_source`, for PyTorch only; raises `BadValue` for a JAX model."""
    return require_torch(model_source(model, parts, init), "this benchmark runs", "name a PyTorch model")


def _jax_source(name: str, make: Make, parts: Given, varies: bool) -> Source:
    from lottery.networks.sources.jax import JaxSource

    return JaxSource(name, make, varies, lambda: parts.few(FEW))


def _sized_source(name: str, build: Callable[..., Any], parts: Given) -> ModelSource:
    sizes = parts.input_shape, parts.outputs
    return ModelSource(name, lambda seed: build(*sizes), varies=True, sizes=sizes)


def takes_sizes(function: Callable[..., Any]) -> bool:
    """Say whether a maker is called with the shape of one example and the number of outputs.

    >>> takes_sizes(lambda shape, outputs: None), takes_sizes(lambda seed: None)
    (True, False)
    """
    return _required(function) == ["shape", "outputs"]


def seeded_maker(function: Callable[..., Any]) -> Make:
    """Return a function of a seed that calls `function` with it, if it takes one; raises `BadValue` for other needs.

    >>> seeded_maker(lambda seed: seed + 1)(41), seeded_maker(lambda: "the same")(41)
    (42, 'the same')
    """
    if "seed" in _parameters(function):
        return lambda seed: function(seed=seed)
    required = _required(function)
    if required == ["key"] or required == ["rngs"]:
        return lambda seed: function(**{required[0]: _streams(seed, required[0])})
    if len(required) == 1:
        return lambda seed: function(**{required[0]: seed}) if _keyword_only(function, required[0]) else function(seed)
    if required:
        raise BadValue(
            f"model {getattr(function, '__name__', function)!r} needs the arguments {', '.join(required)}; "
            "give one that takes a seed, nothing, or (shape, outputs)"
        )
    return lambda seed: function()


def _streams(seed: int, called: str) -> Any:
    """Return the random key under the name that the model takes: `key`, or `rngs`."""
    if called == "key":
        import jax

        return jax.random.key(seed)
    from flax import nnx

    return nnx.Rngs(seed)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
        if isinstance(function, type) and not _named(parameters):  # nnx: its metaclass takes anything
            return dict(list(inspect.signature(function.__init__).parameters.items())[1:])
        return parameters
    except (TypeError, ValueError) as error:  # some that are written in C do not say
        shown = getattr(function, "__name__", type(function).__name__)
        raise BadValue(f"model {shown!r} does not say which arguments it takes; wrap it in a function") from error


def _keyword_only(function: Callable[..., Any], name: str) -> bool:
    return _parameters(function)[name].kind is inspect.Parameter.KEYWORD_ONLY


def _required(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that have no default."""
    return [p.name for p in _named(_parameters(function)) if p.default is p.empty]


def _named(parameters: Mapping[str, inspect.Parameter]) -> list[inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in parameters.values() if p.kind not in variadic]
