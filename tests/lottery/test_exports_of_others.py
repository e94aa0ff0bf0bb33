"""Exports of other people's modules: extra states, outputs of any type, inputs of any form; or one clear line."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader

from lottery import Ticket, find_ticket
from lottery.data import Data
from lottery.exports import EXPORTS, TicketNetwork
from lottery.exports.exporting import export
from lottery.exports.loaders import csr
from lottery.exports.programs import compacted_program, flat_program
from pruning.errors import BadValue, LotteryError, RunError
from pruning.mask import Mask
from tests.lottery.helpers import blobs

FORMATS = EXPORTS.names()
INTO_MODELS = ["torch-prune", "parametrize", "csr"]
DATA = Data(train=blobs(48), validation=blobs(24, seed=1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(x)


class Versioned(Net):
    """Its state dict holds an entry that is no tensor."""

    def get_extra_state(self) -> Any:
        return {"version": 3, "parts": [torch.ones(2), {"name": "x"}]}

    def set_extra_state(self, state: Any) -> None:
        self.found = state


class Odd:
    pass


class Unreadable(Versioned):
    def get_extra_state(self) -> Any:
        return Odd()


class Refusing(Versioned):
    def set_extra_state(self, state: Any) -> None:
        raise RuntimeError("not this version")


def ticket_of(model: nn.Module, folder: Path, data: Data = DATA, **more: Any) -> Ticket:
    return find_ticket(model, data, levels=1, steps=5, tolerance=1.0, out=folder, quiet=True, **more)


@pytest.mark.parametrize("to", FORMATS)
def test_a_module_with_extra_state(tmp_path, to):
    ticket = ticket_of(Versioned(), tmp_path / "runs")
    exported = export(ticket, to, Versioned(), DATA, out=tmp_path / "e")
    assert exported.difference <= exported.tolerance
    if to in INTO_MODELS:
        module = EXPORTS[to].value.loader
        assert module.load(Versioned(), tmp_path / "e").found["version"] == 3
    fast = ticket.sparse(Versioned(), torch.ones(4, 6))
    assert fast.state_dict()["_extra_state"]["version"] == 3


@pytest.mark.parametrize("to", INTO_MODELS)
def test_an_extra_state_that_no_file_gives_back_is_one_line(tmp_path, to):
    ticket = ticket_of(Unreadable(), tmp_path / "runs")
    with pytest.raises(BadValue, match="'_extra_state' is a module's extra state of type Odd") as caught:
        export(ticket, to, Unreadable(), DATA, out=tmp_path / "e")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and not (tmp_path / "e").exists()
    with pytest.raises(BadValue, match=rf"cannot be read again \(RuntimeError: not this version \({__file__}, line"):
        export(ticket, to, Refusing(), DATA, out=tmp_path / "e")
    assert not (tmp_path / "e").exists()


@dataclass
class Result:
    logits: torch.Tensor
    more: Any = None


class ReturnsDataclass(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return Result(self.body(x))


class ReturnsUserDict(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return UserDict(logits=self.body(x))


def logits(outputs: Any) -> torch.Tensor:
    return outputs["logits"] if isinstance(outputs, UserDict) else outputs.logits


@pytest.mark.parametrize("model", [ReturnsDataclass, ReturnsUserDict])
@pytest.mark.parametrize("to", FORMATS)
def test_outputs_of_types_that_nobody_registered(tmp_path, model, to):
    more = {
        "loss": lambda out, y: F.cross_entropy(logits(out), y),
        "metric": lambda out, y: (logits(out).argmax(1) == y).float().mean(),
    }
    ticket = ticket_of(model(), tmp_path / "runs", **more)
    if to in ("compacted", "onnx"):
        with pytest.raises(BadValue, match="torch.export cannot take.*known type"):
            export(ticket, to, model(), DATA, out=tmp_path / "e")
    else:
        assert export(ticket, to, model(), DATA, out=tmp_path / "e").difference < 1e-5


@pytest.mark.parametrize("form", ["tuple", "mapping"])
@pytest.mark.parametrize("to", FORMATS)
def test_several_inputs(tmp_path, form, to):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Net().body

        def forward(self, x: torch.Tensor, z: torch.Tensor) -> Any:
            return self.body(x) + z.mean(1, keepdim=True)

    x, y = map(torch.from_numpy, blobs(48))
    items = [((a, a[:2]) if form == "tuple" else {"x": a, "z": a[:2]}, b) for a, b in zip(x, y, strict=True)]
    data = Data(train=DataLoader(items, 16), validation=DataLoader(items, 16))  # pyright: ignore[reportArgumentType]
    ticket = ticket_of(Two(), tmp_path / "runs", data)
    assert export(ticket, to, Two(), data, out=tmp_path / "e").difference < 1e-5


def test_packed_inputs_of_a_program_are_one_line():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(2, 3)

        def forward(self, x: PackedSequence) -> torch.Tensor:
            return self.rnn(x)[1]

    words = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    mask = Mask({"rnn.weight_hh_l0": torch.eye(3).bool().numpy()})
    for inputs in (words, (words,)):
        with pytest.raises(BadValue, match="takes a PackedSequence"):
            compacted_program(TicketNetwork(Words().eval(), mask, inputs))


def test_a_model_that_fails_on_the_examples_is_one_line_with_its_place(tmp_path):
    class Fails(Net):
        def forward(self, x: torch.Tensor) -> Any:
            if not self.training and not torch.is_grad_enabled() and self.armed:
                raise ValueError("not today")
            return self.body(x)

        armed = False

    ticket = ticket_of(Fails(), tmp_path / "runs")
    Fails.armed = True
    for to in FORMATS:
        with pytest.raises(LotteryError, match="not today") as caught:
            export(ticket, to, Fails(), DATA, out=tmp_path / "e")
        assert "\n" not in str(caught.value) and f"{__file__}, line" in str(caught.value), to
    assert not (tmp_path / "e").exists()


def test_a_model_without_a_tensor_in_its_outputs_is_one_line(tmp_path):
    ticket = ticket_of(Net(), tmp_path / "runs")

    class Silent(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return "nothing"

    with pytest.raises(RunError, match="returns no tensor"):
        export(ticket, "csr", Silent(), DATA, out=tmp_path / "e")


@dataclass
class Graph:
    x: torch.Tensor


class OfGraphs(Net):
    def forward(self, x: Any) -> Any:
        return self.body(x.x)


def test_tensors_that_a_program_would_take_for_constants_are_one_line():
    """A tracer finds no tensor in an object of somebody's class: the file would answer for the example alone."""
    network = TicketNetwork(OfGraphs().eval(), Mask({"body.0.weight": torch.ones(8, 6)}), Graph(torch.ones(4, 6)))
    with pytest.raises(BadValue, match="takes tensors inside of Graph, which no traced network takes"):
        flat_program(network)


class Adapter(nn.Linear):
    """Merges itself in evaluation mode."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.low, self.merged = nn.Parameter(torch.full((outputs, inputs), 0.1)), False

    def train(self, mode: bool = True) -> Any:
        if mode == self.merged:
            self.weight.data += (-1 if self.merged else 1) * self.low.data
            self.merged = not self.merged
        return super().train(mode)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight if self.merged else self.weight + self.low, self.bias)


def test_merged_adapters_are_exported_under_the_mask_or_refused(tmp_path):
    """Weights that a file gives to a model would get the adapter a second time, where its loader sets no mode."""
    ticket = ticket_of(nn.Sequential(Adapter(6, 8), nn.ReLU(), nn.Linear(8, 3)), tmp_path, skip=["0.low"])
    model = nn.Sequential(Adapter(6, 8), nn.ReLU(), nn.Linear(8, 3))
    for to in set(INTO_MODELS) - {"csr"}:
        with pytest.raises(BadValue, match="merges an adapter into '0.weight', and would merge it again"):
            export(ticket, to, model, DATA, out=tmp_path / to)
    export(ticket, "onnx", model, DATA, out=tmp_path / "onnx")
    assert export(ticket, "csr", model, DATA, out=tmp_path / "csr").difference == 0.0
    again = csr.load(nn.Sequential(Adapter(6, 8), nn.ReLU(), nn.Linear(8, 3)), tmp_path / "csr")
    assert not again.training
    wanted = ticket.trained(model).eval()(torch.ones(2, 6))
    torch.testing.assert_close(again.eval()(torch.ones(2, 6)), wanted)
