"""Models with unusual tensors: infinite, cached, sparse, growing, packed; and callers in unusual modes."""

import dataclasses
import os
import threading
from collections import UserDict, deque, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset, default_collate

from lottery import Data, find_ticket
from lottery.data.batch import form, is_divisible, joined, move, rows, size
from lottery.networks.evaluation import InEvaluation
from lottery.networks.objectives.objective import call
from lottery.networks.sources.redrawing import SameWeights
from lottery.runs.ticket import Ticket
from lottery.state.tensors import load_state, state_of
from lottery.trainers.gd.loop.gradients import clip_gradients, mask_gradients
from pruning.copies.copying import copy_module
from pruning.errors import BadValue, DataError, MaskMismatch, NothingToPrune
from pruning.jobs import stays_finite
from tests.lottery.helpers import blobs, search

# PyTorch calls its compressed sparse tensors a beta.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse CS. tensor support is in beta")

INPUTS, LABELS = (torch.from_numpy(array) for array in blobs(60))
DATA = (INPUTS, LABELS)
BOTH = pytest.mark.parametrize("trainer", ["gd", "es"])


def last(found) -> Any:
    """The ticket of a search's last level."""
    return Ticket.load(found.levels[-1].replicates[0].path)


class Base(nn.Module):
    """6-8-3; its subclasses add one oddity."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def hidden(self, inputs):
        return torch.relu(self.first(inputs))

    def forward(self, inputs):
        return self.second(self.hidden(inputs))


class TestInfinities:
    class Masked(Base):
        def __init__(self, frozen=False):
            super().__init__()
            mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
            if frozen:
                self.mask = nn.Parameter(mask, requires_grad=False)
            else:
                self.register_buffer("mask", mask)
            self.register_buffer("lowest", torch.full((2,), torch.nan))

        def forward(self, inputs):
            outputs = super().forward(inputs)
            return (outputs[:, None, :] + self.mask).softmax(-1).sum(-1) * 0 + outputs

    @BOTH
    @pytest.mark.parametrize("frozen", [False, True])
    def test_constants_are_no_divergence(self, tmp_path, trainer, frozen):
        found = search(tmp_path, self.Masked(frozen), DATA, trainer=trainer)
        assert np.isneginf(last(found).trained_params["mask"]).sum() == 3

    def test_what_becomes_infinite_is(self, tmp_path):
        start = {"mask": np.array([0.0, -np.inf]), "w": np.zeros(2)}
        assert stays_finite({**start, "mask": np.array([1.0, 0.0])}, start)
        assert not stays_finite({**start, "mask": np.array([np.nan, -np.inf])}, start)
        assert not stays_finite({**start, "w": np.array([np.inf, 0.0])}, start)
        with pytest.raises(Exception, match="not finite"):
            search(tmp_path, self.Masked(), DATA, optimizer="sgd", lr=1e12)

    @BOTH
    def test_a_trainable_parameter_that_begins_so_is_named(self, tmp_path, trainer):
        model = Base()
        with torch.no_grad():
            model.first.bias[2] = torch.inf
        with pytest.raises(BadValue, match=r"'first.bias' holds values that are NaN or infinite before"):
            search(tmp_path, model, DATA, trainer=trainer)


@dataclasses.dataclass
class Kept:
    value: object = None


class Remembering(Base):
    def __init__(self, wrap):
        super().__init__()
        self.wrap, self.maps = wrap, None

    def hidden(self, inputs):
        found = super().hidden(inputs)
        self.maps = self.wrap(found)
        return found


WRAPS = {
    "attribute": lambda x: x,
    "list": lambda x: [x],
    "nested": lambda x: {"a": ({"b": [x]}, 1)},
    "dataclass": Kept,
    "object": lambda x: type("Plain", (), {"__init__": lambda self: setattr(self, "x", x)})(),
    "deque": lambda x: deque([x], maxlen=2),
}


class TestCopies:
    @pytest.mark.parametrize("wrap", WRAPS)
    def test_activations_that_a_model_kept_are_no_obstacle(self, wrap):
        model = Remembering(WRAPS[wrap])
        model(INPUTS).sum().backward()
        before = model.maps
        duplicate = copy_module(model)
        assert model.maps is before and duplicate.maps is not before
        assert duplicate.first.weight is not model.first.weight
        assert torch.equal(duplicate(INPUTS), model(INPUTS))

    @BOTH
    def test_a_search_takes_it(self, tmp_path, trainer):
        model = Remembering(WRAPS["nested"])
        model(INPUTS)
        assert len(search(tmp_path, model, DATA, trainer=trainer).levels) == 2

    @BOTH
    def test_what_cannot_be_copied_is_named(self, tmp_path, trainer):
        model: Any = Base()
        model.first.worker = threading.Thread()
        with pytest.raises(BadValue, match=r"Base cannot be copied for its attribute 'first.worker' \(a Thread\)"):
            search(tmp_path, model, DATA, trainer=trainer)

    def test_a_compiled_model_is_taken(self, tmp_path):
        """It answers `len` with an error, unless what is in it has one."""
        found = search(tmp_path, torch.compile(Base(), backend="eager"), DATA)
        assert len(found.levels) == 2

    def test_sparse_tensors_of_every_layout_are_copied(self):
        model: Any = Base()
        model.kept = [torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csc()]
        assert [t.layout for t in copy_module(model).kept] == [torch.sparse_coo, torch.sparse_csc]


class TestSparse:
    @BOTH
    @pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
    def test_a_sparse_buffer_is_refused_by_name(self, tmp_path, trainer, layout):
        model = Base()
        model.register_buffer("adjacency", torch.eye(8).to_sparse(layout=layout))
        with pytest.raises(BadValue, match=r"'adjacency' is a sparse (coo|csr) tensor.*plain attribute"):
            search(tmp_path, model, DATA, trainer=trainer)

    @pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
    def test_as_a_plain_attribute_it_works(self, tmp_path, layout):
        found = search(tmp_path, Graph(layout), DATA)
        assert len(found.levels) == 2

    @pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "nesterov": True}, {"clip_norm": 0.1}])
    def test_sparse_gradients_train_as_dense_ones_do(self, tmp_path, settings):
        tokens = torch.randint(0, 50, (60, 5), generator=torch.Generator().manual_seed(0))
        data = (tokens, (tokens[:, 0] > 25).long())
        given = {"optimizer": "sgd", "lr": 0.1, "prunable": ["*weight"], **settings}
        sparse, dense = (
            last(search(tmp_path / str(kind), Words(kind), data, **given)).trained_params for kind in (True, False)
        )
        assert all(np.allclose(sparse[name], dense[name], atol=1e-6) for name in dense)

    @pytest.mark.parametrize(
        ("settings", "why"), [({"optimizer": "adam"}, "'adam'"), ({"optimizer": "sgd", "weight_decay": 0.1}, "decay")]
    )
    def test_where_an_optimizer_cannot_take_them_the_embedding_is_named(self, tmp_path, settings, why):
        data = (torch.zeros(60, 5).long(), LABELS)
        with pytest.raises(BadValue, match=rf"embedding 'words' makes sparse gradients .*{why}"):
            search(tmp_path, Words(True), data, **settings)
        # What is not trained has no gradients.
        search(tmp_path, Words(True), data, train_only=["head.*"])

    def test_they_are_masked_and_clipped(self):
        weights: list[Any] = [nn.Parameter(torch.ones(4, 2)) for _ in range(2)]
        for weight, sparse in zip(weights, (True, False), strict=True):
            F.embedding(torch.tensor([1, 1, 2]), weight, sparse=sparse).pow(2).sum().backward()
            mask_gradients([weight], [torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])])
            clip_gradients([weight], 0.5)
        assert weights[0].grad.is_sparse
        assert torch.allclose(weights[0].grad.to_dense(), weights[1].grad)
        assert weights[1].grad[1, 1] == 0


class Graph(Base):
    def __init__(self, layout):
        super().__init__()
        self.adjacency = torch.eye(8).to_sparse(layout=layout)

    def hidden(self, inputs):
        return torch.relu(torch.sparse.mm(self.adjacency, self.first(inputs).t()).t())


class Words(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.EmbeddingBag(50, 8, sparse=sparse), nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.words(tokens))


class Growing(Base):
    """Keeps the largest activation of every unit, once it has seen how many there are."""

    def __init__(self, begin):
        super().__init__()
        self.register_buffer("seen", begin)

    def hidden(self, inputs):
        found = super().hidden(inputs)
        if self.training:
            now = found.detach().amax(0)
            known = self.seen is not None and self.seen.shape == now.shape
            self.seen = torch.maximum(self.seen, now) if known else now
        return found


class TestBuffersThatGrow:
    @pytest.mark.parametrize("begin", [None, torch.zeros(0), torch.zeros(())], ids=["none", "empty", "scalar"])
    @pytest.mark.parametrize("rewind", ["0", "7", "none"])
    def test_the_trained_one_is_kept_and_the_rewound_one_is_as_it_was(self, tmp_path, begin, rewind):
        found = search(tmp_path, Growing(begin), DATA, rewind=rewind, levels=2)
        ticket = last(found)
        assert ticket.trained_params["seen"].shape == (8,)
        trained, rewound = ticket.trained(Growing(begin)), ticket.rewound(Growing(begin))
        assert trained.seen.shape == (8,) and bool((trained.seen > 0).any())
        if rewind == "0":
            assert rewound.seen is None if begin is None else rewound.seen.shape == begin.shape
        ticket.save(tmp_path / "copy")
        again = Ticket.load(tmp_path / "copy").trained_params
        assert again is not None and again["seen"].shape == (8,)

    def test_replicates_and_evolution_take_it(self, tmp_path):
        with pytest.warns(SameWeights):  # this maker does not use its seed
            search(tmp_path / "gd", lambda seed: Growing(torch.zeros(0)), DATA, replicates=2)
        search(tmp_path / "es", Growing(torch.zeros(0)), DATA, trainer="es")

    def test_a_parameter_of_another_shape_is_still_another_model(self):
        state = state_of(Growing(torch.zeros(0)))
        with pytest.raises(MaskMismatch, match=r"'first.weight' has shape \(8, 6\)"):
            load_state(Growing(torch.zeros(0)), {**state, "first.weight": np.zeros((9, 6), np.float32)})

    def test_a_buffer_that_two_modules_share_is_replaced_in_both(self):
        model = nn.ModuleList([Growing(torch.zeros(0)), Growing(torch.zeros(0))])
        model[1].seen = model[0].seen
        load_state(model, {**state_of(model), "0.seen": np.ones(8, np.float32)})
        assert model[0].seen is model[1].seen and model[1].seen.shape == (8,)

    def test_an_evaluation_changes_no_buffer(self, tmp_path):
        class Counting(Base):
            def __init__(self):
                super().__init__()
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, inputs):
                self.calls += 1
                return super().forward(inputs) * (1 + self.calls / 100)

        often, once = (
            last(search(tmp_path / str(every), Counting(), DATA, eval_every=every)).trained_params for every in (2, 20)
        )
        assert often["calls"] == once["calls"] == 20
        assert all(np.array_equal(often[name], once[name]) for name in once)

    def test_an_evaluation_leaves_buffers_in_value_shape_and_place(self):
        class Resizing(Growing):
            def hidden(self, inputs):
                self.seen.resize_(3).fill_(1.0)
                return super().hidden(inputs)

        model = Resizing(torch.zeros(0))
        before: Any = model.seen
        assert InEvaluation(model)(INPUTS).shape == (60, 3)
        assert model.seen is before and before.shape == (0,)


Pair = namedtuple("Pair", ["inputs", "weights"])


@dataclasses.dataclass(frozen=True)
class Bundle:
    inputs: torch.Tensor
    weights: torch.Tensor


class Moving:
    """Moves in place, as graph batches do."""

    def __init__(self, inputs):
        self.inputs, self.on = inputs, None

    def to(self, device):
        self.on = device
        return self


class TestBatches:
    def test_what_is_one_argument_is_not_spread(self):
        class Takes(nn.Module):
            def forward(self, *given, **named):
                return given, named

        class One(nn.Module):
            def forward(self, batch):
                return batch

        packed = pack_sequence([torch.ones(3), torch.ones(2)])
        pair, bundle = Pair(1, 2), Bundle(INPUTS, LABELS)
        assert call(One(), packed) is packed
        assert call(One(), pair) == pair and type(call(One(), pair)) is Pair
        handed = call(One(), bundle)
        assert isinstance(handed, Bundle) and torch.equal(handed.inputs, INPUTS)
        assert handed.inputs is not INPUTS
        assert call(Takes(), pair) == ((1, 2), {})
        assert call(Takes(), (1, 2)) == ((1, 2), {})
        assert call(Takes(), UserDict(a=1)) == ((), {"a": 1})

    def test_every_container_is_moved_counted_and_cut(self):
        device = torch.device("cpu")
        packed = pack_sequence([torch.ones(3), torch.ones(2)])
        assert isinstance(move((packed, LABELS), device)[0], PackedSequence)
        assert size(packed) == 2 and not is_divisible((packed, torch.zeros(2)))
        moved = move(Bundle(INPUTS, LABELS), device)
        assert isinstance(moved, Bundle) and torch.equal(moved.inputs, INPUTS)
        batch = {"deep": [Pair(INPUTS, LABELS)], "length": 3, "none": None}
        assert is_divisible(batch) and size(batch) == 60
        cut = rows(batch, 10, 14)
        assert isinstance(cut["deep"][0], Pair) and len(cut["deep"][0].weights) == 4
        assert form(cut) == form(batch) and size(joined([cut, batch])) == 64
        own = Moving(INPUTS)
        assert move(own, device).on == device and own.on is None

    def test_tensors_of_inference_mode_become_usable(self):
        with torch.inference_mode():
            made = torch.ones(2)
        assert not move(made, torch.device("cpu")).is_inference()

    def test_a_batch_without_tensors_cannot_be_counted(self):
        with pytest.raises(DataError, match="holds no tensor"):
            size({"texts": ["a", "b"]})

    def test_packed_sequences_train_and_what_needs_single_examples_says_no(self, tmp_path):
        class Recurrent(nn.Module):
            def __init__(self):
                super().__init__()
                self.cells, self.head = nn.GRU(1, 4), nn.Linear(4, 2)

            def forward(self, packed):
                return self.head(self.cells(packed)[1][0])

        items: Any = [(torch.rand(2 + i % 3, 1), i % 2) for i in range(40)]

        def collate(batch):
            return pack_sequence([x for x, _ in batch], enforce_sorted=False), torch.tensor([y for _, y in batch])

        loader = DataLoader(items, 8, shuffle=True, collate_fn=collate)
        search(tmp_path, Recurrent(), loader, criterion="snip")
        with pytest.raises(BadValue, match="needs single examples.*use 'swag'"):
            search(tmp_path, Recurrent(), loader, criterion="snr")
        with pytest.raises(DataError, match="evolution reads the training DataLoader into memory"):
            search(tmp_path, Recurrent(), loader, trainer="es")

    @pytest.mark.parametrize("wrap", [UserDict, dict])
    @BOTH
    def test_mappings_give_keywords(self, tmp_path, wrap, trainer):
        def collate(batch):
            inputs, labels = default_collate(batch)
            return wrap(inputs=inputs), labels

        loader = DataLoader(TensorDataset(INPUTS, LABELS), 10, collate_fn=collate)
        search(tmp_path, Base(), loader, trainer=trainer)

    def test_evolution_says_what_is_wrong_with_batches_that_differ(self, tmp_path):
        batches: Any = [(torch.rand(4, length, 6), torch.zeros(4).long()) for length in (2, 3, 2, 3)]
        loader = DataLoader(batches, batch_size=None)
        with pytest.raises(DataError, match="pad all examples to one length"):
            search(tmp_path, Base(), (loader, loader), trainer="es")


def settings_of_the_process():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.allow_tf32,
        torch.is_anomaly_enabled(),
        np.geterr(),
        os.getcwd(),
    )


def careless(seed, elsewhere, fails=False):
    """Makes a model, and leaves nothing of the process as it was."""
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("cpu")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
    np.seterr(all="ignore")
    os.chdir(elsewhere)
    if fails:
        raise BadValue("on purpose")
    return Base()


class TestModes:
    @BOTH
    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_a_caller_who_switched_gradients_off_gets_the_same_ticket(self, tmp_path, trainer, mode):
        expected = last(search(tmp_path / "a", Base(), DATA, trainer=trainer)).trained_params
        with mode():
            found = search(tmp_path / "b", Base(), (INPUTS.clone(), LABELS.clone()), trainer=trainer, criterion="snip")
            assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
            assert not torch.is_grad_enabled()
            rewound = last(found).rewound(Base())
        assert found.levels[0].replicates[0].path and expected.keys()
        rewound(INPUTS).sum().backward()
        assert rewound.first.weight.grad is not None

    @BOTH
    @pytest.mark.parametrize("fails", [False, True])
    def test_what_a_users_code_sets_does_not_reach_the_caller(self, tmp_path, monkeypatch, trainer, fails):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        before = settings_of_the_process()
        try:
            search("runs", lambda seed: careless(seed, tmp_path / "elsewhere", fails), DATA, trainer=trainer)
        except BadValue:
            assert fails
        assert settings_of_the_process() == before
        assert fails or (tmp_path / "runs").exists()


class InPlace(Base):
    """Scales its inputs where they lie."""

    def forward(self, inputs):
        inputs -= 1
        inputs *= 0.5
        return super().forward(inputs)


def ignoring_nines(outputs, targets):
    targets[targets == 9] = 0
    return F.cross_entropy(outputs, targets)


def share_right(outputs, targets):
    return (outputs.argmax(1) == targets).float().mean()


class TestWhatIsChangedInPlace:
    @pytest.mark.filterwarnings("ignore:replicates 0 and 1 begin at the same weights")
    @pytest.mark.parametrize("replicates", [1, 2])
    def test_is_never_the_callers_data(self, tmp_path, replicates):
        inputs, labels = INPUTS.clone(), LABELS.clone()
        labels[:3] = 9
        data, before = (inputs, labels), (inputs.clone(), labels.clone())
        ticket = find_ticket(
            lambda seed: InPlace(),
            Data(train=data, validation=data),
            loss=ignoring_nines,
            metric=share_right,
            replicates=replicates,
            out=tmp_path,
            levels=1,
            steps=30,
            tolerance=1.0,
            quiet=True,
        )
        assert all(map(torch.equal, data, before))
        outputs = ticket.trained(InPlace()).eval()(inputs.clone())
        measured = share_right(outputs, labels.where(labels != 9, 0)).item()
        assert ticket.info["validation"] == pytest.approx(measured)

    @pytest.mark.parametrize("criterion", ["grasp", "snr", "edge-popup"])
    def test_is_not_what_a_loader_gives_next(self, tmp_path, criterion):
        def found(model, folder, inputs):
            batches: Any = [(inputs[i : i + 10], LABELS[i : i + 10]) for i in range(0, 60, 10)]
            loader = DataLoader(batches, batch_size=None)
            settings: Any = {"criterion": criterion, "score_steps": 3}
            return last(search(tmp_path / folder, model, (loader, loader), **settings))

        class Outside(Base):
            def forward(self, inputs):
                return super().forward((inputs - 1) * 0.5)

        ours, theirs = found(InPlace(), "a", INPUTS.clone()), found(Outside(), "b", INPUTS)
        assert all(np.array_equal(value, theirs.trained_params[name]) for name, value in ours.trained_params.items())
        assert ours.info["validation"] == theirs.info["validation"]


class TestWhatCannotBeTrained:
    def test_a_frozen_network_is_one_line(self, tmp_path):
        with pytest.raises(NothingToPrune, match="no trainable parameter"):
            search(tmp_path, Base().requires_grad_(False), DATA)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
    def test_torchscript_is_one_line(self, tmp_path):
        scripted = torch.jit.script(Base())
        for model in (scripted, nn.Sequential(scripted, nn.Linear(3, 3))):
            with pytest.raises(BadValue, match="is TorchScript"):
                search(tmp_path, model, DATA)
        with pytest.raises(BadValue, match="is TorchScript"):
            last(search(tmp_path, Base(), DATA)).trained(scripted)

    @pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
    def test_torchscript_without_parameters_is_a_part_like_others(self, tmp_path):
        act: Any = torch.jit.trace(nn.Hardtanh(), torch.zeros(2, 3))
        ticket = last(search(tmp_path, nn.Sequential(Base(), act, nn.Linear(3, 3)), DATA))
        assert set(ticket.mask) >= {"2.weight"}

    def test_complex_weights_are_pruned_and_stored(self, tmp_path):
        class Waves(Base):
            def __init__(self):
                super().__init__()
                self.wave = nn.Parameter(torch.full((6, 6), 0.03 + 0.02j))

            def forward(self, inputs):
                return super().forward((inputs.to(torch.complex64) @ self.wave).imag)

        ticket = last(search(tmp_path, Waves(), DATA))
        assert ticket.mask["wave"].sum() < 36
        assert np.array_equal(np.iscomplex(ticket.trained_params["wave"]), ticket.mask["wave"])


class Annealed:
    """A loss that counts its calls, and weighs them."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += 1
        return F.cross_entropy(outputs, targets) * (1 + 0.1 * self.calls)


def test_a_loss_object_begins_anew_in_every_training(tmp_path):
    loss, settings = Annealed(), {"levels": 1, "steps": 30, "tolerance": 1.0, "quiet": True}
    first, second, stored = (
        find_ticket(Base(), Data(train=DATA, validation=DATA), loss=loss, out=tmp_path / folder, **settings)
        for folder in ("a", "b", "a")
    )
    assert loss.calls == 0
    assert first.trained_params is not None
    assert second.trained_params is not None
    assert all(np.array_equal(value, second.trained_params[name]) for name, value in first.trained_params.items())
    assert stored.path == first.path


def test_data_in_the_models_own_bfloat16(tmp_path):
    inputs = INPUTS.bfloat16()
    tickets = [
        last(search(tmp_path, Base().bfloat16(), (given, LABELS)))
        for given in (inputs, inputs, (inputs * 2).bfloat16())
    ]
    assert tickets[0].trained_params["first.weight"].dtype == "bfloat16"
    assert tickets[0].path == tickets[1].path != tickets[2].path
