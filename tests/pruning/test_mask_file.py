"""The mask file: readable with safetensors alone, and never trusted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from pruning.errors import FileFormatError
from pruning.mask import Mask


@pytest.fixture
def path(tmp_path):
    Mask({"fc.weight": [[1, 0], [1, 1]]}, {"level": 2}).save(tmp_path / "mask.safetensors")
    return tmp_path / "mask.safetensors"


def test_safetensors_alone_reads_it(path):
    assert safetensors.numpy.load_file(path)["fc.weight"].tolist() == [[True, False], [True, True]]
    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["lottery"])
    assert (header["format"], header["level"], header["sparsity"]) == (1, 2, 0.25)


def test_torch_reads_it_as_bool(path):
    import safetensors.torch
    import torch

    assert safetensors.torch.load_file(path)["fc.weight"].dtype == torch.bool


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_file_is_an_error(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileFormatError, match="not a readable safetensors file"):
        Mask.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "not a readable safetensors"),
        (b"\xff" * 64, "not a readable safetensors"),
        ((2**62).to_bytes(8, "little") + b"{}", "not a readable safetensors"),
        ((4).to_bytes(8, "little") + b"null", "not a readable safetensors"),
    ],
    ids=["pickle", "noise", "huge-header", "null-header"],
)
def test_hostile_bytes_are_an_error(path, content, message):
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        Mask.load(path)


def test_overlapping_tensors_are_an_error(path):
    header = json.dumps(
        {
            "a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]},
            "b": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\1\1\1\1")
    with pytest.raises(FileFormatError):
        Mask.load(path)


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"w": np.ones(2, bool)}, {}, "not a mask"),
        ({"w": np.ones(2, bool)}, {"lottery": "{"}, "not JSON"),
        ({"w": np.ones(2, bool)}, {"lottery": "[]"}, "mask format None"),
        ({"w": np.ones(2, bool)}, {"lottery": '{"format": 99}'}, "mask format 99"),
        ({"w": np.ones(2, np.float32)}, {"lottery": '{"format": 1}'}, "'w' is float32"),
        ({}, {"lottery": '{"format": 1}'}, "without a tensor"),
    ],
)
def test_foreign_files_are_errors_that_say_what_is_wrong(path, tensors, header, message):
    safetensors.numpy.save_file(tensors, path, metadata=header)
    with pytest.raises(FileFormatError, match=message):
        Mask.load(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        Mask.load(tmp_path / "mask.safetensors")


def test_bool_bytes_other_than_0_and_1_do_not_survive_as_a_mask(path):
    header = json.dumps(
        {
            "__metadata__": {"lottery": '{"format": 1}'},
            "a": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\2\0")
    assert Mask.load(path).kept == 1
