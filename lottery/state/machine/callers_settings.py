"""The caller's process: what a search needs set otherwise while it runs, and everything as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class _Setting:
    """One setting of the process: how it is read, and how it is set to what was read."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Work with gradients on, whatever mode the caller is in, and leave the caller's process as it was.

    What a user's code changes while the block runs (threads, default type and device, gradient mode, deterministic
    algorithms, precision, the working directory, NumPy's and JAX's switches) is changed back. Works as a decorator.

    >>> with torch.no_grad(), own_settings():
    ...     torch.is_grad_enabled()
    True
    """
    with kept(_SETTINGS), _gradients_on():
        yield


@contextlib.contextmanager
def kept(settings: Sequence[_Setting]) -> Iterator[None]:
    """Set back, after the block, those of the settings that it changed."""
    before = [setting.read() for setting in settings]
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            if setting.read() != value:
                setting.write(value)


@contextlib.contextmanager
def _gradients_on() -> Iterator[None]:
    """Let autograd record, also inside `torch.no_grad()` and `torch.inference_mode()`; afterwards as before."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextlib.contextmanager
def staying_here() -> Iterator[None]:
    """Come back to the working directory and the gradient mode, wherever the block leaves them.

    A maker of models is called in the middle of a search, which has relative paths to write to and gradients to take.

    >>> before = os.getcwd()
    >>> with staying_here():
    ...     os.chdir(tmp)
    >>> os.getcwd() == before
    True
    """
    with kept([_DIRECTORY]), _gradients_on():
        yield


def _directory() -> str | None:
    """Return the working directory, or None where it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _go_back(directory: str | None) -> None:
    if directory is not None:
        os.chdir(directory)


def _set_default_device(device: torch.device) -> None:
    # None stands for "nobody set one", which is the CPU and costs nothing.
    torch.set_default_device(None if device.type == "cpu" else device)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(modes: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])


def _attribute(owner: Any, name: str) -> _Setting:
    return _Setting(
        lambda: _unless_mixed(lambda: getattr(owner, name)), _unless_none(lambda value: setattr(owner, name, value))
    )


def _unless_mixed(read: Callable[[], Any]) -> Any:
    """Return a setting, or None where PyTorch has no answer: precision was set in its newer, finer terms."""
    try:
        return read()
    except RuntimeError:
        return None


def _unless_none(write: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda value: write(value) if value is not None else None


def _jax_setting(name: str) -> _Setting:
    """A switch of JAX, if anybody has imported it."""

    def write(value: Any) -> None:
        if value is not None:
            sys.modules["jax"].config.update(name, value)

    return _Setting(lambda: getattr(sys.modules["jax"].config, name) if "jax" in sys.modules else None, write)


_DIRECTORY = _Setting(_directory, _go_back)
_SETTINGS = (
    _DIRECTORY,
    _Setting(torch.get_num_threads, torch.set_num_threads),
    _Setting(torch.get_default_dtype, torch.set_default_dtype),
    _Setting(torch.get_default_device, _set_default_device),
    _Setting(_deterministic, _set_deterministic),
    _Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    _Setting(
        lambda: _unless_mixed(torch.get_float32_matmul_precision), _unless_none(torch.set_float32_matmul_precision)
    ),
    *(_attribute(torch.backends.cuda.matmul, name) for name in ("allow_tf32",)),
    *(_attribute(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")),
    _Setting(np.geterr, lambda modes: np.seterr(**modes)),
    *(_jax_setting(name) for name in ("jax_enable_x64", "jax_default_matmul_precision", "jax_debug_nans")),
)
