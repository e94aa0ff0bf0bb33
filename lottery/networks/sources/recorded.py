"""The model of a stored ticket, made again by its name.

A ticket is data: of the names that it stores only those of the registry are followed. A `package.module:callable` is
imported where the caller names it, and never because a file does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from es.jax_models.kinds import is_jax_model
from lottery.networks.models import MODELS, Build
from lottery.networks.sources.choosing import seeded_maker, takes_sizes
from lottery.networks.sources.source import Make, Sizes
from lottery.state.randomness import seeded_everywhere
from pruning.calls.users_code import users_code
from pruning.errors import BadValue, LotteryError, MaskMismatch, UsageError
from pruning.jobs import Params
from pruning.registry import import_by_path

_LARGEST_IMAGE = 256


def maker_of(model: Any, info: Mapping[str, Any], params: Params) -> Make:
    """Return a function of a seed that makes the network of a ticket.

    Args:
        model: a module, a JAX model or a callable; the name of a registered model or `package.module:callable`; None
            for the registered model that the ticket was found in.
        info: the ticket's record.
        params: the ticket's tensors, which the network of a registered model fits.

    Raises:
        UsageError: no model, and the record names none that is registered.
        UnknownName: a name that is not registered, or a path that cannot be imported.
        MaskMismatch: a registered model that has other tensors than the ticket.
    """
    if model is None:
        model = _recorded_name(info)
    if isinstance(model, str) and ":" in model:
        with users_code(f"importing the model {model!r}"):
            model = import_by_path(model, "model")
    if isinstance(model, nn.Module) or is_jax_model(model):
        return lambda seed: model
    if isinstance(model, str):
        return _sized(MODELS[model].value, _sizes_of(model, info, params))
    if not callable(model):
        raise BadValue(f"model: expected a torch.nn.Module, a callable or a name, not {type(model).__name__}")
    if takes_sizes(model):
        sizes = _recorded_sizes(info)
        if sizes is None:
            raise BadValue("this ticket does not say what shape and how many outputs its model had; make the model")
        return _sized(cast(Build, model), sizes)
    return seeded_maker(model)


def _recorded_name(info: Mapping[str, Any]) -> str:
    """Return the registered model that a ticket was found in."""
    given = info.get("given")
    name = given.get("model") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        raise UsageError("this ticket's model has no name: hand it over, as in ticket.trained(model)")
    if ":" in name:
        raise UsageError(
            f"this ticket says that its model is {name!r}, and nothing that a ticket names is imported: hand the model "
            "over, or name it yourself, as in ticket.trained('package.module:callable')"
        )
    return name


def _recorded_sizes(info: Mapping[str, Any]) -> Sizes | None:
    """Return the shape of one example and the number of outputs from the record, or None."""
    sizes = info.get("sizes")
    shape, outputs = (sizes.get("input_shape"), sizes.get("outputs")) if isinstance(sizes, Mapping) else (None, None)
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in [*shape, outputs]):
        return None
    assert isinstance(outputs, int)
    return tuple(shape), outputs


def _sizes_of(name: str, info: Mapping[str, Any], params: Params) -> Sizes:
    """Return sizes with which a registered model has exactly the ticket's tensors: the recorded ones, or found ones."""
    build, recorded = MODELS[name].value, _recorded_sizes(info)
    wanted = {key: tuple(value.shape) for key, value in params.items()}
    for sizes in [recorded] if recorded is not None else _candidates(params):
        if _shapes(build, sizes) == wanted:
            return sizes
    raise MaskMismatch(f"the model {name!r} does not have this ticket's tensors; give the model that it was found in")


def _shapes(build: Build, sizes: Sizes) -> Mapping[str, tuple[int, ...]] | None:
    """Return the shapes that a model would have, without memory for them; None where it refuses these sizes."""
    try:
        with seeded_everywhere(0), torch.device("meta"):
            return {name: tuple(value.shape) for name, value in build(*sizes).state_dict().items()}
    except (LotteryError, RuntimeError, TypeError, ValueError, OverflowError):  # other axes, too small, beyond counting
        return None


def _candidates(params: Params) -> Iterator[Sizes]:
    """Yield sizes that tensors like these may come of: vectors, square images, normalized observations."""
    tensors = list(params.items())
    outputs = sorted({int(value.shape[0]) for name, value in tensors if value.ndim == 1 and name.endswith("bias")})
    vectors = sorted({(int(value.shape[1]),) for _, value in tensors if value.ndim == 2})
    channels = min((int(value.shape[1]) for _, value in tensors if value.ndim == 4), default=None)
    images = [(channels, side, side) for side in range(1, _LARGEST_IMAGE + 1)] if channels is not None else []
    observed = [tuple(map(int, value.shape)) for name, value in tensors if name.endswith(".mean")]
    return itertools.product([*observed, *vectors, *images], outputs)


def _sized(build: Build, sizes: Sizes) -> Make:
    return lambda seed: build(*sizes)
