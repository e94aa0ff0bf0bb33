"""Exports: other ecosystems read a ticket without this toolkit, and get the same numbers."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils.data import DataLoader, TensorDataset

from lottery import Data, Ticket, find_ticket
from lottery.cli.app import run
from lottery.exports import EXPORTS, into_blank_model, whole_program
from lottery.exports.exporting import Exported, export
from lottery.exports.loaders import csr
from lottery.exports.loaders.onnx import load as load_onnx
from lottery.exports.reaching import check_reached
from lottery.runs.network import TicketNetwork
from lottery.state.tensors import state_of
from pruning.errors import BadValue, FileFormatError, MaskMismatch, RunError, UnknownName, UsageError
from pruning.mask import Mask
from pruning.torch_modules import prunable

HERE = "tests.lottery.test_exports"
STATE_DICTS = ("csr", "parametrize", "torch-prune")
PROGRAMS = ("compacted", "onnx")
SEQUENCES = Data(
    train=(np.random.Generator(np.random.PCG64(3)).standard_normal((40, 5, 6), "float32"), np.arange(40) % 3)
)


def small_mlp() -> nn.Module:
    layers = {"flatten": nn.Flatten(), "fc1": nn.Linear(64, 24), "relu": nn.ReLU(), "fc2": nn.Linear(24, 10)}
    return nn.Sequential(OrderedDict(layers))


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.fc = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.attention(x, x, x)[0].mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.first(x).relu()).mean(1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.two(z)


class Noisy(nn.Module):
    """Draws in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(30, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) + self.noise()

    def noise(self) -> torch.Tensor:
        return torch.rand(3)


class NeverTheSame(Noisy):
    """Never gives the same outputs twice, whatever the random state."""

    calls = itertools.count()

    def noise(self) -> torch.Tensor:
        return torch.full((3,), float(next(self.calls)))


def ticket_of(model: nn.Module, density: float = 0.4, only: tuple[str, ...] = ()) -> Ticket:
    """A ticket by hand: a random mask on a model's own weights."""
    rng = np.random.Generator(np.random.PCG64(0))
    mask = Mask({name: rng.random(shape) < density for name, shape in prunable(model, only).items()})
    return Ticket(mask, state_of(model), mask.apply(state_of(model)), {"seed": 0})


@pytest.fixture(scope="module")
def tickets(tmp_path_factory) -> dict[str, Ticket]:
    settings = {"sparsity": 0.8, "prune_rate": 0.5, "steps": 30, "tolerance": 1.0, "batch_size": 32, "quiet": True}
    out = tmp_path_factory.mktemp("found") / "runs"
    return {name: find_ticket(f"{HERE}:{name}", "digits", out=out, **settings) for name in ("small_mlp", "small_cnn")}


@pytest.fixture(scope="module")
def exported(tickets, tmp_path_factory) -> dict[tuple[str, str], Exported]:
    out = tmp_path_factory.mktemp("exports")
    pairs = [(name, to) for name in tickets for to in EXPORTS.names()]
    return {(name, to): export(tickets[name], to, out=out / name / to) for name, to in pairs}


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))


def loader_in(folder: Path):
    """The `load.py` of a folder, as a module."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return csr.read(folder)


@pytest.mark.parametrize("model", ["small_mlp", "small_cnn"])
@pytest.mark.parametrize("to", EXPORTS.names())
def test_an_export_measures_itself_and_says_what_it_wrote(exported, tickets, model, to):
    found: Exported = exported[model, to]
    assert found.difference <= found.tolerance == 1e-5 and found.examples == 32
    assert found.density == tickets[model].density and (found.to, found.weights) == (to, "trained")
    assert found.files == {path.name: path.stat().st_size for path in found.path.iterdir()}
    assert {"load.py", "export.json"} < found.files.keys() and len(found.files) == 3
    assert found.dense_bytes == sum(array.nbytes for array in tickets[model].params.values())


def test_a_process_without_this_toolkit_gets_the_same_numbers_at_any_batch_size(exported, tickets, tmp_path):
    """All formats; 1, 5 and 50 examples, where 32 were exported with."""
    sizes = (1, 5, 50)
    np.savez(tmp_path / "inputs.npz", allow_pickle=False, **{str(n): images(n).numpy() for n in sizes})
    folders = {f"{model} {to}": str(found.path) for (model, to), found in exported.items()}
    script = f"""
        import runpy, sys
        for ours in ("lottery", "pruning", "es"):
            sys.modules[ours] = None  # importing it is an error now
        from collections import OrderedDict
        import numpy as np, torch
        from torch import nn
        MODELS
        results = {{}}
        for name, folder in {folders!r}.items():
            model, to = name.split()
            load = runpy.run_path(folder + "/load.py")["load"]
            loaded = load(globals()[model]()).eval() if to in {STATE_DICTS!r} else load()
            for n, x in np.load("inputs.npz").items():
                if to == "onnx":
                    (results[f"{{name}} {{n}}"],) = loaded.run(None, {{loaded.get_inputs()[0].name: x}})
                else:
                    results[f"{{name}} {{n}}"] = loaded(torch.from_numpy(x)).detach().numpy()
        np.savez("outputs.npz", **results)
    """
    script = textwrap.dedent(script).replace("MODELS", inspect.getsource(small_mlp) + inspect.getsource(small_cnn))
    command = [sys.executable, "-I", "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    results = np.load(tmp_path / "outputs.npz")
    for name in folders:
        dense = tickets[name.split()[0]].trained(globals()[name.split()[0]]).eval()
        for n in sizes:
            wanted = dense(images(n)).detach().numpy()
            np.testing.assert_allclose(results[f"{name} {n}"], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


class TestTorchPrune:
    def test_the_state_dict_is_what_torch_leaves(self, exported, tickets):
        model = tickets["small_cnn"].trained(small_cnn)
        for name, keep in tickets["small_cnn"].mask.items():
            owner = model.get_submodule(name.removesuffix(".weight"))
            prune.custom_from_mask(owner, "weight", torch.from_numpy(keep.copy()))
        state = stored(exported["small_cnn", "torch-prune"].path)
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())

    def test_it_loads_strictly_after_prune_identity_too(self, exported, tickets):
        model = small_mlp()
        for name in ("fc1", "fc2"):
            prune.identity(model.get_submodule(name), "weight")
        model.load_state_dict(stored(exported["small_mlp", "torch-prune"].path))
        assert torch.equal(model(images(4)), tickets["small_mlp"].trained(small_mlp)(images(4)))


class TestParametrize:
    def test_the_keys_are_those_of_torch(self, exported):
        state = stored(exported["small_mlp", "parametrize"].path)
        masked = {f"{fc}.parametrizations.weight.{part}" for fc in ("fc1", "fc2") for part in ("original", "0.mask")}
        assert state.keys() == masked | {"fc1.bias", "fc2.bias"}
        assert state["fc1.parametrizations.weight.0.mask"].dtype == torch.bool

    def test_it_can_be_made_permanent(self, exported, tickets):
        model = loader_in(exported["small_mlp", "parametrize"].path).load(small_mlp())
        for name in ("fc1", "fc2"):
            parametrize.remove_parametrizations(model.get_submodule(name), "weight")
        trained = tickets["small_mlp"].trained(small_mlp).state_dict()
        assert all(torch.equal(model.state_dict()[name], value) for name, value in trained.items())


@pytest.mark.parametrize("to", ["torch-prune", "parametrize"])
@pytest.mark.parametrize("kind", [Recurrent, Tied])
def test_what_was_loaded_stays_masked_and_tied_while_it_trains(kind, to, tmp_path):
    ticket = ticket_of(kind())
    export(ticket, to, kind(), SEQUENCES, out=tmp_path / "out")
    model = loader_in(tmp_path / "out").load(kind())
    before = model(torch.ones(2, 5, 6)).detach()
    steps = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        steps.zero_grad()
        model(torch.ones(2, 5, 6)).square().sum().backward()
        steps.step()
    assert not torch.allclose(model(torch.ones(2, 5, 6)), before)
    for name, keep in ticket.mask.items():
        owner, _, attribute = name.rpartition(".")
        weight = getattr(model.get_submodule(owner), attribute).detach()
        assert (weight[~torch.from_numpy(keep.copy())] == 0).all() and (weight != 0).any()
    if kind is Tied:
        assert torch.equal(model.first.weight, model.second.weight)


class TestCsr:
    def test_the_pattern_is_the_masks_and_a_survivor_at_zero_stays_stored(self, tmp_path):
        model, mask = nn.Linear(4, 2), Mask({"weight": [[1, 1, 0, 0], [0, 0, 0, 1]]})
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[0.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, -0.0]]))
        ticket = Ticket(mask, state_of(model), None, {"seed": 0})
        data = (np.ones((20, 4), "float32"), np.arange(20) % 2)
        export(ticket, "csr", model, data, out=tmp_path / "csr", weights="rewind")
        weight = loader_in(tmp_path / "csr").read()["weight"]
        assert weight.layout == torch.sparse_csr and weight.crow_indices().dtype == torch.int32
        assert weight.crow_indices().tolist() == [0, 2, 3] and weight.col_indices().tolist() == [0, 1, 3]
        assert weight.values().tolist() == [0.0, 2.0, 0.0]

    def test_a_convolution_is_a_matrix_with_its_shape_beside(self, exported, tickets):
        state = loader_in(exported["small_cnn", "csr"].path).read()
        kernel = state["4.weight"]
        assert tuple(kernel.shape) == (8, 54) and state["4.weight.shape"].tolist() == [8, 6, 3, 3]
        assert "9.weight.shape" not in state
        for name, count in tickets["small_cnn"].mask.counts().items():
            assert state[name].values().numel() == count
        x = images(2)[:1].repeat(1, 6, 1, 1)
        dense = nn.functional.conv2d(x, tickets["small_cnn"].trained(small_cnn).get_parameter("4.weight"))
        product = kernel @ nn.functional.unfold(x, 3).squeeze(0)
        assert torch.allclose(product.reshape(dense.shape), dense, atol=1e-5)

    def test_the_product_of_its_docstring(self, exported, tickets):
        csr = loader_in(exported["small_mlp", "csr"].path).read()["fc1.weight"]
        x = images(3).flatten(1)
        dense = x @ tickets["small_mlp"].trained(small_mlp).get_parameter("fc1.weight").T
        assert torch.allclose((csr @ x.T).T, dense, atol=1e-5)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A ticket with hidden units that nothing reaches or that reach nothing."""
    model = small_mlp()
    first, second = np.ones((24, 64), bool), np.ones((10, 24), bool)
    first[:10] = second[:, 5:16] = False
    mask = Mask({"fc1.weight": first, "fc2.weight": second})
    ticket = Ticket(mask, state_of(model), mask.apply(state_of(model)), {"seed": 0})
    out = tmp_path_factory.mktemp("narrow")
    return {to: export(ticket, to, model, "digits", out=out / to) for to in PROGRAMS}


class TestPrograms:
    def test_what_no_weight_reaches_is_not_in_the_file(self, narrow):
        parameters = dict(loader_in(narrow["compacted"].path).load().named_parameters())
        assert sorted(tuple(p.shape) for p in parameters.values() if p.dim() == 2) == [(8, 64), (10, 8)]
        onnx = pytest.importorskip("onnx")
        weights = onnx.load(narrow["onnx"].path / "model.onnx").graph.initializer
        assert sorted(sorted(each.dims) for each in weights if len(each.dims) == 2) == [[8, 10], [8, 64]]

    @pytest.mark.parametrize("to", PROGRAMS)
    def test_the_file_holds_neither_training_examples_nor_paths(self, exported, to):
        found = exported["small_cnn", to]
        for name in ("model.pt2", "model.onnx"):
            if name in found.files:
                content = (found.path / name).read_bytes()
                assert len(content) < found.dense_bytes + 30_000
                assert str(Path(torch.__file__).parent).encode() not in content
                assert str(Path(__file__).parent).encode() not in content
        if to == "compacted":
            assert torch.export.load(found.path / "model.pt2").example_inputs is None

    @pytest.mark.parametrize("to", PROGRAMS)
    def test_several_inputs_keep_their_order(self, to, tmp_path):
        x, z = torch.randn(40, 6), torch.randn(40, 4)
        loader = DataLoader(TensorDataset(x, z, torch.arange(40) % 3), batch_size=20, collate_fn=two_inputs)
        data, model = Data(train=loader, validation=loader), TwoInputs()
        found = export(ticket_of(model), to, model, data, out=tmp_path / to)
        assert found.difference <= 1e-5

    @pytest.mark.parametrize("to", PROGRAMS)
    def test_inputs_by_name_keep_their_names(self, to, tmp_path):
        x, z = torch.randn(40, 6), torch.randn(40, 4)
        loader = DataLoader(TensorDataset(x, z, torch.arange(40) % 3), batch_size=20, collate_fn=named_inputs)
        data, model = Data(train=loader, validation=loader), TwoInputs()
        assert export(ticket_of(model), to, model, data, out=tmp_path / to).difference <= 1e-5
        if to == "onnx":
            assert [each.name for each in load_onnx(tmp_path / to).get_inputs()] == ["x", "z"]
        assert export(ticket_of(model), "csr", model, data, out=tmp_path / "csr").difference == 0

    def test_a_model_that_fixes_the_batch_size_is_refused_in_words_or_written_for_that_size(self, tmp_path):
        model = FixedBatch()
        with pytest.raises(BadValue, match=r"torch\.export cannot take this network with a free batch size"):
            export(ticket_of(model), "compacted", model, SEQUENCES, out=tmp_path / "out")
        assert not list(tmp_path.iterdir())
        found = export(ticket_of(model), "onnx", model, SEQUENCES, out=tmp_path / "onnx")
        assert found.notes[-1].startswith("for batches of exactly 32 examples: torch.export cannot leave")

    @pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
    def test_a_missing_package_names_the_extra(self, tickets, tmp_path, monkeypatch, package):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
        with pytest.raises(UsageError, match=rf"needs {package}: pip install 'lottery-tickets\[onnx\]'"):
            export(tickets["small_mlp"], "onnx", out=tmp_path / "out")


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(30, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) + torch.zeros(int(x.shape[0]), 3)


def two_inputs(items):
    x, z, y = (torch.stack(each) for each in zip(*items, strict=True))
    return (x, z), y


def named_inputs(items):
    (x, z), y = two_inputs(items)
    return {"x": x, "z": z}, y


@pytest.mark.parametrize("kind", [Recurrent, Attention, Tied])
@pytest.mark.parametrize("to", EXPORTS.names())
def test_other_layers_are_exported_or_refused_by_name(kind, to, tmp_path):
    model = kind()
    if kind is Attention and to == "torch-prune":
        with pytest.raises(
            BadValue, match=r"'attention\.out_proj\.weight' is read .* torch\.nn\.utils\.prune does not"
        ):
            export(ticket_of(model), to, model, SEQUENCES, out=tmp_path / to)
        return
    assert export(ticket_of(model), to, model, SEQUENCES, out=tmp_path / to).difference <= 1e-5


def test_a_layer_with_a_parametrization_of_its_own_is_refused_and_left_alone(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(30, 3)))
    with pytest.raises(BadValue, match=r"'1\.bias' belongs to a layer with a parametrization of its own"):
        export(ticket_of(model, only=("1.bias",)), "parametrize", model, SEQUENCES, out=tmp_path / "out")
    masked = ticket_of(model, only=("*original1",))
    assert export(masked, "parametrize", model, SEQUENCES, out=tmp_path / "out").difference == 0
    assert model(torch.ones(2, 5, 6)).shape == (2, 3)


def test_a_masked_vector_has_no_compressed_rows(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    with pytest.raises(BadValue, match=r"'1\.bias' has the shape \[3\], and compressed rows need a matrix"):
        export(ticket_of(model, only=("1.*",)), "csr", model, SEQUENCES, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["csr", "torch-prune", "parametrize", "compacted"])
def test_half_precision_is_kept(to, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3)).to(torch.bfloat16)
    found = export(ticket_of(model), to, model, SEQUENCES, out=tmp_path / to)
    assert found.tolerance == 1e-2 and found.difference <= 1e-2


def test_bfloat16_is_not_for_onnxruntime(tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3)).to(torch.bfloat16)
    with pytest.raises(BadValue, match=r"'1\.weight' is bfloat16"):
        export(ticket_of(model), "onnx", model, SEQUENCES, out=tmp_path / "out")


@pytest.mark.parametrize("to", ["csr", "compacted"])
def test_the_rewind_weights_are_exported_when_asked_for(to, tickets, tmp_path):
    ticket = tickets["small_mlp"]
    found = export(ticket, to, out=tmp_path / to, weights="rewind")
    assert found.difference <= 1e-5 and found.weights == "rewind"
    if to == "csr":
        keep = ticket.mask["fc1.weight"]
        assert stored(found.path)["fc1.weight"].values().tolist() == ticket.params["fc1.weight"][keep].tolist()


class TestWrongRequests:
    @pytest.mark.parametrize("to", EXPORTS.names())
    def test_other_outputs_are_an_error_and_leave_nothing(self, to, tmp_path):
        with pytest.raises(RunError, match=f"the {to} file gives other outputs than the masked dense network"):
            export(ticket_of(NeverTheSame()), to, NeverTheSame(), SEQUENCES, out=tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_network_that_draws_is_compared_from_one_random_state(self, tmp_path):
        model = Noisy()
        assert export(ticket_of(model), "csr", model, SEQUENCES, out=tmp_path / "out").difference == 0.0

    def test_outputs_that_are_not_finite_are_an_error(self, tmp_path):
        model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
        nn.init.constant_(model.get_parameter("1.bias"), float("inf"))
        with pytest.raises(RunError, match="outputs that are not finite"):
            export(ticket_of(model), "csr", model, SEQUENCES, out=tmp_path / "out")

    def test_a_wrong_name_gets_a_hint(self, tickets, tmp_path):
        with pytest.raises(UnknownName, match="unknown export format 'torch_prune': did you mean 'torch-prune'"):
            export(tickets["small_mlp"], "torch_prune", out=tmp_path / "out")
        with pytest.raises(UnknownName, match="unknown weights 'rewound': did you mean 'rewind'"):
            export(tickets["small_mlp"], "csr", out=tmp_path / "out", weights="rewound")

    def test_a_model_that_does_not_fit(self, tickets, tmp_path):
        with pytest.raises(MaskMismatch, match="no tensor"):
            export(tickets["small_mlp"], "csr", small_cnn(), out=tmp_path / "out")

    def test_what_has_no_name_must_be_given(self, tmp_path):
        ticket = ticket_of(Recurrent())
        with pytest.raises(BadValue, match="its data has no name; say which with data=… .--data."):
            export(ticket, "csr", Recurrent(), out=tmp_path / "out")
        with pytest.raises(BadValue, match="its model has no name; say which with model=… .--model."):
            export(ticket, "csr", data=SEQUENCES, out=tmp_path / "out")
        with pytest.raises(BadValue, match="its export needs a folder: out=…"):
            export(ticket, "csr", Recurrent(), SEQUENCES)

    def test_trained_weights_that_were_not_stored(self, tmp_path):
        model = Recurrent()
        bare = Ticket(ticket_of(model).mask, state_of(model), None, {"seed": 0})
        with pytest.raises(BadValue, match="holds no trained weights; .*--weights rewind"):
            export(bare, "csr", model, SEQUENCES, out=tmp_path / "out")

    def test_a_jax_pair(self, tmp_path):
        model = nn.Linear(6, 3)
        ticket = Ticket(ticket_of(model).mask, state_of(model), state_of(model), {"seed": 0, "framework": "jax"})
        with pytest.raises(BadValue, match="this ticket's model is in JAX: .*give a PyTorch module"):
            export(ticket, "csr", data=SEQUENCES, out=tmp_path / "out")
        pair = ({"weight": np.zeros((3, 6))}, lambda params, x: x)
        with pytest.raises(BadValue, match="PyTorch"):
            export(ticket_of(model), "csr", pair, SEQUENCES, out=tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_jax_ticket_is_exported_by_a_twin_in_pytorch(self, tmp_path):
        model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
        ticket = Ticket(ticket_of(model).mask, state_of(model), state_of(model), {"seed": 0, "framework": "jax"})
        assert export(ticket, "csr", model, SEQUENCES, out=tmp_path / "out").difference == 0.0

    def test_an_existing_folder_is_replaced_only_where_it_is_an_export_and_force_says_so(self, tickets, tmp_path):
        ticket, out = tickets["small_mlp"], tmp_path / "out"
        export(ticket, "csr", out=out)
        with pytest.raises(BadValue, match="is there already; use --force"):
            export(ticket, "csr", out=out)
        (out / "old").touch()
        export(ticket, "parametrize", out=out, force=True)
        assert not (out / "old").exists() and json.loads((out / "export.json").read_text())["to"] == "parametrize"
        with pytest.raises(UnknownName):
            export(ticket, "csr", "mlpp", out=out, force=True)
        assert (out / "state_dict.pt").exists()
        (tmp_path / "mine").mkdir()
        with pytest.raises(BadValue, match="mine is not an export, and is not replaced"):
            export(ticket, "csr", out=tmp_path / "mine", force=True)
        with pytest.raises(FileFormatError, match="no such ticket"):
            export(tmp_path / "nowhere", "csr", out=tmp_path / "other")


def test_a_policy_is_compared_on_first_observations(tmp_path, monkeypatch):
    import jax

    from es.tasks.environments import Discrete, Environment
    from lottery.data.episodes import Episodes

    world = Environment("gymnax:Toy", (4,), Discrete(2), 5, lambda key: (jax.random.normal(key, (4,)), 0), None)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("lottery.runs.network.load_episodes", lambda name: Episodes(name, world))
    model = nn.Linear(4, 2)
    found = export(ticket_of(model), "torch-prune", model, "gymnax:Toy", out=tmp_path / "out")
    assert found.examples == 32 and found.difference == 0


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))

    def lottery(self, capfd, *arguments):
        code = run(["export", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    @pytest.mark.parametrize("to", EXPORTS.names())
    def test_json_is_one_object_and_nothing_else(self, capfd, tickets, to):
        path = tickets["small_cnn"].path
        code, out, err = self.lottery(capfd, path, "--to", to, "--json", "--quiet", "--trust")
        found = json.loads(out)
        assert (code, err) == (0, "")
        assert Path(found["path"]).is_dir() and found["path"].endswith(f"-{path.parent.name}-{path.name}-{to}")
        assert found["path"].startswith(f"{path.parent.parent.name}-seed-0")
        assert found["difference"] <= 1e-5 and found["to"] == to and found["files"]["load.py"] > 0

    def test_people_read_sizes_and_the_difference_and_quiet_prints_the_folder(self, capfd, tickets):
        path = tickets["small_mlp"].path
        code, out, err = self.lottery(capfd, path, "--to", "csr", "--out", "one", "--trust")
        assert (code, err) == (0, "")
        assert out.startswith("csr: one (trained weights, density 0.1") and "state_dict.pt" in out
        assert "Read again: within 0 (relative) of the masked dense network on 32 examples." in out
        assert self.lottery(capfd, path, "--to", "csr", "--out", "two", "--quiet", "--trust") == (0, "two\n", "")
        code, out, err = self.lottery(capfd, path, "--to", "csr", "--out", "one", "--trust")
        assert (code, out) == (
            2,
            "",
        ) and err == "lottery: one is there already; use --force to replace it, or another --out\n"
        assert self.lottery(capfd, path, "--to", "csr", "--out", "one", "--force", "--quiet", "--trust")[0] == 0

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--to", "onx"], "unknown export format 'onx': did you mean 'onnx'?"),
            (["--to", "csr", "--weights", "train"], "unknown weights 'train': did you mean 'trained'"),
            (["--to", "csr", "--model", "lenet-300-10"], "unknown model 'lenet-300-10': did you mean 'lenet-300-100'"),
            ([], "Missing option '--to'"),
        ],
    )
    def test_a_wrong_command_is_one_line(self, capfd, tickets, words, message):
        code, out, err = self.lottery(capfd, tickets["small_mlp"].path, *words)
        assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1
        assert not list(Path().iterdir())


def test_a_file_is_read_into_a_model_without_values_and_a_program_without_a_model(tmp_path):
    model = nn.Linear(2, 1).eval()
    network = TicketNetwork(model, Mask({"weight": [[1, 0]]}), torch.ones(3, 2))
    assert into_blank_model(lambda blank, folder: blank)(tmp_path, network)(network.inputs).isnan().all()
    assert torch.equal(whole_program(lambda folder: model)(tmp_path, network)(network.inputs), model(network.inputs))


def test_a_weight_that_is_read_without_its_layer_is_noticed():
    model = Attention().eval()
    names = ("fc.weight", "attention.out_proj.weight")
    network = TicketNetwork(
        model, Mask.dense({name: tuple(model.get_parameter(name).shape) for name in names}), torch.ones(2, 5, 6)
    )
    watched = Attention().eval()
    modules = {name: watched.get_submodule(name.removesuffix(".weight")) for name in names}
    check_reached(network, watched, {names[0]: modules[names[0]]}, "a hook")
    with pytest.raises(
        BadValue, match=r"'attention\.out_proj\.weight' is read by its layer in a way that a hook does not"
    ):
        check_reached(network, watched, modules, "a hook")
    assert not any(module._forward_hooks for module in watched.modules())
