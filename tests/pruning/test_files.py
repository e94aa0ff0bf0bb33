"""Files appear whole or not at all, and are read only where they are files of a sane size."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat

import ml_dtypes
import numpy as np
import pytest

from lottery.settings.fields import read_toml
from pruning.disk import directories, files
from pruning.errors import FileFormatError, StorageError
from pruning.mask import Mask


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
    with directories.atomic_directory(tmp_path / "level") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "level").exists()
    assert (tmp_path / "level" / "a").read_text() == "x"
    with pytest.raises(RuntimeError), directories.atomic_directory(tmp_path / "other"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["level"]


def test_a_disk_that_fills_up_inside_a_directory_leaves_nothing(tmp_path):
    with pytest.raises(StorageError), directories.atomic_directory(tmp_path / "level"):
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


def test_what_is_written_is_on_disk_before_it_has_its_name_and_the_name_is_too(tmp_path, monkeypatch):
    happened = []
    synchronize, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (happened.append(_kind(handle)), synchronize(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("named"), replace(a, b)))
    files.write_json(tmp_path / "a.json", {})
    assert happened == ["file", "named", "folder"]


def _kind(handle):
    return "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"


def test_no_two_writes_share_a_temporary_name(tmp_path):
    names = {directories.own_name(tmp_path / "a.json").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(f".a.json.{os.getpid()}-") and name.endswith(".tmp") for name in names)


def test_a_folder_that_is_there_is_not_written_over_unless_it_is_replaced(tmp_path):
    for content in ("old", "new"):
        with directories.replaced_directory(tmp_path / "folder") as folder:
            (folder / content).touch()
    assert os.listdir(tmp_path / "folder") == ["new"]
    with pytest.raises(StorageError), directories.atomic_directory(tmp_path / "folder") as folder:
        (folder / "newer").touch()
    assert os.listdir(tmp_path / "folder") == ["new"] and os.listdir(tmp_path) == ["folder"]


def test_leftovers_of_the_old_naming_go_and_other_folders_stay(tmp_path):
    (tmp_path / ".level.tmp").mkdir()
    (tmp_path / ".level.12-0a1b2c3d.tmp").mkdir()
    (tmp_path / ".level.mine.tmp").mkdir()
    (tmp_path / ".levels.tmp").mkdir()
    with directories.atomic_directory(tmp_path / "level"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".level.mine.tmp", ".levels.tmp", "level"]


@pytest.fixture(params=["pipe", "device", "socket", "folder", "loop", "huge", "no name"])
def no_file(request, tmp_path):
    """Something that is no file of a sane size."""
    path = tmp_path / "it.safetensors"
    with contextlib.ExitStack() as stack:
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        elif request.param == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif request.param == "folder":
            path.mkdir()
        elif request.param == "loop":
            path.symlink_to(path)
        elif request.param == "huge":
            with open(path, "wb") as file:
                file.truncate(2**42)
        else:
            path = tmp_path / ("a" * 5000)
        yield path


@pytest.mark.parametrize("read", [files.read_bytes, files.read_json, files.read_tensors, Mask.load, read_toml])
def test_what_is_no_file_is_an_error_at_once(no_file, read):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read(no_file)


def test_a_json_file_beyond_all_measure_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_JSON", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4, 5]")
    with pytest.raises(FileFormatError, match="15 bytes, and at most 10 can be"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["NaN", "[1e400]", "-Infinity", "[" * 100 + "]" * 100, '"\\ud800"', "9" * 30])
def test_json_that_would_fail_later_fails_at_once(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileFormatError, match="not a JSON file"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"a": [], "__metadata__": {"b": 1}},
    ],
    ids=["beyond the file", "overflow", "negative", "other size", "unknown type", "other types"],
)
def test_a_safetensors_header_that_lies(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"1234")
    with pytest.raises(FileFormatError, match="not a readable safetensors file"):
        files.read_tensors(tmp_path / "a.safetensors")
