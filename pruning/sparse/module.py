"""A network that runs sparse and drops in for the dense one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.inference import Recipe, choose_recipe, make
from pruning.sparse.replacing import contiguous_tensors, run_example
from pruning.sparse.report import SparseReport, layer_reports
from pruning.sparse.training import Trainable, choose_trainable
from pruning.torch_modules import apply_mask, clean_copy, hold_mask


class SparseModule(nn.Module):
    """A masked network with two forms: one that trains, and a faster one that runs where nothing is trained.

    In training mode, and wherever gradients are asked for, `network` runs: the caller's architecture, in which layers
    that are faster sparse hold their surviving values. In evaluation mode without gradients (`torch.no_grad`,
    `torch.inference_mode`) a compacted network runs, made from `network` again whenever a weight has changed. State
    dicts have the names and shapes of the dense network, in both directions. Attributes of the network are found here.

    Attributes:
        network: what trains.
        mask: which weights stay.
        report: layer by layer, what runs and what it costs.
    """

    def __init__(
        self,
        network: nn.Module,
        skeleton: nn.Module,
        mask: Mask,
        example: Sequence[Any],
        recipe: Recipe,
        report: SparseReport,
    ) -> None:
        super().__init__()
        self.network = network
        self.mask, self.report = mask, report
        self._recipe, self._example = recipe, tuple(example)
        # neither may show up in the state dict or among the parameters
        self._hidden: dict[str, Any] = {"skeleton": skeleton, "inference": None, "made of": None, "tensors": None}
        self._dense_masks()
        self.train(network.training)
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        self.register_load_state_dict_post_hook(_masked_again)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the masked network gives."""
        if self.training or not self._as_example(args, kwargs) or self._wants_gradients(args, kwargs):
            return contiguous_tensors(self.network(*args, **kwargs))
        return contiguous_tensors(self._inference()(*args, **kwargs))

    def dense(self) -> nn.Module:
        """Return an independent dense network of the caller's architecture with the present weights, masked."""
        return hold_mask(self._dense().train(self.training), self.mask)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            network = self.__dict__.get("_modules", {}).get("network")
            if network is None:
                raise
            return getattr(network, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseModule:
        duplicate = SparseModule(
            copy.deepcopy(self.network, memo),
            self._hidden["skeleton"],
            self.mask,
            self._example,
            self._recipe,
            self.report,
        )
        memo[id(self)] = duplicate
        return duplicate.train(self.training)

    def _dense_masks(self) -> None:
        """Hold the masks of the layers that stayed dense; a copy of a parameter has lost what held it."""
        parameters = dict(self.network.named_parameters())
        dense = {name: self.mask[name] for name in self.mask if name in parameters}
        if dense:
            hold_mask(self.network, Mask(dense))

    def _as_example(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Say whether a call differs from the example in its tensors only: what else it says, compaction has fixed."""
        if kwargs or len(args) != len(self._example):
            return False
        if all(type(a) is torch.Tensor and type(b) is torch.Tensor for a, b in zip(args, self._example, strict=True)):
            return True  # nearly always; a small network would notice the rest
        (given, form), (known, known_form) = tree_flatten(args), tree_flatten(self._example)
        return form == known_form and all(
            isinstance(a, torch.Tensor) or a == b for a, b in zip(given, known, strict=True)
        )

    def _wants_gradients(self, args: Any, kwargs: Any) -> bool:
        if not torch.is_grad_enabled():
            return False
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        return any(t.requires_grad for t in tensors) or any(p.requires_grad for p in self.network.parameters())

    def train(self, mode: bool = True) -> SparseModule:
        """Set training or evaluation mode."""
        self._hidden["tensors"] = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> SparseModule:
        self._hidden["tensors"] = None
        return super()._apply(fn, recurse)

    def _inference(self) -> nn.Module:
        """Return what runs without gradients, made anew where a weight has changed since it was made."""
        hidden = self._hidden
        if hidden["tensors"] is None:
            hidden["tensors"] = [*self.network.parameters(), *self.network.buffers()]
        made_of = [(t.data_ptr(), t._version) for t in hidden["tensors"]]
        if hidden["made of"] != made_of:
            example = [_like(given, hidden["tensors"]) for given in self._example]
            hidden["inference"] = make(self._recipe, self._dense(), self.mask, example)
            hidden["made of"] = made_of
        return hidden["inference"]

    def _dense(self) -> nn.Module:
        """Return a dense network of its own with the present weights, masked, in evaluation mode."""
        state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        return apply_mask(_filled(self._hidden["skeleton"], state, dict(self.network.named_buffers())), self.mask)


def sparse_module(model: nn.Module, mask: Mask, *example: Any, choosing: Choosing | None = None) -> SparseModule:
    """Return a module that runs a masked network sparse wherever that is faster, and never slower than dense.

    Exact compaction comes first (for inference), then every masked layer is timed against its dense self on what it
    gets in the example; the whole is timed against the whole. What was measured is kept on disk.

    Args:
        model: any module; its weights are used, the module itself is never changed.
        mask: which weights stay.
        *example: the arguments of one call, with the shapes, type and device that matter.
        choosing: how backends are chosen; by default they are measured.

    Raises:
        MaskMismatch: a mask that does not fit the model.
        BadValue: an example that the model does not take.

    >>> layer, keep = nn.Linear(3, 2), Mask({"weight": [[1, 0, 0], [0, 0, 1]]})
    >>> module = sparse_module(layer, keep, torch.ones(4, 3), choosing=Choosing(cache=None)).eval()
    >>> torch.allclose(module(torch.ones(4, 3)), keep.apply(layer)(torch.ones(4, 3)))
    True
    """
    if not example:
        raise BadValue("an example is needed: the arguments of one call, with the shapes that matter")
    choosing = choosing or Choosing()
    dense, _ = clean_copy(model)
    mask = mask.fit({name: tuple(p.shape) for name, p in dense.named_parameters()})
    apply_mask(dense, mask).eval()
    run_example(dense, example)
    skeleton = copy.deepcopy(dense).to("meta")
    trainable = choose_trainable(dense, mask, example, choosing)
    recipe = choose_recipe(dense, mask, example, choosing)
    report = _report(recipe, trainable, mask, example)
    return SparseModule(trainable.network.train(model.training), skeleton, mask, example, recipe, report)


def _report(recipe: Recipe, trainable: Trainable, mask: Mask, example: Sequence[Any]) -> SparseReport:
    tensors = [leaf for leaf in tree_flatten(example)[0] if isinstance(leaf, torch.Tensor)]
    first = tensors[0] if tensors else torch.empty(0)
    floats = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
    tf32 = first.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 and floats.dtype == torch.float32
    precision = str(floats.dtype).removeprefix("torch.") + (", TF32 products" if tf32 else "")
    layers = layer_reports(recipe, mask, floats.element_size())
    return SparseReport(
        layers=layers,
        dense_seconds=recipe.dense_seconds,
        sparse_seconds=recipe.sparse_seconds,
        step_dense_seconds=trainable.dense_seconds,
        step_sparse_seconds=trainable.sparse_seconds,
        way=f"{recipe.way}, as one CUDA graph" if recipe.graph else recipe.way,
        opaque=recipe.opaque,
        batch=tuple(first.shape),
        device=torch.cuda.get_device_name(first.device) if first.device.type == "cuda" else first.device.type,
        precision=precision,
        threads=torch.get_num_threads(),
    )


def _filled(skeleton: nn.Module, state: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor]) -> nn.Module:
    """Return a network of this architecture that holds these tensors, in evaluation mode."""
    network = copy.deepcopy(skeleton)
    network.load_state_dict(state, strict=False, assign=True)
    for path, module in network.named_modules():
        for name in list(module._buffers):
            full = f"{path}.{name}" if path else name
            if full in buffers and full not in state:
                module._buffers[name] = buffers[full].detach().clone()
    return network.eval().requires_grad_(False)


def _like(given: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """Return an example on the device and in the type of numbers that the network has now."""
    floats = [t for t in tensors if t.is_floating_point()]
    if not isinstance(given, torch.Tensor) or not floats:
        return given
    return given.to(floats[0].device, floats[0].dtype if given.is_floating_point() else given.dtype)


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}network.")]:
        state[prefix + key[len(f"{prefix}network.") :]] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}network.{key[len(prefix) :]}"] = state.pop(key)


def _masked_again(module: nn.Module, _: Any) -> None:
    assert isinstance(module, SparseModule)
    module._hidden["tensors"] = None
    parameters = dict(module.network.named_parameters())
    dense = {name: module.mask[name] for name in module.mask if name in parameters}
    if dense:
        apply_mask(module.network, Mask(dense))
