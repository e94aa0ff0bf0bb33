"""Masks that modules hold: what keeps removed weights at 0 while anybody's loop trains them.

A held mask belongs to the module that owns the tensor (`Held`, in its `__dict__`, in no state dict) and goes where the
module goes: copies, pickles, `torch.save`, other processes. Four things keep it, each where the others cannot:

- a hook on the parameter zeroes its gradient: a weight at 0 whose gradients are all 0 stays at 0;
- after a step of any `torch.optim.Optimizer`, what it wrote all the same (Muon, a gradient set by hand) is 0 again;
- after `load_state_dict`, whatever was loaded, and also where `assign=True` put in new parameters;
- before a forward pass of the module that was given to `hold_mask`: what was written by any other way.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

_HELD = "_held_mask"


class MaskNotHeld(UserWarning):
    """A held mask covers a tensor that its module has no more."""


class Held:
    """The masks of one module's own tensors.

    Attributes:
        removed: boolean tensors by the tensor's name in the module; True where a weight is removed.
        parameters: the tensors on which they are held now.
    """

    def __init__(self, removed: dict[str, torch.Tensor]) -> None:
        self.removed = removed
        self.parameters: dict[str, nn.Parameter] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # The parameters travel along, as the very ones of the module: they are held the moment they exist again.
        return _held_again, (self.removed, self.parameters)

    def hold(self, module: nn.Module) -> None:
        """Set removed weights to 0 in the tensors that the module has now, and hold those that are new."""
        for name, removed in self.removed.items():
            parameter = module._parameters.get(name)
            if parameter is None:
                self._check_moved(module, name)
            elif isinstance(parameter, nn.Parameter) and not parameter.is_meta:
                # (under functional_call it may be anybody's tensor)
                removed = self.removed[name] = removed.to(parameter.device)
                if self.parameters.get(name) is not parameter:
                    self.parameters[name] = parameter
                    _hook(parameter, removed)
                _zero(parameter, removed)

    def release(self) -> None:
        """Let the tensors go."""
        for parameter in self.parameters.values():
            _unhook(parameter)

    def _check_moved(self, module: nn.Module, name: str) -> None:
        """Warn where the tensor is in the module under no other name either (pruned or parametrized, it may be)."""
        if not any(parameter is self.parameters.get(name) for parameter in module.parameters()):
            warnings.warn(
                f"the mask of {name!r} in {type(module).__name__} holds no more: the module has no such parameter now; "
                "mask the new one with hold_mask, or give this one up with release_mask",
                MaskNotHeld,
                stacklevel=2,
            )


class GradientMask:
    """Zeroes the gradient of removed weights, wherever the parameter lies by then."""

    put_on_by_module = True  # a copied parameter gets it from its copied module (`pruning.copies.copying`)

    def __init__(self, removed: torch.Tensor) -> None:
        self.removed = removed

    def __call__(self, parameter: torch.Tensor) -> None:
        """Zero the gradient that has just been added up."""
        if parameter.grad is not None:
            self.removed = self.removed.to(parameter.device)
            parameter.grad.masked_fill_(self.removed, 0.0)

    def after_step(self, parameter: torch.Tensor) -> None:
        """Zero removed weights, whatever the optimizer wrote."""
        self.removed = self.removed.to(parameter.device)
        _zero(parameter, self.removed)


class BeforeForward:
    """Masks what has changed since the last time, before the module that was given to `hold_mask` runs."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return BeforeForward, ()

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        """Mask the module's own tensors, and those of all modules inside."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return  # a program is written down, in which the weights are arguments
        owners = list(held_modules(module))
        # A write through `.data` leaves no trace in a version: while gradients are computed, every pass is masked.
        if torch.is_grad_enabled() or self.seen != _versions(owners):
            for owner, held in owners:
                held.hold(owner)
            self.seen = _versions(owners)


def hold(owner: nn.Module, removed: dict[str, torch.Tensor]) -> None:
    """Hold these masks of a module's own tensors, in place of those that it held of the same ones."""
    before = owner.__dict__.get(_HELD)
    if isinstance(before, Held):
        before.release()
        removed = {**before.removed, **removed}
    elif not any(isinstance(hook, _AfterLoading) for hook in owner._load_state_dict_post_hooks.values()):
        owner.register_load_state_dict_post_hook(_AfterLoading())
    owner.__dict__[_HELD] = Held(removed)
    owner.__dict__[_HELD].hold(owner)


def hold_before_forward(module: nn.Module) -> None:
    """Have a module mask what it holds whenever it is called.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> hold(layer, {"weight": torch.ones(1, 1, dtype=torch.bool)})
    >>> hold_before_forward(layer)
    >>> _ = layer.weight.data.fill_(5)
    >>> layer(torch.ones(1)).item()
    0.0
    """
    if not any(isinstance(hook, BeforeForward) for hook in module._forward_pre_hooks.values()):
        module.register_forward_pre_hook(BeforeForward())


def held_modules(module: nn.Module) -> Iterator[tuple[nn.Module, Held]]:
    """Yield the modules inside that hold masks of tensors of their own.

    >>> network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    >>> hold(network[1], {"weight": torch.ones(1, 1, dtype=torch.bool)})
    >>> [(part is network[1], held.removed) for part, held in held_modules(network)]
    [(True, {'weight': tensor([[True]])})]
    """
    for part in module.modules():
        held = part.__dict__.get(_HELD)
        if held is not None:
            yield part, held


def release(module: nn.Module) -> None:
    """Drop every held mask and every hook inside; the weights stay as they are.

    >>> layer = nn.Linear(1, 1)
    >>> hold(layer, {"weight": torch.ones(1, 1, dtype=torch.bool)})
    >>> release(layer)
    >>> is_held(layer.weight), list(held_modules(layer))
    (False, [])
    """
    for part in module.modules():
        held = part.__dict__.pop(_HELD, None)
        if held is not None:
            held.release()
        for hooks in (part._forward_pre_hooks, part._load_state_dict_post_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, BeforeForward | _AfterLoading)]:
                del hooks[key]


def is_held(parameter: nn.Parameter) -> bool:
    """Say whether a mask is held on this very parameter."""
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None) or {}
    return any(isinstance(hook, GradientMask) for hook in hooks.values())


class _AfterLoading:
    """Masks what was loaded."""

    def __call__(self, module: nn.Module, incompatible: Any) -> None:
        held = module.__dict__.get(_HELD)
        if held is not None:
            held.hold(module)


def _held_again(removed: dict[str, torch.Tensor], parameters: dict[str, nn.Parameter]) -> Held:
    held = Held(removed)
    for name, parameter in parameters.items():
        held.parameters[name] = parameter
        _hook(parameter, removed[name])
    return held


def _hook(parameter: nn.Parameter, removed: torch.Tensor) -> None:
    """Zero the gradients of a parameter from now on, those that it has later if it is frozen now."""
    _unhook(parameter)
    frozen = not parameter.requires_grad
    parameter.requires_grad_()  # a hook is refused otherwise; it stays whatever comes after
    parameter.register_post_accumulate_grad_hook(GradientMask(removed))
    parameter.requires_grad_(not frozen)
    _watch_optimizers()


def _unhook(parameter: nn.Parameter) -> None:
    hooks = getattr(parameter, "_post_accumulate_grad_hooks", None) or {}
    for key in [key for key, hook in hooks.items() if isinstance(hook, GradientMask)]:
        del hooks[key]


@functools.cache
def _watch_optimizers() -> None:
    """Once in a process that holds masks: optimizers are made later, and nothing but PyTorch knows of them all."""
    register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for hook in (getattr(parameter, "_post_accumulate_grad_hooks", None) or {}).values():
                if isinstance(hook, GradientMask):
                    hook.after_step(parameter)


def _zero(parameter: torch.Tensor, removed: torch.Tensor) -> None:
    # Through `data`: what is 0 already stays so, and a pass that is under way sees no changed weight.
    parameter.data.masked_fill_(removed, 0.0)


def _versions(owners: list[tuple[nn.Module, Held]]) -> list[Any]:
    found = [owner._parameters.get(name) for owner, held in owners for name in held.removed]
    return [(id(p), p.data_ptr(), p._version) for p in found if type(p) is nn.Parameter]
