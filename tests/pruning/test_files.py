"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from pruning import files
from pruning.errors import FileFormatError, StorageError


def test_every_dtype_comes_back_bit_for_bit(tmp_path):
    arrays = {
        str(np.dtype(dtype)): np.arange(6).reshape(2, 3).astype(dtype)
        for dtype in (bool, np.int8, np.int64, np.uint8, np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
    } | {"scalar": np.array(3.5), "empty": np.zeros((0, 2), np.float32), "transposed": np.arange(6.0).reshape(2, 3).T}
    files.write_tensors(tmp_path / "a.safetensors", arrays, {"k": "v"})
    back, metadata = files.read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"k": "v"}
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert np.array_equal(back[name], array)
        back[name].flags.writeable  # noqa: B018


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, error):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def refuse(fd):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match="what was complete is still there"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with files.atomic_directory(tmp_path / "level") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "level").exists()
    assert (tmp_path / "level" / "a").read_text() == "x"
    with pytest.raises(RuntimeError), files.atomic_directory(tmp_path / "other"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["level"]


def test_a_disk_that_fills_up_inside_a_directory_leaves_nothing(tmp_path):
    with pytest.raises(StorageError), files.atomic_directory(tmp_path / "level"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_json_has_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [float("nan"), 1.0], "b": (float("inf"),)})
    assert files.read_json(tmp_path / "a.json") == {"a": [None, 1.0], "b": [None]}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_broken_json_is_an_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileFormatError, match="not a JSON file"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(FileFormatError, match="no such file"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(FileFormatError, match="cannot be read"):
        files.read_json(tmp_path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        files.read_tensors(tmp_path)
