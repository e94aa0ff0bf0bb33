"""Masks on PyTorch modules: which tensors are prunable, and masks that are held through training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from pruning.copies.copying import copy_module
from pruning.copies.shared_memory import require_disjoint
from pruning.errors import BadValue, NothingToPrune, UnknownName
from pruning.mask import Mask, check_not_single
from pruning.masks import holding
from pruning.masks.holding import is_held as is_held
from pruning.masks.names import match_patterns
from pruning.masks.torch_masking import apply_mask as apply_mask
from pruning.uses.uses import NOT_FOLLOWED, NOT_LOOKED_AT, TABLE, Uses

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_PRUNABLE_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_CANDIDATES = 6
NEVER_PRUNABLE = (nn.Embedding, nn.EmbeddingBag, _NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile`, `DataParallel` and `DistributedDataParallel` wrappers."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # pyright: ignore[reportAssignmentType]
        else:
            return model


def prunable(
    model: nn.Module, only: Sequence[str] = (), skip: Sequence[str] = (), uses: Uses = NOT_LOOKED_AT
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that a mask covers, by dotted name, in the model's order.

    By default: trainable tensors of two or more axes that a product multiplies with activations, whoever owns them,
    and the weights of linear, convolution, attention and recurrent layers, whether a forward pass used them or not.
    Never biases, normalization or embeddings (nor a weight tied to an embedding). A tied weight counts once, by its
    first name.

    Args:
        model: any module.
        only: shell-style patterns; where given, exactly the trainable tensors that match, of any layer.
        skip: shell-style patterns of tensors to leave dense.
        uses: how a forward pass uses its tensors; without it, the kinds of layers decide alone.

    Raises:
        NothingToPrune: no tensor is left.
        UnknownName: a pattern that matches nothing, or the name of a frozen tensor.
        BadValue: a tensor without axes: it is a single number.

    >>> prunable(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    {'0.weight': (3, 4), '2.weight': (2, 3)}
    """
    model = unwrap(model)
    trainable = {name: p for name, p in model.named_parameters() if is_trainable(p)}
    if only:
        frozen = [name for name, _ in model.named_parameters() if name not in trainable]
        for pattern in only:
            if pattern in frozen:
                raise UnknownName(
                    f"prunable: {pattern!r} is frozen (no requires_grad), and a mask covers trainable weights only"
                )
        names = match_patterns(only, trainable, "prunable")
    else:
        inside = {id(p) for name, p in own_tensors(model, _PRUNABLE_LAYERS) if _is_weight(name)}
        outside = {id(p) for _, p in own_tensors(model, NEVER_PRUNABLE)}
        names = [
            name
            for name, p in trainable.items()
            if id(p) not in outside
            and (id(p) in inside or (name in uses.factors and is_matrix(p)))
            and uses.apart.get(name) != TABLE
        ]
    if skip:
        skipped = match_patterns(skip, dict(model.named_parameters()), "skip")
        names = [name for name in names if name not in skipped]
    if not names:
        raise NothingToPrune(_nothing(model, trainable, uses))
    shapes = {name: tuple(trainable[name].shape) for name in names}
    check_not_single(shapes)
    return shapes


def hold_mask(model: ModuleT, mask: Mask) -> ModuleT:
    """Apply a mask and keep it through training, in any loop and with any optimizer. Returns the model.

    Removed weights are 0 after every step of a `torch.optim.Optimizer`, frozen and unfrozen, in copies and pickles of
    the module and in other processes, and whatever is loaded into it (`pruning.masks.holding` says how). A loop that
    writes weights itself calls `reapply_mask(model)` after its last write. A second mask takes the place of the first
    on the tensors that it names, whether it is tighter or not; `release_mask` lets go.

    Raises:
        MaskMismatch: names or shapes that do not fit.

    >>> layer = hold_mask(nn.Linear(2, 1, bias=False), Mask({"weight": [[1, 0]]}))
    >>> layer(torch.ones(1, 2)).sum().backward()
    >>> layer.weight.grad.tolist()
    [[1.0, 0.0]]
    """
    fitted = mask.fit({name: tuple(p.shape) for name, p in model.named_parameters()})
    owners: dict[str, dict[str, torch.Tensor]] = {}
    for name, keep in fitted.items():
        path, _, own = name.rpartition(".")
        device = model.get_parameter(name).device
        owners.setdefault(path, {})[own] = torch.from_numpy(np.asarray(~keep)).to(device)
    for path, removed in owners.items():
        holding.hold(model.get_submodule(path), removed)
    holding.hold_before_forward(model)
    return model


def reapply_mask(model: ModuleT) -> ModuleT:
    """Set the removed weights of the masks that `model` holds to 0 again, in place, and return it.

    >>> layer = hold_mask(nn.Linear(2, 1), Mask({"weight": [[1, 0]]}))
    >>> layer.weight.data += 1
    >>> reapply_mask(layer).weight[0, 1].item()
    0.0
    """
    for owner, held in holding.held_modules(model):
        held.hold(owner)
    return model


def release_mask(model: ModuleT) -> ModuleT:
    """Let go of every mask that `model` holds, and return it; removed weights are 0 until somebody changes them.

    `torch.jit.script` takes no module with hooks in Python: it needs this first (`torch.export` does not).

    >>> is_held(release_mask(hold_mask(nn.Linear(2, 1), Mask({"weight": [[1, 0]]}))).weight)
    False
    """
    holding.release(model)
    return model


def held_mask(model: nn.Module) -> Mask | None:
    """Return the mask that `model` holds, by the names that its tensors have now, or None where it holds none.

    >>> held_mask(hold_mask(nn.Sequential(nn.Linear(2, 1)), Mask({"0.weight": [[1, 0]]})))["0.weight"].tolist()
    [[True, False]]
    """
    paths = {id(module): path for path, module in model.named_modules()}
    found = {
        f"{paths[id(owner)]}.{name}".removeprefix("."): ~removed.cpu().numpy()
        for owner, held in holding.held_modules(model)
        for name, removed in held.removed.items()
    }
    return Mask({name: found[name] for name, _ in model.named_parameters() if name in found}) if found else None


def clean_copy(model: nn.Module) -> tuple[nn.Module, Mask | None]:
    """Return an independent copy of `model` without wrappers, `torch.nn.utils.prune` hooks and held masks.

    Returns:
        The copy, with plain parameters, and the mask that it held in either way (None where it held none).
        The caller's model is not touched.

    Raises:
        BadValue: a model that holds TorchScript with parameters, or what cannot be copied; two parameters in one
            memory.
    """
    model = unwrap(model)
    require_disjoint(model)
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.parameters()):
            raise BadValue(
                f"{name or type(model).__name__!r} is TorchScript with parameters, which cannot be masked: give the "
                "Python module that it was made from"
            )
    duplicate = copy_module(model)
    found: dict[str, torch.Tensor] = {}
    for prefix, module in duplicate.named_modules():
        for name in [n.removesuffix("_mask") for n, _ in module.named_buffers(recurse=False) if n.endswith("_mask")]:
            if f"{name}_orig" in module._parameters:
                found[f"{prefix}.{name}" if prefix else name] = getattr(module, f"{name}_mask").clone()
                prune.remove(module, name)
    for name, keep in (held_mask(duplicate) or {}).items():
        found[name] = found[name].bool() & torch.tensor(keep) if name in found else torch.tensor(keep)
    return release_mask(duplicate), Mask(found) if found else None


def own_tensors(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters of all layers of these kinds, by the name that the layer itself has for them.

    >>> network = nn.Sequential(nn.Linear(2, 1), nn.PReLU())
    >>> [(name, parameter is network[0].weight) for name, parameter in own_tensors(network, (nn.Linear,))]
    [('weight', True), ('bias', False)]
    """
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    return [named for layer in layers for named in layer.named_parameters(recurse=False)]


def is_trainable(parameter: torch.Tensor) -> bool:
    """Say whether a mask can cover a parameter: it is trained, and of real or complex numbers.

    >>> is_trainable(nn.Parameter(torch.ones(2), requires_grad=False))
    False
    """
    return parameter.requires_grad and is_number(parameter)


def is_number(tensor: torch.Tensor) -> bool:
    """Say whether a tensor holds real or complex numbers: no integers, and nothing quantized.

    >>> [is_number(torch.zeros(1, dtype=dtype)) for dtype in (torch.float16, torch.complex64, torch.int64)]
    [True, True, False]
    """
    return tensor.is_floating_point() or tensor.is_complex()


def is_matrix(tensor: torch.Tensor) -> bool:
    """Say whether more than one axis of a tensor holds more than one entry.

    >>> is_matrix(torch.ones(2, 3, 1)), is_matrix(torch.ones(1, 3))
    (True, False)
    """
    return sum(size > 1 for size in tensor.shape) > 1


def _nothing(model: nn.Module, trainable: Mapping[str, torch.Tensor], uses: Uses) -> str:
    """Return the message for a model in which nothing is prunable: what could be named, and why it is not."""
    matrices = [name for name, parameter in trainable.items() if is_matrix(parameter)]
    largest = sorted(matrices, key=lambda name: -trainable[name].numel())[:_CANDIDATES]
    reasons = [f"{name!r} ({uses.apart[name]})" if name in uses.apart else f"{name!r}" for name in largest]
    looked = f" ({NOT_FOLLOWED}: {uses.reason})" if uses.reason and uses is not NOT_LOOKED_AT else ""
    return (
        f"{type(model).__name__} has no prunable tensor: none of its trainable parameters is the weight of a linear, "
        f"convolution, attention or recurrent layer, or is seen to multiply activations{looked}; "
        + (f"name some with `prunable`: {', '.join(reasons)}" if reasons else "none has two axes")
    )


def _is_weight(name: str) -> bool:
    """Say whether a layer's own parameter is a weight: not a bias, not a weight norm's magnitude."""
    return name == "weight" or name.endswith("_proj_weight") or name.startswith(("weight_ih", "weight_hh", "weight_hr"))
