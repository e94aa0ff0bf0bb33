"""Importing torchax 0.0.13 under a torch that has outgrown it. To be deleted with the first torchax that needs no help.

torchax names overloads that torch 2.13 dropped together with named tensors, and operators that 2.14 dropped (their
successors in `torch.linalg` are there, and torchax has them too). Its import changes the whole process: it
renames torch's spare device type, which makes `torch.accelerator` report an accelerator "jax" ahead of a real one (and
breaks pinned memory). `import_torchax` lends it the names, and keeps torch as it was.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch._decomp import global_decomposition_table

_DROPPED = {
    "all": ("dimname", "dimname_out"),
    "index_add": ("dimname",),
    "index_copy": ("dimname",),
    "index_copy_": ("dimname",),
    "index_fill": ("Dimname_Scalar", "Dimname_Tensor"),
    "index_fill_": ("Dimname_Scalar", "Dimname_Tensor"),
    "norm": ("names_ScalarOpt_dim", "names_ScalarOpt_dim_dtype", "names_dtype_out", "names_out"),
    "prod": ("dim_Dimname",),
    "std": ("correction_names", "correction_names_out", "names_dim", "names_out"),
    "std_mean": ("correction_names", "names_dim"),
    "unbind": ("Dimname",),
}
_DROPPED_WHOLE = ("cholesky", "qr")


@dataclass(frozen=True, eq=False)
class _Gone:
    """In the place of an operator that torch no longer has."""

    default: object


def import_torchax() -> ModuleType:
    """Return the package `torchax`, imported whole; nothing else in the process changes.

    A torchax that somebody imported before is returned as it is; who wants its device "jax" imports it first.

    >>> before = torch._C._get_privateuse1_backend_name()
    >>> import_torchax().__name__, torch._C._get_privateuse1_backend_name() == before
    ('torchax', True)
    """
    foreign = "torchax" in sys.modules
    with ExitStack() as stack:
        stack.enter_context(_lent_names())
        stack.enter_context(_kept_settings())
        torchax = importlib.import_module("torchax")
        for name in ("ops.jaten", "ops.jtorch", "ops.jc10d", "ops.jtorchvision_nms", "decompositions"):
            importlib.import_module(f"torchax.{name}")
    if not foreign:
        # Without the rename there is no device "jax"; inside a translation every device is the same one anyway.
        for kind in (torchax.tensor.Tensor, torchax.view.View):
            kind.device = property(lambda _: torch.device("cpu"))
    return torchax


@contextmanager
def _lent_names() -> Iterator[None]:
    lent: list[tuple[Any, str]] = []
    for packet in _DROPPED_WHOLE:
        if not hasattr(torch.ops.aten, packet):
            setattr(torch.ops.aten, packet, _Gone(default=object()))
            lent.append((torch.ops.aten, packet))
    for packet, overloads in _DROPPED.items():
        operator = getattr(torch.ops.aten, packet)
        for overload in overloads:
            if not hasattr(operator, overload):
                setattr(operator, overload, object())
                lent.append((operator, overload))
    try:
        yield
    finally:
        for operator, overload in lent:
            delattr(operator, overload)


@contextmanager
def _kept_settings() -> Iterator[None]:
    fastpath = torch.backends.mha.get_fastpath_enabled()
    environment = dict(os.environ)
    tables = {kind: dict(table) for kind, table in global_decomposition_table.items()}
    changers = [(torch.utils, "rename_privateuse1_backend"), (torch, "_register_device_module")]
    originals = [getattr(owner, name) for owner, name in changers]
    for owner, name in changers:
        setattr(owner, name, lambda *_: None)
    try:
        yield
    finally:
        for (owner, name), original in zip(changers, originals, strict=True):
            setattr(owner, name, original)
        for kind, table in tables.items():
            global_decomposition_table[kind].clear()
            global_decomposition_table[kind].update(table)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        torch.backends.mha.set_fastpath_enabled(fastpath)
