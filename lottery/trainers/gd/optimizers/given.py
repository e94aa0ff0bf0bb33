"""Any optimizer: ours by name, any class of `torch.optim` by name or class, or what the caller's function makes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lottery.settings.fields import is_function, spoken
from lottery.settings.functions import check_given, function_of
from lottery.trainers.gd.optimizers.named import (
    OPTIMIZERS,
    OptimizerSettings,
    Params,
    in_groups,
    make_optimizer,
    sparse_embedding,
)
from pruning.calls.users_code import one_line, users_code
from pruning.errors import BadValue, LotteryError, unknown
from pruning.mask import Mask
from pruning.torch_modules import apply_mask

CLASSES: dict[str, type[Optimizer]] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}

# Settings that an optimizer gets beside its learning rate where they are given (not 0).
_SHARED = ("momentum", "nesterov", "weight_decay")

_SPLIT = (
    "a function can give other weights to another optimizer: optimizer=lambda params: [Muon([p for p in params if "
    "p.ndim == 2]), AdamW([p for p in params if p.ndim != 2])]"
)


@dataclass(frozen=True)
class Optimizers:
    """The optimizers that take the steps of one training.

    Attributes:
        each: one optimizer, or several of which each trains a part.
        ours: whether it is one of `OPTIMIZERS` as it stands: under masked gradients it keeps a weight at 0 by itself.
        closure: whether a step asks for loss and gradients again (LBFGS).
        given: whether the caller's function made them: learning rates are those that it chose.
    """

    each: Sequence[Optimizer]
    ours: bool
    closure: bool = False
    given: bool = False

    def train(self) -> None:
        """Have the weights be those at which the optimizers take gradients.

        A schedule-free optimizer keeps others to be evaluated (Defazio et al. 2024, arXiv 2405.15682), and writes one
        or the other into the parameters by its `train()` and `eval()`, which no other optimizer has.
        """
        for optimizer in _with_modes(self.each):
            optimizer.train()

    def eval(self, model: nn.Module, mask: Mask) -> None:
        """Have the weights be those that are evaluated, kept and delivered, under the mask."""
        switched = _with_modes(self.each)
        for optimizer in switched:
            optimizer.eval()
        if switched:  # what a mask removed while it moved is still in an average
            apply_mask(model, mask)

    @contextlib.contextmanager
    def evaluating(self, model: nn.Module, mask: Mask) -> Iterator[None]:
        """Have the weights be those that are evaluated while the block runs."""
        self.eval(model, mask)
        try:
            yield
        finally:
            self.train()


def optimizer_name(value: Any) -> Any:
    """Return a name for a name or class of `torch.optim`, in its one spelling; a function as it is.

    Raises:
        UnknownName: a name that is none.
        BadValue: what a record says where the caller gave a function.

    >>> optimizer_name("RMSprop"), optimizer_name(torch.optim.Muon), optimizer_name("sgd")
    ('rmsprop', 'muon', 'sgd')
    """
    check_given("optimizer", value)
    if isinstance(value, type) and value in CLASSES.values():
        return value.__name__.lower()
    if is_function(value):
        return value
    if value.lower() not in CLASSES:
        raise unknown("optimizer", str(value), CLASSES, OPTIMIZERS)
    return value.lower()


def optimizers_for(model: nn.Module, config: Any, factors: Mapping[str, float] | None = None) -> Optimizers:
    """Return the optimizer, or several, of the trainable parameters of `model`.

    Args:
        model: the model to train.
        config: the trainer's configuration.
        factors: by what the learning rates of single parameters are multiplied, by name.

    Raises:
        NothingToPrune: there is nothing to train.
        BadValue: settings, or weights, that the optimizer does not take.

    >>> from lottery.trainers.gd.config import GDConfig
    >>> ours = optimizers_for(nn.Linear(1, 1), GDConfig(optimizer="sgd"))
    >>> other = optimizers_for(nn.Linear(1, 1), GDConfig(optimizer="rmsprop"))
    >>> ours.ours, other.ours, type(other.each[0]).__name__
    (True, False, 'RMSprop')
    """
    if config.optimizer in OPTIMIZERS and not config.optimizer_params:
        return Optimizers((make_optimizer(model, config, factors),), ours=True)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        make_optimizer(model, replace(config, optimizer="adam", optimizer_params={}))  # it says that there is nothing
    groups = in_groups(dict(named), config.lr, factors or {})
    if is_function(config.optimizer):
        each = _given(function_of("optimizer", config.optimizer), model, [p for _, p in named], groups, config)
    else:
        each = (_of_class(CLASSES[config.optimizer], model, groups, config),)
    _check_complete(each, dict(named))
    made = Optimizers(each, ours=False, closure=any(map(_needs_closure, each)), given=is_function(config.optimizer))
    made.train()
    return made


def _of_class(kind: type[Optimizer], model: nn.Module, params: Params, config: OptimizerSettings) -> Optimizer:
    sparse = sparse_embedding(model)
    if sparse is not None and kind is not torch.optim.SparseAdam:
        raise BadValue(
            f"embedding {sparse!r} makes sparse gradients (sparse=True), which optimizer {kind.__name__!r} refuses: "
            "use optimizer 'sgd' without weight_decay, or make the embedding with sparse=False"
        )
    # An optimizer of ours has 0 where nothing is said, any other its own default.
    ours = config.optimizer in OPTIMIZERS
    named = [name for name in _SHARED if getattr(config, name) or (ours and name in inspect.signature(kind).parameters)]
    given = {"lr": config.lr} | {name: getattr(config, name) for name in named}
    return _made(kind, params, given, config.optimizer_params)


def _made(kind: type[Optimizer], params: Params, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Optimizer:
    accepted = inspect.signature(kind).parameters
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
    for name in shared:
        if name not in accepted and not open_ended:
            raise BadValue(f"optimizer {kind.__name__!r} has no {name}: leave it out")
    for name in own:
        if name in ("lr", *_SHARED):
            raise BadValue(f"optimizer_params.{name}: {name} is a setting of its own: give it as {name}=…")
        if name not in accepted and not open_ended:
            raise unknown(f"setting of optimizer {kind.__name__!r}", name, [key for key in accepted if key != "params"])
    try:
        return kind(params, **{**shared, **own})
    except LotteryError:
        raise
    except Exception as error:
        raise BadValue(f"optimizer {kind.__name__!r} refuses this model: {one_line(error)}; {_SPLIT}") from error


def _given(
    function: Any, model: nn.Module, params: Sequence[nn.Parameter], groups: Params, config: OptimizerSettings
) -> tuple[Optimizer, ...]:
    if isinstance(function, type) and issubclass(function, Optimizer):  # somebody's class, as one of torch.optim
        return (_of_class(function, model, groups, config),)
    asked = [*inspect.signature(function).parameters][:1] if _has_signature(function) else []
    with users_code("the optimizer's function", BadValue):
        made = function(model if asked == ["model"] else params)
    each = tuple(made) if isinstance(made, list | tuple) else (made,)
    if not each or not all(isinstance(one, Optimizer) for one in each):
        raise BadValue(
            f"optimizer {spoken(function)!r} must return a torch.optim.Optimizer or a list of them, not "
            f"{', '.join(type(one).__name__ for one in each) or 'an empty list'}"
        )
    return each


def _has_signature(function: Any) -> bool:
    try:
        inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C
        return False
    return True


def _check_complete(each: Sequence[Optimizer], named: Mapping[str, nn.Parameter]) -> None:
    """Raise `BadValue` unless every parameter that is trained is in exactly one place of the optimizers."""
    held = [id(p) for optimizer in each for group in optimizer.param_groups for p in group["params"]]
    known = {id(p): name for name, p in named.items()}
    if not set(held) <= known.keys():
        raise BadValue(
            "optimizer: its function put other parameters into the optimizer than it was given; make it of `params`, "
            "which are those of the copy that is trained"
        )
    twice = [known[key] for key in known if held.count(key) > 1]
    if twice:
        raise BadValue(f"optimizer: {twice[0]!r} is in it twice; give every parameter once")
    absent = [name for key, name in known.items() if key not in set(held)]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise BadValue(
            f"optimizer: {absent[0]!r}{more} would not be trained, for its function leaves it out; give all of "
            "`params` to an optimizer, or say with train_only what is trained"
        )


def _with_modes(each: Sequence[Optimizer]) -> list[Any]:
    return [one for one in each if all(callable(getattr(one, mode, None)) for mode in ("train", "eval"))]


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
