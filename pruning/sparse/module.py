"""A network that runs sparse and drops in for the dense one."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pruning.calls.call import Call
from pruning.calls.structures import flattened, tensors_in
from pruning.calls.users_code import one_line
from pruning.copies.copying import copy_module
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.network.example import alike, hidden_weights, side_effect
from pruning.sparse.network.inference import InferenceRecipe, choose_recipe, make, run_itself
from pruning.sparse.network.replacing import contiguous_tensors, hand_over_contiguous
from pruning.sparse.network.report import SparseReport
from pruning.sparse.network.reporting import report_of
from pruning.sparse.network.skeleton import filled, scripted_part, skeleton_of
from pruning.sparse.network.state import names_inside, with_prefix, without_prefix
from pruning.sparse.network.training import Trainable, choose_trainable
from pruning.sparse.weights.weight import Sparse
from pruning.torch_modules import apply_mask, clean_copy, hold_mask, is_held, unwrap


class SparseModule(nn.Module):
    """A masked network with two forms: one that trains, and a faster one that runs where nothing is trained.

    In training mode, and wherever gradients are asked for, `network` runs: the caller's architecture, in which layers
    that are faster sparse hold their surviving values. In evaluation mode without gradients (`torch.no_grad`,
    `torch.inference_mode`) a compacted network runs, made from `network` again whenever a weight has changed. State
    dicts have the names and shapes of the dense network, in both directions. Attributes of the network are found here.

    A call that differs from the example in more than its tensors, a layer left in training mode (as for Monte Carlo
    dropout) and forward hooks on the network all make `network` run. Other attributes that decide what a network
    computes are read once, when this module is made. A weight changed through `.data` is seen after the next `train()`
    or `eval()`.

    Attributes:
        network: the network that trains.
        mask: which weights stay.
        report: layer by layer, what runs and what it costs.
    """

    def __init__(
        self,
        network: nn.Module,
        skeleton: nn.Module,
        mask: Mask,
        example: Call,
        recipe: InferenceRecipe,
        report: SparseReport,
    ) -> None:
        super().__init__()
        self.network = network
        self.mask, self.report = mask, report
        self._recipe, self._example = recipe, example
        self._hold_masks()
        # none of it may show up in the state dict or among the parameters
        listening = {path: _listeners(part) for path, part in network.named_modules()}
        self._hidden: dict[str, Any] = {"skeleton": skeleton, "listening": listening, **_NOTHING_MADE}
        self.train(network.training)
        self.register_state_dict_post_hook(without_prefix)
        self.register_load_state_dict_pre_hook(with_prefix)
        self.register_load_state_dict_post_hook(_masked_again)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of the masked network."""
        chosen = self._chosen(args, kwargs)
        try:
            return contiguous_tensors(chosen(*args, **kwargs))
        except Exception as error:  # the network's own code may raise anything
            # Activations lie feature by feature after a sparse layer. For another batch than the example's, `view` may
            # not be able to join what is not adjacent.
            if "view" not in str(error) or self._recipe.contiguous:
                if chosen is self.network:
                    raise
                return self._itself(args, kwargs, one_line(error))
        self._recipe = replace(self._recipe, contiguous=True)
        self._hidden |= _NOTHING_MADE
        for path, layer in self.network.named_modules():
            if any(isinstance(child, Sparse) for child in layer.children()):
                hand_over_contiguous(layer)
                self._hidden["listening"][path] += 1
        return contiguous_tensors(self._chosen(args, kwargs)(*args, **kwargs))

    def _itself(self, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str) -> Any:
        """Return the network's outputs after its faster form raised; if the network raises too, that is the error."""
        outputs = contiguous_tensors(self.network(*args, **kwargs))
        reason = f"{self._recipe.way} raises {reason} where the network itself does not"
        warnings.warn(f"{reason}; the network itself runs from now on", RuntimeWarning, stacklevel=3)
        self._recipe = run_itself(self.mask, reason)
        self.report = replace(self.report, way=self._recipe.way, opaque=self._recipe.opaque)
        return outputs

    def _chosen(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
        """Return the form that a call runs."""
        if self.training or not self._as_example(args, kwargs) or self._wants_gradients(args, kwargs):
            self._hold_masks()
            return self.network
        return self._inference() or self.network

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict with the names of the dense network."""
        return super().load_state_dict(names_inside(state_dict), strict, assign)

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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hidden": {**self._hidden, **_NOTHING_MADE}}

    def _hold_masks(self) -> None:
        """Hold the masks of the layers that stayed dense: a parameter that is new here has nothing that holds it."""
        parameters = dict(self.network.named_parameters())
        dense = {name: self.mask[name] for name in self.mask if name in parameters}
        if any(not is_held(parameters[name]) for name in dense):
            hold_mask(self.network, Mask(dense))

    def _as_example(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Say whether a call differs from the example only in its tensors; compaction has fixed all other arguments."""
        example = self._example
        if kwargs.keys() != example.kwargs.keys() or len(args) != len(example.args):
            return False
        pairs = [*zip(args, example.args, strict=True), *((kwargs[name], example.kwargs[name]) for name in kwargs)]
        if all(type(a) is torch.Tensor and type(b) is torch.Tensor for a, b in pairs):
            return True  # nearly always; a small network would notice the rest
        given = flattened((args, {name: kwargs[name] for name in example.kwargs}))
        known = flattened((example.args, dict(example.kwargs)))
        return given.keys() == known.keys() and all(alike(given[path], known[path]) for path in given)

    def _wants_gradients(self, args: Any, kwargs: Any) -> bool:
        if not torch.is_grad_enabled():
            return False
        plain = not kwargs and all(type(given) is torch.Tensor for given in args)  # walking costs a small network much
        given = args if plain else tensors_in((args, kwargs))
        return any(t.requires_grad for t in given) or any(p.requires_grad for p in self.network.parameters())

    def train(self, mode: bool = True) -> SparseModule:
        """Set training or evaluation mode."""
        self._hidden |= _NOTHING_MADE
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> SparseModule:
        self._hidden |= _NOTHING_MADE
        return super()._apply(fn, recurse)

    def _inference(self) -> nn.Module | None:
        """Return the network that runs without gradients; it is made again where a weight has changed.

        None where the network must run itself: where it changes its buffers, where a layer is in training mode, or
        where somebody listens to it.
        """
        hidden = self._hidden
        if hidden["modules"] is None:
            heard = hidden["listening"]
            hidden["modules"] = [(part, heard.get(path, 0)) for path, part in self.network.named_modules()]
        made_of: list[Any] = []
        for module, listeners in hidden["modules"]:
            if module.training or len(module._forward_hooks) + len(module._forward_pre_hooks) != listeners:
                return None
            for tensor in module._parameters.values():
                if tensor is not None:
                    made_of.append((id(tensor), tensor.data_ptr(), tensor._version))
            for tensor in module._buffers.values():
                if tensor is not None:
                    made_of.append((id(tensor), tensor.data_ptr(), tensor._version))
        if self._recipe.itself:
            return None
        if hidden["made of"] != made_of:
            anew: Any = torch.compiler.disable(_inference_network)
            hidden["inference"] = anew(self)
            hidden["made of"] = made_of
        return hidden["inference"]

    def _dense(self) -> nn.Module:
        """Return a new dense network with the present weights, masked, in evaluation mode."""
        state = {
            name: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
            for name, value in self.network.state_dict().items()
        }
        return apply_mask(filled(self._hidden["skeleton"], state, dict(self.network.named_buffers())), self.mask)


def _inference_network(module: SparseModule) -> nn.Module:
    tensors = [*module.network.parameters(), *module.network.buffers()]
    with torch.inference_mode(False), torch.no_grad(), module._example.keeping_random_numbers():
        return make(module._recipe, module._dense(), module.mask, module._example.like(tensors))


# What a copy, another mode, another device or other weights make stale.
_NOTHING_MADE = {"inference": None, "made of": None, "modules": None}


def sparse_module(
    model: nn.Module, mask: Mask, /, *example: Any, choosing: Choosing | None = None, **named: Any
) -> SparseModule:
    """Return a module that runs a masked network sparse wherever that is faster, and never slower than dense.

    Exact compaction comes first (for inference), then every masked layer is timed against its dense self on what it
    gets in the example; the whole is timed against the whole. What was measured is kept on disk.

    Args:
        model: any module; its weights are used, the module itself is never changed.
        mask: which weights stay.
        *example: the arguments of one call, with the shapes, type and device that matter; or one mapping of them, by
            the names that the model has for them.
        choosing: how backends are chosen; by default they are measured.
        **named: arguments that the model takes by name.

    Raises:
        MaskMismatch: a mask that does not fit the model.
        BadValue: an example that the model does not take, or outputs that nothing can be compared with.

    >>> layer, keep = nn.Linear(3, 2), Mask({"weight": [[1, 0, 0], [0, 0, 1]]})
    >>> module = sparse_module(layer, keep, torch.ones(4, 3), choosing=Choosing(cache=None)).eval()
    >>> torch.allclose(module(torch.ones(4, 3)), keep.apply(layer)(torch.ones(4, 3)))
    True
    """
    if not example and not named:
        raise BadValue("an example is needed: the arguments of one call, with the shapes that matter")
    call = Call.of(unwrap(model), example, named)
    if any(not tensor.numel() for tensor in call.tensors):
        raise BadValue("the example holds an empty tensor: nothing can be measured on it")
    choosing = choosing or Choosing()
    with torch.inference_mode(False), torch.enable_grad(), call.keeping_random_numbers():
        call = call.cloned()  # some networks write into what they are given
        dense, _ = clean_copy(model)
        mask = mask.fit({name: tuple(p.shape) for name, p in dense.named_parameters()})
        apply_mask(dense, mask).eval()
        skeleton = skeleton_of(dense)
        reason = scripted_part(dense) or side_effect(copy_module(dense), call)
        reason = reason or hidden_weights(copy_module(dense), skeleton, call)
        if reason:
            trainable, recipe = Trainable(copy_module(dense), None, None), run_itself(mask, reason)
        else:
            trainable = choose_trainable(dense, mask, call, choosing)
            recipe = choose_recipe(dense, mask, call, choosing)
    report = report_of(recipe, trainable, mask, call, choosing)
    return SparseModule(trainable.network.train(model.training), skeleton, mask, call, recipe, report)


def _listeners(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)


def _masked_again(module: nn.Module, _: Any) -> None:
    assert isinstance(module, SparseModule)
    module._hidden |= _NOTHING_MADE
    parameters = dict(module.network.named_parameters())
    dense = {name: module.mask[name] for name in module.mask if name in parameters}
    if dense:
        apply_mask(module.network, Mask(dense))
