"""Batches as people have them: how each becomes a call, and what is said where it cannot."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lottery import Data, find_ticket
from lottery.data.batch import counted, is_divisible, split_batch
from lottery.data.datasets import load_data
from lottery.data.part import Tensors
from lottery.data.parts import prepare
from pruning.calls.calling import Whole, call_once, spread
from pruning.errors import BadValue, DataError
from tests.lottery.helpers import blobs

X, Y = (torch.from_numpy(array) for array in blobs(60))
Point = namedtuple("Point", "x z")


class Takes(nn.Module):
    """A network whose `forward` is a function of the test's, without self."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@dataclass
class Record:
    x: torch.Tensor
    names: list[str]


def one(x):
    return x


def two(x, z=None):
    return x, z


def keywords(input_ids, attention_mask=None, labels=None):
    return input_ids, attention_mask, labels


def anything(*args, **kwargs):
    return args, kwargs


def options(input_ids=None, labels=None, **kwargs):
    return input_ids, labels, kwargs


IMAGES = [torch.zeros(3, 4, 4), torch.zeros(3, 8, 5), torch.zeros(3, 2, 2)]
NAMES = ["a", "b"]
PACKED = pack_sequence([torch.zeros(2, 1), torch.zeros(1, 1)])


class TestHowABatchBecomesACall:
    @pytest.mark.parametrize(
        ("function", "inputs", "args", "kwargs"),
        [
            (one, X, (X,), {}),
            (two, (X, Y), (X, Y), {}),
            (two, [X], (X,), {}),
            (anything, [X, Y, X], (X, Y, X), {}),
            (keywords, {"input_ids": X, "labels": Y}, (), {"input_ids": X, "labels": Y}),
            (keywords, UserDict(input_ids=X), (), {"input_ids": X}),
            (keywords, {"input_ids": X, "attention_mask": None}, (), {"input_ids": X, "attention_mask": None}),
            (options, {"input_ids": X, "pixels": Y}, (), {"input_ids": X, "pixels": Y}),
            (anything, {"names": NAMES}, (), {"names": NAMES}),
        ],
    )
    def test_spread_or_by_name(self, function, inputs, args, kwargs):
        found = spread(Takes(function), inputs)
        assert len(found[0]) == len(args) and all(a is b for a, b in zip(found[0], args, strict=True))
        assert found[1].keys() == kwargs.keys() and all(found[1][key] is kwargs[key] for key in kwargs)

    @pytest.mark.parametrize(
        ("function", "inputs"),
        [
            (one, {"input_ids": X, "length": Y}),  # no key is known: the model takes the dictionary
            (one, IMAGES),
            (one, Point(X, Y)),
            (two, PACKED),
            (two, Record(X, ["a"])),
            (two, {"image": X, "depth": Y}),
        ],
    )
    def test_one_argument(self, function, inputs):
        args, kwargs = spread(Takes(function), inputs)
        assert args[0] is inputs and len(args) == 1 and not kwargs

    @pytest.mark.parametrize(
        ("function", "inputs", "message"),
        [
            (
                keywords,
                {"input_ids": X, "idx": Y, "text": ["a"]},
                r"entries it does not take idx, text: .*forward=lambda",
            ),
            (keywords, {"labels": Y}, "the batch lacks input_ids"),
            (
                two,
                (X, X, Y),
                r"takes \(x, z\), and the batch is a tuple of 3 .*`forward=lambda model, batch: model\(bat",
            ),
            (one, [X, X, Y], r"`forward=lambda model, batch: model\(batch\[0\]\)`"),
        ],
    )
    def test_what_forward_does_not_take_is_named_and_nothing_is_dropped(self, function, inputs, message):
        with pytest.raises(BadValue, match=message):
            spread(Takes(function), inputs)


class TestLists:
    """Detectors: a list of images, and a dictionary of targets for each."""

    def batch(self, count: int) -> Any:
        targets = [{"boxes": torch.zeros(3, 4), "labels": torch.ones(3)} for _ in range(count)]
        return ([torch.zeros(3, 4, 4)] * count, targets)

    @pytest.mark.parametrize("count", [1, 2, 4])
    def test_the_images_are_one_argument_however_many(self, count):
        batch = self.batch(count)
        inputs, targets = split_batch(batch)
        assert targets == batch[1] and counted(targets) == counted(inputs) == count
        assert not is_divisible(inputs)  # though every tensor has three rows

        def detect(images, targets=None):
            return len(images), targets

        def embed(images, scale=1.0):
            return len(images), scale

        assert call_once(Takes(detect), inputs) == (count, batch[1])
        assert call_once(Takes(embed), inputs) == (count, 1.0)

    def test_a_detector_whose_loss_is_there_in_training_only_says_so_before_it_trains(self, tmp_path):
        class Detector(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Conv2d(3, 4, 4)

            def forward(self, images, targets: Any = None):
                boxes = torch.stack([self.head(image).mean((1, 2)) for image in images])
                if not self.training:
                    return [{"boxes": box} for box in boxes]
                wanted = torch.stack([target["boxes"].mean(0) for target in targets])
                return {"loss_box": F.mse_loss(boxes, wanted), "loss_size": boxes.abs().mean()}

        data = DataLoader(TensorDataset(X), batch_size=4, collate_fn=lambda items: self.batch(len(items)))
        with pytest.raises(DataError, match="hold no loss .*in evaluation mode"):
            find_ticket(Detector(), (data, data), levels=1, steps=2, quiet=True, out=tmp_path)

        def loss(outputs, targets):
            return sum(outputs.values()) if isinstance(outputs, dict) else torch.zeros(())

        def size(outputs, targets):
            return -torch.stack([output["boxes"] for output in outputs]).abs().mean()

        from lottery import Metric

        metric = Metric("size", size, additive=True)
        given: dict[str, Any] = {"loss": loss, "metric": metric, "tolerance": 9.0}
        assert find_ticket(Detector(), (data, data), levels=1, steps=3, quiet=True, out=tmp_path, **given)


class Graphs:
    """A batch of graphs as torch_geometric has it: one object that moves itself."""

    def __init__(self, x, edge_index, batch, y):
        self.x, self.edge_index, self.batch, self.y = x, edge_index, batch, y

    def to(self, device):
        return Graphs(*(value.to(device) for value in vars(self).values()))


def graphs(items):
    x = torch.cat([x.view(2, 3) for x, _ in items])
    batch = torch.arange(len(items)).repeat_interleave(2)
    return Graphs(x, torch.stack([torch.arange(len(x))] * 2), batch, torch.stack([y for _, y in items]))


def test_batches_of_graphs_count_by_their_labels(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 3)

        def forward(self, data):
            hidden = torch.relu(self.first(data.x)).index_add(0, data.edge_index[1], self.first(data.x))
            return self.last(torch.zeros(len(data.y), 8).index_add(0, data.batch, hidden))

    loader = DataLoader(TensorDataset(X, Y), batch_size=7, collate_fn=graphs)
    assert counted(next(iter(loader))) == 7
    found = find_ticket(
        Net(),
        loader,
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch.y),
        levels=1,
        steps=4,
        tolerance=9.0,
        quiet=True,
        out=tmp_path,
    )
    assert found.info["metric"]["name"] == "loss"


class Rows(Dataset):
    """A data set of dictionaries; not read by PyTorch's rules alone, as Hugging Face's are not."""

    def __init__(self, **changes):
        self.changes = changes

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {"input_ids": [index, 1, 2], "labels": index % 2, **{k: f(index) for k, f in self.changes.items()}}


class Foreign:
    """What has a length and items, and no base class of PyTorch's."""

    __len__, __getitem__ = Rows.__len__, Rows.__getitem__
    changes: ClassVar[dict[str, Any]] = {}


class TestData:
    @pytest.mark.parametrize("data", [Rows(), Foreign(), [Rows()[index] for index in range(12)]])
    def test_dictionaries_are_read_into_memory_with_lists_of_numbers_as_vectors(self, data):
        parts = prepare(load_data(data), 0, 2)
        assert isinstance(parts.train, Tensors) and len(parts.train) == 10
        batch = parts.train.rows(0, 3)[0]
        assert batch["input_ids"].shape == (3, 3) and batch["labels"].shape == (3,)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"text": str}, "must be numbers, not str: wrap it in a DataLoader"),
            ({"ids": lambda index: [0] * (1 + index)}, "cannot be stacked .*collate_fn"),
            ({"x": lambda index: torch.tensor(float("nan"))}, "NaN or infinite"),
        ],
    )
    def test_what_cannot_be_stacked_belongs_in_a_loader(self, change, message):
        with pytest.raises(DataError, match=message):
            prepare(load_data(Rows(**change)), 0)

    @pytest.mark.parametrize("names", [("train", "validation"), ("training", "val", "test"), ("Train", "valid")])
    def test_parts_by_name(self, names):
        loaders = [DataLoader(TensorDataset(X, Y), 9) for _ in names]
        data = load_data(dict(zip(names, loaders, strict=True)))
        assert [data.train, data.validation, data.test][: len(names)] == loaders

    def test_a_dictionary_of_arrays_is_the_training_part(self):
        parts = prepare(load_data({"input_ids": X.numpy(), "labels": Y}), 0, 10)
        assert isinstance(parts.train, Tensors) and len(parts.train) == 50

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({"test": X}, "needs 'train'"),
            ({"val": X, "dev": X, "train": X}, "name one part"),
            ({"train": X, "weights": 3}, "'weights' is neither"),
            ({"a": X, "b": X[:3]}, "not the same number of examples"),
        ],
    )
    def test_other_dictionaries(self, data, message):
        with pytest.raises(DataError, match=message):
            prepare(load_data(data), 0)

    def test_inputs_by_name_beside_labels(self):
        train = prepare(Data(train=({"x": X, "z": X.numpy()}, Y)), 0, 10).train
        assert isinstance(train, Tensors) and train.targets.shape == (50,) and train.inputs["z"].shape == (50, 6)

    def test_a_list_of_dictionaries_is_trained_on(self, tmp_path):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.last = nn.Embedding(12, 4), nn.Linear(4, 2)

            def forward(self, input_ids, labels):
                return {"loss": F.cross_entropy(self.last(self.table(input_ids).mean(1)), labels)}

        rows = [Rows()[index] for index in range(12)]
        ticket = find_ticket(Net(), rows, levels=1, tolerance=9.0, batch_size=4, steps=3, quiet=True, out=tmp_path)
        assert ticket.info["train_examples"] == 11


class TestShapes:
    """Outputs [N, 1] against labels [N]: N × N differences, which nobody means."""

    @pytest.mark.parametrize(
        "loss",
        [F.mse_loss, nn.L1Loss(), lambda outputs, targets: ((outputs - targets) ** 2).mean()],
        ids=["function", "module", "own"],
    )
    def test_a_loss_that_stretches_labels_over_outputs_is_refused(self, loss, tmp_path):
        with pytest.raises(DataError, match=r"outputs \(8, 1\) and labels \(8,\) as \(8, 8\): .*outputs.squeeze"):
            find_ticket(nn.Linear(6, 1), (X, Y.float()), loss=loss, levels=1, steps=2, quiet=True, out=tmp_path)

    def test_what_compares_each_with_its_own_is_not(self, tmp_path):
        def loss(outputs, targets):
            return ((outputs.squeeze(1) - targets) ** 2).mean()

        assert find_ticket(
            nn.Linear(6, 1), (X, Y.float()), loss=loss, levels=1, steps=2, tolerance=9.0, quiet=True, out=tmp_path
        )


def test_outputs_that_are_no_tensor_say_what_to_give(tmp_path):
    class Tagged(nn.Sequential):
        def forward(self, input):  # pyright: ignore[reportIncompatibleMethodOverride]
            return {"logits": super().forward(input)}

    with pytest.raises(DataError, match=r"a tensor of outputs .*, not dict: give `loss` and `metric`"):
        find_ticket(Tagged(nn.Linear(6, 3)), (X, Y), levels=1, steps=2, quiet=True, out=tmp_path)


def test_an_augmentation_of_what_is_no_image_is_refused_before_anything_trains(tmp_path):
    with pytest.raises(DataError, match="needs images of shape"):
        find_ticket(nn.Linear(6, 3), (X, Y), augment="flip-crop", steps=2, quiet=True, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_dictionary_that_is_inputs_and_targets_is_one_batch_of_examples():
    batch = split_batch({"x": X, "labels": Y})
    assert counted(batch) == 60 and is_divisible(batch)


def test_a_function_of_the_callers_gets_the_whole_batch():
    inputs, targets = split_batch([X, X, Y], lambda model, batch: model(batch[0]))
    assert isinstance(inputs, Whole) and len(targets) == 3
    assert call_once(Takes(one), inputs) is X
