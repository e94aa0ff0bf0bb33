"""Recurrent layers: LSTM, GRU and RNN.

    all steps at once   gates [G, N] = W_ih · inputs [in, N] + biases      N = sum of the batch sizes of all steps
    step by step        state [H, b] = cell(gates of the step [G, b], W_hh · state [H, b])

Activations are kept feature by feature, one column for each example of each step, which is what sparse products read
and write. A padded batch is steps of one size, a packed one is steps that shrink; nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from pruning.errors import BadValue, unknown
from pruning.sparse.layers import Masks, NoSparseForm, sparse_layer
from pruning.sparse.weights.weight import SparseWeight, take_the_place

State = tuple[torch.Tensor, ...]
Step = Callable[[torch.Tensor, State], State]
Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Cell:
    """One step of a recurrent layer.

    Attributes:
        step: `step(gates [G, b], recurrent [G, b], state) -> state`, each state [H, b] and the hidden one first.
        states: how many states are carried on.
        apart: whether a gate scales the recurrent product, bias included; the bias is added at every step then.
        dense: the layer as PyTorch runs it, all steps in one call.
    """

    step: Callable[[torch.Tensor, torch.Tensor, State], State]
    states: int
    apart: bool
    dense: Callable[..., Any]


def _lstm(gates: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
    into, forget, new, out = (gates + recurrent).chunk(4)
    memory = torch.addcmul(forget.sigmoid() * state[1], into.sigmoid(), new.tanh())
    return out.sigmoid() * memory.tanh(), memory


def _gru(gates: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
    reset, update, new = gates.chunk(3)
    by_state = recurrent.chunk(3)
    new = torch.addcmul(new, (reset + by_state[0]).sigmoid(), by_state[2]).tanh()
    return (torch.lerp(new, state[0], (update + by_state[1]).sigmoid()),)


def _tanh(gates: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
    return ((gates + recurrent).tanh(),)


def _relu(gates: torch.Tensor, recurrent: torch.Tensor, state: State) -> State:
    return ((gates + recurrent).relu(),)


_CELLS = {
    "LSTM": Cell(_lstm, 2, False, torch.lstm),
    "GRU": Cell(_gru, 1, True, torch.gru),
    "RNN_TANH": Cell(_tanh, 1, False, torch.rnn_tanh),
    "RNN_RELU": Cell(_relu, 1, False, torch.rnn_relu),
}


class SparseRecurrent(nn.Module):
    """An LSTM, GRU or RNN that keeps its surviving weights only; inputs, states and outputs as those of its layer.

    Where every weight has the dense backend, PyTorch's own kernel runs all steps; hooks on weights keep it away.

    >>> import numpy as np
    >>> sparse = SparseRecurrent(nn.GRU(2, 1), {"weight_hh_l0": np.array([[True], [False], [False]])})
    >>> outputs, last = sparse(torch.ones(5, 3, 2))
    >>> outputs.shape, last.shape, torch.equal(outputs[-1], last[0])
    (torch.Size([5, 3, 1]), torch.Size([1, 3, 1]), True)
    """

    def __init__(self, layer: nn.RNNBase, masks: Masks) -> None:
        super().__init__()
        kind, parameters = type(layer).__name__, dict(layer.named_parameters(recurse=False))
        for name in masks:
            if name not in parameters:
                raise unknown(f"weight of {kind}", name, parameters)
            if not name.startswith("weight_"):
                raise NoSparseForm(f"{kind} has a mask for {name}: only its weights have a sparse form")
        self.mode, self.input_size, self.hidden_size = layer.mode, layer.input_size, layer.hidden_size
        self.num_layers, self.bias, self.batch_first = layer.num_layers, layer.bias, layer.batch_first
        self.dropout, self.bidirectional, self.proj_size = layer.dropout, layer.bidirectional, layer.proj_size
        self.names = tuple(parameters)
        for name, parameter in parameters.items():
            setattr(self, name, SparseWeight(parameter, masks[name]) if name in masks else parameter)
        take_the_place(self, layer)

    def forward(self, inputs: torch.Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Return the outputs of the last layer, and the states after the last step.

        Args:
            inputs: [T, B, in]; [B, T, in] where the batch is first; [T, in] of a single example; or packed.
            hx: the states to begin with, as the dense layer takes them; 0 where None.

        Raises:
            BadValue: shapes that do not fit.
        """
        if isinstance(inputs, PackedSequence):
            steps, sizes, order, back = inputs
            state = self._start(hx, steps, (int(sizes[0]),))
            outputs, final = self._run(steps, sizes, _permuted(state, order))
            return PackedSequence(outputs, sizes, order, back), self._states(_permuted(final, back))
        if inputs.dim() == 2:
            state = self._start(hx, inputs, ())
            outputs, final = self._run(inputs[:, None], None, tuple(part[:, None] for part in state))
            return outputs[:, 0], self._states(tuple(part[:, 0] for part in final))
        if inputs.dim() != 3:
            raise BadValue(f"{self.mode} takes inputs of 2 or 3 dimensions, not of the shape {tuple(inputs.shape)}")
        steps = inputs.transpose(0, 1) if self.batch_first else inputs
        outputs, final = self._run(steps, None, self._start(hx, steps, (steps.shape[1],)))
        return outputs.transpose(0, 1) if self.batch_first else outputs, self._states(final)

    def flatten_parameters(self) -> None:
        """Do nothing: there are no dense weights to lay out for cuDNN. Models call this on their recurrent layers."""

    def extra_repr(self) -> str:
        """Say the options where the module is printed."""
        options = f"{self.mode}, {self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{options}, bidirectional={self.bidirectional}, proj_size={self.proj_size}"

    def _start(self, hx: Any, steps: torch.Tensor, batch: tuple[int, ...]) -> State:
        """Return the states before the first step, each [layers · directions, *batch, width]; check all shapes."""
        if steps.shape[-1] != self.input_size or not len(steps):
            raise BadValue(f"{self.mode} takes steps of {self.input_size} inputs, not the shape {tuple(steps.shape)}")
        widths = [self.proj_size or self.hidden_size, self.hidden_size][: _CELLS[self.mode].states]
        rows = self.num_layers * (2 if self.bidirectional else 1)
        expected = [(rows, *batch, width) for width in widths]
        if hx is None:
            return tuple(steps.new_zeros(shape) for shape in expected)
        given = (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)
        shapes = [tuple(part.shape) for part in given]
        if shapes != expected:
            raise BadValue(f"{self.mode} begins with states of the shapes {expected}, not {shapes}")
        return given

    def _states(self, final: State) -> torch.Tensor | State:
        return final if self.mode == "LSTM" else final[0]

    def _run(self, steps: torch.Tensor, sizes: torch.Tensor | None, state: State) -> tuple[torch.Tensor, State]:
        """Return the outputs [..., out] of steps [T, B, in], or of packed ones [N, in] with their sizes, and states."""
        if not any(isinstance(child, SparseWeight) and _steps_alone(child) for child in self.children()):
            weights = [_dense(getattr(self, name)) for name in self.names]
            options = self.bias, self.num_layers, self.dropout, self.training, self.bidirectional
            start, run = self._states(state), _CELLS[self.mode].dense
            if sizes is None:
                outputs, *final = run(steps, start, weights, *options, False)
            else:
                outputs, *final = run(steps, sizes, start, weights, *options)
            return outputs, tuple(final)
        batches = [steps.shape[1]] * len(steps) if sizes is None else sizes.tolist()
        columns, final = self._stacked(steps.movedim(-1, 0).reshape(self.input_size, -1), batches, state)
        return columns.t().reshape(*steps.shape[:-1], len(columns)), final

    def _stacked(self, columns: torch.Tensor, batches: list[int], state: State) -> tuple[torch.Tensor, State]:
        """Run layer upon layer: [in, N] to [out, N]."""
        finals: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout:
                # Drawn in the order of the dense layer, so that one seed drops the same activations in both.
                kept = torch.dropout(columns.new_ones(columns.shape[1], columns.shape[0]), self.dropout, True)
                columns = columns * kept.t()
            outputs = []
            for suffix in ("", "_reverse") if self.bidirectional else ("",):
                begin = tuple(part[len(finals)].t() for part in state)
                along = _backward if suffix else _forward
                hidden, final = along(*self._steps(f"l{layer}{suffix}", columns, batches), begin)
                outputs.append(hidden)
                finals.append(final)
            columns = torch.cat(outputs) if self.bidirectional else outputs[0]
        return columns, tuple(torch.stack([part.t() for part in parts]) for parts in zip(*finals, strict=True))

    def _steps(self, name: str, columns: torch.Tensor, batches: list[int]) -> tuple[Step, Sequence[torch.Tensor]]:
        """Return one step of a layer in one direction, and the gates of each step [G, b] without the recurrent part."""
        cell = _CELLS[self.mode]
        bias = by_state = None
        if self.bias:
            bias, by_state = getattr(self, f"bias_ih_{name}"), getattr(self, f"bias_hh_{name}")
            if not cell.apart:
                bias, by_state = bias + by_state, None
        gates = _product(getattr(self, f"weight_ih_{name}"), bias)(columns).split(batches, dim=1)
        recurrent = _product(getattr(self, f"weight_hh_{name}"), by_state)
        project = _product(getattr(self, f"weight_hr_{name}"), None) if self.proj_size else None

        def step(part: torch.Tensor, state: State) -> State:
            hidden, *rest = cell.step(part, recurrent(state[0]), state)
            return hidden if project is None else project(hidden), *rest

        return step, gates


def _forward(step: Step, gates: Sequence[torch.Tensor], state: State) -> tuple[torch.Tensor, State]:
    """Return hidden states of all steps [H, N] and the last ones; sequences that end leave at the right."""
    hidden, ended = [], []
    for part in gates:
        if part.shape[1] < state[0].shape[1]:
            ended.append(tuple(each[:, part.shape[1] :] for each in state))
            state = tuple(each[:, : part.shape[1]] for each in state)
        state = step(part, state)
        hidden.append(state[0])
    return torch.cat(hidden, 1), tuple(torch.cat(parts, 1) for parts in zip(state, *ended[::-1], strict=True))


def _backward(step: Step, gates: Sequence[torch.Tensor], start: State) -> tuple[torch.Tensor, State]:
    """Return the same from the last step to the first; sequences that begin join at the right."""
    hidden: list[torch.Tensor] = []
    state = tuple(each[:, :0] for each in start)
    for part in reversed(gates):
        old, new = state[0].shape[1], part.shape[1]
        if old < new:
            state = tuple(torch.cat([each, begin[:, old:new]], 1) for each, begin in zip(state, start, strict=True))
        state = step(part, state)
        hidden.append(state[0])
    return torch.cat(hidden[::-1], 1), state


def _product(weight: SparseWeight | torch.Tensor, bias: torch.Tensor | None) -> Product:
    """Return `columns [in, b] -> weight · columns + bias`; what many steps share is made once."""
    if isinstance(weight, SparseWeight) and _steps_alone(weight):
        return lambda columns: weight(columns.t(), bias).t()
    matrix = _dense(weight)
    return lambda columns: matrix @ columns if bias is None else torch.addmm(bias[:, None], matrix, columns)


def _steps_alone(weight: SparseWeight) -> bool:
    """Say whether each product must be a call of the weight: it is not dense, or hooks wait for calls."""
    return weight.backend != "dense" or bool(weight._forward_pre_hooks or weight._forward_hooks)


def _dense(weight: SparseWeight | torch.Tensor) -> torch.Tensor:
    return weight.dense() if isinstance(weight, SparseWeight) else weight


def _permuted(state: State, order: torch.Tensor | None) -> State:
    return state if order is None else tuple(part.index_select(1, order) for part in state)


@sparse_layer(nn.LSTM, source="Hochreiter & Schmidhuber 1997; with projections Sak et al. 2014 (arXiv 1402.1128)")
def sparse_lstm(layer: nn.Module, masks: Masks) -> nn.Module:
    """An LSTM whose input product is one for all steps.

    >>> import numpy as np
    >>> layer = nn.LSTM(2, 1)
    >>> form = sparse_lstm(layer, {"weight_ih_l0": np.ones((4, 2), bool)})
    >>> torch.allclose(form(torch.ones(3, 1, 2))[0], layer(torch.ones(3, 1, 2))[0])
    True
    """
    assert isinstance(layer, nn.LSTM)
    return SparseRecurrent(layer, masks)


@sparse_layer(nn.GRU, source="Cho et al. 2014 (arXiv 1406.1078)")
def sparse_gru(layer: nn.Module, masks: Masks) -> nn.Module:
    """A GRU whose input product is one for all steps.

    >>> import numpy as np
    >>> layer = nn.GRU(2, 1)
    >>> form = sparse_gru(layer, {"weight_ih_l0": np.ones((3, 2), bool)})
    >>> torch.allclose(form(torch.ones(3, 1, 2))[0], layer(torch.ones(3, 1, 2))[0])
    True
    """
    assert isinstance(layer, nn.GRU)
    return SparseRecurrent(layer, masks)


@sparse_layer(nn.RNN, source="Elman 1990")
def sparse_rnn(layer: nn.Module, masks: Masks) -> nn.Module:
    """An RNN whose input product is one for all steps.

    >>> import numpy as np
    >>> layer = nn.RNN(2, 1)
    >>> form = sparse_rnn(layer, {"weight_ih_l0": np.ones((1, 2), bool)})
    >>> torch.allclose(form(torch.ones(3, 1, 2))[0], layer(torch.ones(3, 1, 2))[0])
    True
    """
    assert isinstance(layer, nn.RNN)
    return SparseRecurrent(layer, masks)
