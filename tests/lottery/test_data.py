"""Data: every way to hand it over, and everything that can be wrong with it."""

from __future__ import annotations

import gzip
import os
import struct
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lottery.data import Data
from lottery.data.datasets import DATASETS, load_data
from lottery.data.datasets import openml as openml_sets
from lottery.data.datasets.digits import _digits
from lottery.data.files import read_idx
from lottery.data.parts import Loader, Parts, Tensors, prepare
from lottery.networks.objectives.labels import check_labels, check_outputs
from pruning.errors import DataError, UnknownName
from tests.lottery.helpers import blobs


def write_idx(path, array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def arrays():
    rng = np.random.Generator(np.random.PCG64(0))
    return {
        "x_train": rng.integers(0, 256, (40, 6, 6), np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (12, 6, 6), np.uint8),
        "y_test": np.arange(12) % 4,
    }


@pytest.fixture
def idx(tmp_path, arrays):
    folder = tmp_path / "images"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte.gz", arrays["x_train"])
    write_idx(folder / "train-labels-idx1-ubyte", arrays["y_train"])
    write_idx(folder / "t10k-images.idx3-ubyte", arrays["x_test"])
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", arrays["y_test"])
    return folder


def test_idx_folder_and_npz_give_the_same_parts(idx, arrays, tmp_path):
    np.savez(tmp_path / "images.npz", **arrays)
    by_idx, by_npz = (prepare(load_data(path), 0) for path in (str(idx), tmp_path / "images.npz"))
    assert by_idx.name == by_npz.name == "images"
    assert by_idx.fingerprint() == by_npz.fingerprint()
    assert by_idx.input_shape == (1, 6, 6) and by_idx.outputs == 4
    assert len(by_idx.train) == 36 and len(by_idx.validation) == 4


def test_uint8_images_are_standardized_with_the_training_statistics(arrays):
    data = Data(train=(arrays["x_train"], arrays["y_train"]), test=(arrays["x_test"], arrays["y_test"]))
    parts = prepare(data, 0)
    assert isinstance(parts.test, Tensors)
    x = arrays["x_train"].astype(np.float64)
    expected = (arrays["x_test"][:, None] - x.mean()) / x.std()
    assert np.allclose(parts.test.inputs.numpy(), expected, atol=1e-5)


def test_colour_images_with_channels_last_are_turned():
    x = np.zeros((10, 8, 8, 3), np.uint8)
    x[..., 1] = np.arange(10)[:, None, None]
    parts = prepare(Data(train=(x, np.arange(10) % 2)), 0)
    assert parts.input_shape == (3, 8, 8)


def test_flat_uint8_images_stay_flat():
    x = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert prepare(Data(train=(x, np.arange(10) % 2)), 0).input_shape == (20,)


def test_the_split_depends_on_the_seed_and_loses_nothing():
    x, y = blobs(50)
    splits = [prepare(Data(train=(x, y)), seed) for seed in (0, 0, 1)]
    assert splits[0].fingerprint() == splits[1].fingerprint() != splits[2].fingerprint()
    both = torch.cat([splits[0].train.inputs, splits[0].validation.inputs])  # pyright: ignore
    assert sorted(both[:, 0].tolist()) == sorted(x[:, 0].tolist())
    assert len(prepare(Data(train=(x, y)), 0, 7).validation) == 7
    assert len(prepare(Data(train=(x, y)), 0, 0.5).validation) == 25


def test_datasets_are_read_once_and_loaders_kept():
    x, y = (torch.from_numpy(a) for a in blobs(20))

    class Plain(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            return x[index], y[index]

    by_pair, by_tensors, by_items = (prepare(load_data(d), 0) for d in ((x, y), TensorDataset(x, y), Plain()))
    assert by_pair.fingerprint() == by_tensors.fingerprint() == by_items.fingerprint()
    loader = DataLoader(Plain(), batch_size=5)
    parts = prepare(Data(train=loader, validation=loader), 0)
    assert isinstance(parts.train, Loader) and parts.input_shape == (6,) and parts.outputs >= 2


def test_a_dataset_with_a_random_transform_is_refused_with_advice():
    class Noisy(Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return torch.rand(3), 0

    with pytest.raises(DataError, match="wrap it in a DataLoader"):
        prepare(load_data(Noisy()), 0)


def test_digits_are_those_of_scikit_learn():
    for read, theirs in zip(_digits(), load_digits(return_X_y=True), strict=True):
        assert read.dtype == theirs.dtype
        assert np.array_equal(read, theirs)


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 6, 6, 3), (40, 3, 6, 6), (40, 12)])
def test_images_are_standardized_by_all_that_there_is_to_train_on(shape):
    """Those that are held out for validation count; the numbers are those of NumPy, in its own order of sums."""
    images, labels = np.random.default_rng(0).integers(0, 256, shape, np.uint8), np.arange(40) % 4
    parts = prepare(Data(train=(images, labels), test=(images[:9], labels[:9]), validation_size=10), 0)
    first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2) if shape[-1] == 3 else images
    axes = (0, 2, 3) if first.ndim == 4 else None
    mean, std = (np.float32(of(first, axis=axes, keepdims=True, dtype=np.float64)) for of in (np.mean, np.std))
    expected = (first.astype(np.float32) - mean) / std
    assert (
        isinstance(parts.test, Tensors) and isinstance(parts.train, Tensors) and isinstance(parts.validation, Tensors)
    )
    assert np.array_equal(parts.test.inputs, expected[:9])
    split = [row.tobytes() for part in (parts.train, parts.validation) for row in part.inputs.numpy()]
    assert sorted(split) == sorted(row.tobytes() for row in expected)


@pytest.mark.parametrize("name", ["digits"])
def test_named_sets_that_need_no_download(name):
    parts = prepare(load_data(name), 0)
    assert (len(parts.train), len(parts.validation), len(parts.test or ())) == (1077, 360, 360)
    assert parts.input_shape == (1, 8, 8) and parts.outputs == 10


def test_every_registered_set_says_what_it_is():
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "cifar10"} <= set(DATASETS.names())
    assert all(entry.summary and entry.source for entry in DATASETS)


@pytest.mark.parametrize(("name", "shape", "count"), [("mnist", (1, 28, 28), 60_000), ("cifar10", (3, 32, 32), 50_000)])
def test_openml_sets_are_cut_into_train_and_test(monkeypatch, name, shape, count):
    import sklearn.datasets

    def fake(data_id, **options):
        assert options["return_X_y"] and not options["as_frame"]
        total = count + 10
        pixels = np.broadcast_to(np.arange(10, dtype=np.int64).repeat(total // 10)[:, None], (total, 1))
        return np.broadcast_to(pixels, (total, int(np.prod(shape)))), np.array([str(i % 10) for i in range(total)])

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fake)
    data = DATASETS[name].value()
    assert data.train[0].shape == (count, *shape) and data.test[0].shape == (10, *shape)
    assert data.train[0].dtype == np.uint8 and data.train[1].dtype == np.int64


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    import sklearn.datasets

    def refuse(**options):
        raise OSError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", refuse)
    with pytest.raises(DataError, match=r"kmnist: OpenML data set 41982 .*no network.*folder of IDX files"):
        load_data("kmnist")


@pytest.mark.data
@pytest.mark.skipif(not openml_sets._FASHION_MNIST_ON_DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_from_debians_package():
    data = load_data("fashion-mnist")
    assert data.train[0].shape == (60_000, 28, 28) and data.test[0].shape == (10_000, 28, 28)
    assert np.bincount(data.train[1]).tolist() == [6000] * 10
    parts = prepare(data, 0)
    assert (len(parts.train), len(parts.validation), len(parts.test or ())) == (55_000, 5_000, 10_000)


def test_fashion_mnist_is_read_from_a_folder_where_debian_puts_it(idx, arrays, monkeypatch):
    monkeypatch.setattr(openml_sets, "_FASHION_MNIST_ON_DEBIAN", idx)
    data = openml_sets.fashion_mnist()
    assert (data.name, data.validation_size) == ("fashion-mnist", 5_000)
    np.testing.assert_array_equal(data.train[0], arrays["x_train"])
    np.testing.assert_array_equal(data.test[1], arrays["y_test"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, -1], "training labels out of range: the smallest is -1"), ([-100, -100], "training labels are all -100")],
)
def test_labels_that_no_class_has_are_refused(labels, message):
    good = Tensors(torch.ones(2, 1), torch.tensor([0, -100]))
    check_labels(Parts(good, good, None, "few"))
    with pytest.raises(DataError, match=message):
        check_labels(Parts(Tensors(torch.ones(2, 1), torch.tensor(labels)), good, None, "few"))


def test_fewer_outputs_than_labels_are_refused():
    low, high = (Tensors(torch.ones(2, 1), torch.tensor(labels)) for labels in ([0, 1], [0, 3]))
    check_outputs((2, 4), Parts(low, low, high, "few"))
    with pytest.raises(DataError, match="the model has 3 outputs and the data has label 3"):
        check_outputs((2, 3), Parts(low, low, high, "few"))


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.ones(3), 0


class TestFingerprint:
    """Two data sets never share a run."""

    def test_loaders_over_other_values_or_labels_differ(self):
        x, y = (torch.from_numpy(a) for a in blobs(40))

        class Items(Dataset):
            def __init__(self, x):
                self.x = x

            def __len__(self):
                return len(self.x)

            def __getitem__(self, index):
                return self.x[index], y[index]

        def fingerprint(train):
            return prepare(
                Data(train=DataLoader(train, batch_size=8, shuffle=True), validation=blobs(9)), 0
            ).fingerprint()

        assert fingerprint(TensorDataset(x, y)) == fingerprint(TensorDataset(x, y)) != fingerprint(TensorDataset(-x, y))
        assert fingerprint(Items(x)) == fingerprint(Items(x)) != fingerprint(Items(-x))

    def test_a_named_model_is_sized_from_all_labels_of_a_loader(self):
        x, y = (torch.from_numpy(a) for a in blobs(40))
        order = y.argsort()
        loader = DataLoader(TensorDataset(x[order], y[order]), batch_size=4)
        assert prepare(Data(train=loader, validation=loader), 0).outputs == 3


def test_uint8_images_in_a_tensor_dataset_are_standardized(arrays):
    pair = (torch.from_numpy(arrays["x_train"]), torch.from_numpy(arrays["y_train"]))
    assert prepare(Data(train=TensorDataset(*pair)), 0).fingerprint() == prepare(Data(train=pair), 0).fingerprint()


def test_big_endian_arrays_are_read():
    x, y = blobs(40)
    assert (
        prepare(Data(train=(x.astype(">f4"), y.astype(">i4"))), 0).fingerprint()
        == prepare(Data(train=(x, y)), 0).fingerprint()
    )


class TestWrong:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (lambda x, y: Data(train=(np.where(x > 3, np.nan, x), y)), "inputs hold .* NaN or infinite"),
            (lambda x, y: Data(train=(np.ma.masked_greater(x, 3), y)), "inputs hold masked values"),
            (lambda x, y: Data(train=(torch.tensor(x).to_sparse(), y)), "inputs are a sparse tensor"),
            (lambda x, y: Data(train=([[1.0], [1.0, 2.0]] * 25, y)), "are not numbers"),
            (lambda x, y: Data(train=(x, y), test=(x[:, :3], y)), r"test inputs have shape \(3,\)"),
            (lambda x, y: Data(train=(x, y[:5])), "50 inputs but 5 labels"),
            (lambda x, y: Data(train=(x[:0], y[:0])), "no examples"),
            (lambda x, y: Data(train=(x, np.where(y > 1, np.inf, 1.0))), "labels hold values that are NaN"),
            (lambda x, y: Data(train=(np.array([["a"]] * 50), y)), "not numbers"),
            (
                lambda x, y: Data(train=[x]),
                "a Dataset, a list of dictionaries or a DataLoader, not list",
            ),
            (lambda x, y: Data(train=(x, y), validation_size=50), "leaves none of 50 examples"),
            (lambda x, y: Data(train=(np.zeros((9, 2, 2, 2, 2), np.uint8), y[:9])), "are not images"),
            (lambda x, y: Data(train=(np.zeros((50, 6), np.uint8), y), test=(x, y)), "uint8 images and other parts"),
        ],
    )
    def test_unusable_arrays(self, data, message):
        with pytest.raises(DataError, match=message):
            prepare(data(*blobs(50)), 0)

    @pytest.mark.parametrize(
        ("loader", "message"),
        [
            (lambda x, y: DataLoader(TensorDataset(x, y), batch_size=60, drop_last=True), "yields no batch"),
            (lambda x, y: DataLoader(Stream()), "without a length"),
        ],
    )
    def test_loaders_that_cannot_be_counted(self, loader, message):
        with pytest.raises(DataError, match=message):
            prepare(Data(train=loader(*map(torch.from_numpy, blobs(50))), validation=blobs(9)), 0)

    @pytest.mark.parametrize(
        ("item", "message"), [({"x": "text"}, "must be numbers, not str"), (object(), "cannot be stacked")]
    )
    def test_datasets_of_other_items(self, item, message):
        class Odd(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, index):
                return item

        with pytest.raises(DataError, match=message):
            prepare(load_data(Odd()), 0)

    def test_an_unknown_name(self):
        with pytest.raises(UnknownName, match="did you mean 'fashion-mnist'"):
            load_data("fashion-mnits")

    @pytest.mark.parametrize("path", ["nowhere/data.npz", "./nowhere"])
    def test_a_missing_path(self, path):
        with pytest.raises(DataError, match="no such file or folder"):
            load_data(path)

    def test_an_unsupported_file(self, tmp_path):
        (tmp_path / "a.csv").write_text("1,2")
        with pytest.raises(DataError, match="expected a folder of IDX files or an .npz"):
            load_data(tmp_path / "a.csv")

    def test_an_idx_file_is_missing(self, idx):
        (idx / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(DataError, match="no t10k-labels-idx1-ubyte"):
            load_data(idx)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x1f\x8b broken", "cannot be read"),
            (gzip.compress(b"hello", mtime=0), "not an IDX file"),
            (gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), "truncated in its header"),
            (gzip.compress(b"\0\0\x08\x01\0\0\0\x05ab", mtime=0), "5 values announced, 2 there"),
            (gzip.compress(b"\0\0\x08\x04" + b"\xff" * 16 + b"ab", mtime=0), "truncated"),
            (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab", mtime=0)[:-9], "ends before its end marker"),
            (gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab", mtime=0)[:-8] + bytes(8), "incorrect data check"),
        ],
    )
    def test_a_broken_idx_file(self, idx, content, message):
        (idx / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_data(idx)

    @pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "data.npz"])
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_a_pipe_or_a_device_is_an_error_at_once(self, tmp_path, name, kind):
        path = tmp_path / name
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        with pytest.raises(DataError):
            load_data(tmp_path if name.endswith("gz") else path)
        if name.endswith("gz"):
            with pytest.raises(DataError, match="cannot be read"):
                read_idx(path)

    def test_a_file_of_several_members_is_read_whole(self, tmp_path):
        """So gzip files are appended to each other; they may be padded."""
        path, content = tmp_path / "a.gz", b"\0\0\x08\x01\0\0\0\x05abcde"
        path.write_bytes(b"".join(gzip.compress(part, mtime=0) for part in (content[:3], content[3:10], content[10:])))
        assert read_idx(path).tolist() == list(b"abcde")
        path.write_bytes(path.read_bytes() + bytes(100))
        assert read_idx(path).tolist() == list(b"abcde")

    def test_a_bomb_is_unpacked_no_further_than_it_announces(self, tmp_path, monkeypatch):
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05" + bytes(10**7), mtime=0))
        with pytest.raises(DataError, match="5 values announced, 6 there"):
            read_idx(path)
        monkeypatch.setattr("lottery.data.files.machine_memory", lambda: 10**5)
        path.write_bytes(gzip.compress(b"\0\0\x08\x01\x01\0\0\0" + bytes(10**7), mtime=0))
        with pytest.raises(DataError, match="truncated, or a bomb: it announces 16,777,216 bytes"):
            read_idx(path)

    def test_arrays_beyond_the_machine_are_not_unpacked(self, tmp_path, monkeypatch):
        arrays: dict[str, Any] = {key: np.zeros(10**5, np.uint8) for key in ("x_train", "y_train", "x_test", "y_test")}
        np.savez_compressed(tmp_path / "a.npz", **arrays)
        assert load_data(tmp_path / "a.npz").name == "a"
        monkeypatch.setattr("lottery.data.files.machine_memory", lambda: 10**5)
        with pytest.raises(DataError, match="more than this machine can hold"):
            load_data(tmp_path / "a.npz")

    def test_objects_are_no_arrays(self, tmp_path):
        arrays: dict[str, Any] = {key: np.array([{}, 1], object) for key in ("x_train", "y_train", "x_test", "y_test")}
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match="not a readable .npz"):
            load_data(tmp_path / "a.npz")
        with open(tmp_path / "one.npz", "wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(DataError, match="not a readable .npz"):
            load_data(tmp_path / "one.npz")

    def test_lengths_that_disagree(self, idx):
        write_idx(idx / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
        with pytest.raises(DataError, match="one label for each input"):
            load_data(idx)

    def test_an_npz_with_a_missing_array_or_garbage(self, tmp_path):
        np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
        with pytest.raises(DataError, match=r"no y_train, x_test, y_test \(it has: x_train\)"):
            load_data(tmp_path / "a.npz")
        (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 garbage")
        with pytest.raises(DataError, match="not a readable .npz"):
            load_data(tmp_path / "b.npz")

    def test_a_pickle_inside_an_npz_is_never_run(self, tmp_path):
        evil = np.array([print], dtype=object)
        np.savez(tmp_path / "a.npz", x_train=evil, y_train=evil, x_test=evil, y_test=evil)
        with pytest.raises(DataError, match="allow_pickle"):
            load_data(tmp_path / "a.npz")
