"""The weights of a PyTorch module as initializers see them: by the kind of their layer, or by how they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from pruning.starts.followed import Keep, activation_of, kind_of, place_of
from pruning.starts.tensor import Layout, Tensor, layout_of
from pruning.starts.weight import Kind
from pruning.uses.uses import NOT_LOOKED_AT, Uses

_TABLES = (nn.Embedding, nn.EmbeddingBag)
# The functions of gates that are one tensor, in PyTorch's order: a forward pass shows only that they differ.
_LSTM, _GRU = ("sigmoid", "sigmoid", "tanh", "sigmoid"), ("sigmoid", "sigmoid", "tanh")
_GATES = {"LSTM": _LSTM, "GRU": _GRU, "LSTMCell": _LSTM, "GRUCell": _GRU}


@dataclass(frozen=True, eq=False)
class Owned:
    """A tensor of a module, and where the module has it.

    Attributes:
        tensor: as initializers see it.
        layer: the module that owns it.
        attribute: its name there.
        known: whether the kind of the layer says what it does; otherwise its use does.
    """

    tensor: Tensor
    layer: nn.Module
    attribute: str
    known: bool

    def write(self, values: NDArray[np.generic]) -> bool:
        """Put values in its place; False, with nothing changed, where the layer computes it from other tensors."""
        with torch.no_grad(), _only_looked_at(self.layer):
            now = getattr(self.layer, self.attribute)
            drawn = torch.from_numpy(np.array(values)).to(now.dtype).to(now.device)
            if self.attribute in self.layer._parameters:
                now.copy_(drawn)
                return True
            return parametrize.is_parametrized(self.layer, self.attribute) and self._computed(drawn)

    def _computed(self, drawn: torch.Tensor) -> bool:
        """Set a tensor that is computed, where that can be turned round."""
        made_of = self.layer.get_submodule(f"parametrizations.{self.attribute}")
        before = {name: value.clone() for name, value in made_of.state_dict().items()}
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # what cannot be set shows below
            setattr(self.layer, self.attribute, drawn)
        if torch.allclose(getattr(self.layer, self.attribute), drawn, atol=1e-6):
            return True
        made_of.load_state_dict(before)
        return False


def torch_tensors(model: nn.Module, keep: Keep, uses: Uses = NOT_LOOKED_AT) -> list[Owned]:
    """Return the weights of a module that initializers draw, each once, in the module's order.

    Weights of linear, convolution, bilinear, recurrent and attention layers; those of other layers that a forward pass
    multiplies with activations along known axes; tables (embeddings) only where a mask covers them.

    Args:
        model: the module.
        keep: what a mask keeps, by tensor name; tensors that it does not name are whole.
        uses: how a forward pass uses its tensors.

    >>> (lstm,) = [each.tensor for each in torch_tensors(nn.LSTM(3, 5), {}) if each.attribute == "weight_ih_l0"]
    >>> [weight.part for weight in lstm.weights()][:2], lstm.weights()[0].shape
    (['gate 1 of 4', 'gate 2 of 4'], (5, 3))
    """
    found: list[Owned] = []
    met: set[int] = set()
    for path, layer, projects in _layers(model):
        with _only_looked_at(layer):
            for attribute, layout, kinds, part in _of_kind(layer, projects):
                weight = getattr(layer, attribute)
                own = layer._parameters.get(attribute)
                if (own is not None and id(own) in met) or not weight.is_floating_point():
                    continue
                met.add(id(own))
                name = _name(path, layer, attribute, keep)
                tensor = _tensor(name, tuple(weight.shape), layout, kinds, part, keep, uses)
                if part == "gate":
                    tensor = replace(tensor, activations=_functions(layer))
                found.append(Owned(tensor, layer, attribute, True))
    for path, layer in model.named_modules():
        for attribute, parameter in layer.named_parameters(recurse=False):
            name = f"{path}.{attribute}" if path else attribute
            drawn = parameter.is_floating_point() and _is_drawn_for_its_use(name, layer, keep, uses)
            if id(parameter) in met or not drawn:
                continue
            met.add(id(parameter))
            kind = "embedding" if isinstance(layer, _TABLES) else kind_of(name, uses)
            layout = layout_of(uses.axes[name])
            tensor = _tensor(name, tuple(parameter.shape), layout, (kind,), "part", keep, uses)
            found.append(Owned(tensor, layer, attribute, False))
    return found


def zero_biases(owned: list[Owned]) -> None:
    """Set the biases of all layers whose kind is known to 0, in place."""
    for layer in {id(each.layer): each.layer for each in owned if each.known}.values():
        for name, parameter in layer.named_parameters(recurse=False):
            if "bias" in name:
                nn.init.zeros_(parameter)


@contextlib.contextmanager
def _only_looked_at(layer: nn.Module) -> Iterator[None]:
    """Let a layer compute its tensors without any change: in training mode a spectral norm moves its vectors."""
    made_of = layer.get_submodule("parametrizations") if parametrize.is_parametrized(layer) else nn.Module()
    training = [each for each in made_of.modules() if each.training]
    try:
        made_of.eval()
        yield
    finally:
        for each in training:
            each.training = True


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield every layer with its path, and whether it is the output projection of an attention."""
    projections = {id(layer.out_proj) for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)}
    for path, layer in model.named_modules():
        yield path, layer, id(layer) in projections


def _of_kind(layer: nn.Module, projects: bool) -> Iterator[tuple[str, Layout, tuple[Kind, ...], str]]:
    """Yield the weights of a layer of a known kind: name, layout, kinds, and what its parts are called."""
    match layer:
        case _ConvTransposeNd():
            into, out, *taps = layer.weight.shape
            split = (layer.groups, into // layer.groups, out, *taps)
            yield "weight", Layout(split, (0,), (2,), (1,)), ("transposed convolution",), "group"
        case _ConvNd():
            out, into, *taps = layer.weight.shape
            split = (layer.groups, out // layer.groups, into, *taps)
            yield "weight", Layout(split, (0,), (1,), (2,)), ("convolution",), "group"
        case nn.Linear():
            kind: Kind = "attention output" if projects else "linear"
            yield "weight", Layout(tuple(layer.weight.shape), (), (0,), (1,)), (kind,), "part"
        case nn.Bilinear():
            yield "weight", Layout(tuple(layer.weight.shape), (), (0,), (1, 2)), ("bilinear",), "part"
        case nn.MultiheadAttention():
            yield from _projections(layer)
        case nn.RNNBase() | nn.RNNCellBase():
            yield from _gates(layer)
        case _:
            return


def _projections(layer: nn.MultiheadAttention) -> Iterator[tuple[str, Layout, tuple[Kind, ...], str]]:
    if layer.in_proj_weight is not None:
        rows, columns = layer.in_proj_weight.shape
        split = (3, rows // 3, columns)
        yield "in_proj_weight", Layout(split, (0,), (1,), (2,)), ("query", "key", "value"), "projection"
        return
    kinds: tuple[Kind, ...] = ("query", "key", "value")
    for kind in kinds:
        name = f"{kind[0]}_proj_weight"
        yield name, Layout(tuple(getattr(layer, name).shape), (), (0,), (1,)), (kind,), "part"


def _gates(layer: nn.Module) -> Iterator[tuple[str, Layout, tuple[Kind, ...], str]]:
    names: list[str] = getattr(layer, "_flat_weights_names", ["weight_ih", "weight_hh"])
    count = max(1, len(_functions(layer)))
    for name in names:
        if not name.startswith("weight_"):
            continue
        rows, columns = getattr(layer, name).shape
        if name.startswith("weight_hr"):
            yield name, Layout((rows, columns), (), (0,), (1,)), ("linear",), "part"
            continue
        kind: Kind = "recurrent" if name.startswith("weight_hh") else "recurrent input"
        yield name, Layout((count, rows // count, columns), (0,), (1,), (2,)), (kind,), "gate"


def _functions(layer: nn.Module) -> tuple[str, ...]:
    """Return the functions of a recurrent layer's gates; none where it has no gates."""
    return next((_GATES[each.__name__] for each in type(layer).__mro__ if each.__name__ in _GATES), ())


def _name(path: str, layer: nn.Module, attribute: str, keep: Keep) -> str:
    """Return how masks call a weight; where it is computed from others, that one of its shape which a mask covers."""
    name = f"{path}.{attribute}" if path else attribute
    if attribute in layer._parameters:
        return name
    start, shape = name[: len(name) - len(attribute)], getattr(layer, attribute).shape
    made_of = (f"{start}parametrizations.{attribute}.original", f"{start}{attribute}_")
    return next((n for n, kept in keep.items() if n.startswith(made_of) and kept.shape == tuple(shape)), name)


def _is_drawn_for_its_use(name: str, layer: nn.Module, keep: Keep, uses: Uses) -> bool:
    if name not in uses.axes or len(uses.axes[name].inputs) == 0 or parametrize.is_parametrized(layer):
        return False
    return name in keep or (name in uses.factors and not isinstance(layer, _TABLES))


def _tensor(
    name: str, shape: tuple[int, ...], layout: Layout, kinds: tuple[Kind, ...], part: str, keep: Keep, uses: Uses
) -> Tensor:
    kept = np.asarray(keep[name]) if name in keep else np.ones(shape, bool)
    return Tensor(name, kept, layout, kinds, part, activation_of(name, uses), place_of(name, uses))
