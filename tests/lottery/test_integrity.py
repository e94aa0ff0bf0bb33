"""A file of a ticket that is not what was written is an error: in a load, and in a search that goes on from it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from lottery import Data, Ticket, find_ticket
from lottery.runs.checkpoints import read_checkpoint, write_checkpoint
from lottery.runs.directory import RunDirectory
from lottery.runs.ticket_directory import open_ticket
from pruning.disk.files import read_json, read_tensors, write_json, write_tensors
from pruning.errors import FileFormatError
from pruning.jobs import Budget, Job
from pruning.mask import Mask
from tests.lottery.helpers import as_an_earlier_version_wrote_it, assert_same_arrays, blobs, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SETTINGS = {"levels": 3, "steps": 12, "batch_size": 16, "tolerance": 1.0, "rewind": "4", "criterion": "snr"}


def search(out, **more):
    ticket = find_ticket(tiny_model(5), DATA, out=out, quiet=True, **{**SETTINGS, **more})
    assert ticket.search is not None
    return RunDirectory(ticket.search.run)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return search(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(written, tmp_path):
    """A run of our own, to be damaged."""
    shutil.copytree(written.path.parent, tmp_path, dirs_exist_ok=True)
    return RunDirectory(tmp_path / written.path.name)


def flip(path, position, bit):
    """Flip one bit; the size stays."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


NAMES = [
    "model.safetensors",
    "mask.safetensors",
    "trained.safetensors",
    "std.safetensors",
    "history.json",
    "config.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_anywhere_is_found_in_a_load_and_in_a_search_that_goes_on(run, name, tmp_path):
    level = run.level_path(0, 2)
    path, whole = level / name, (level / name).read_bytes()
    shutil.rmtree(run.level_path(0, 3))
    for position in np.linspace(0, len(whole) - 1, 25).astype(int):
        if name == "config.json" and b'"given"' in whole[position - 9 : position + 9]:
            continue  # where model and data lie: names that a person may correct
        for bit in (0, 6):
            flip(path, position, bit)
            if name != "history.json":
                with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
                    Ticket.load(level)
            with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
                open_ticket(level).check()
            path.write_bytes(whole)
    flip(path, len(whole) // 3, 3)
    with pytest.raises(
        FileFormatError, match=f"{name}.*; delete .*seed-0/level-02 and the levels after it, .* --force"
    ):
        search(tmp_path)
    assert not run.level_path(0, 3).exists()
    shutil.rmtree(level)
    search(tmp_path)  # as the message says
    assert_same_arrays(run.read_trained(0, 2).params, open_ticket(run.level_path(0, 2)).tensors("trained"))


def test_what_is_trained_again_has_the_bits_that_were_lost(run, written, tmp_path):
    for level in (2, 3):
        shutil.rmtree(run.level_path(0, level))
    search(tmp_path)
    for level in (2, 3):
        assert_same_arrays(run.read_trained(0, level).params, written.read_trained(0, level).params)
        assert run.read_record(0, level)["layers"] == written.read_record(0, level)["layers"]


def test_damage_in_a_level_that_is_not_the_last_stops_the_search_too(run, tmp_path):
    shutil.rmtree(run.level_path(0, 3))
    flip(run.level_path(0, 0) / "step-4.safetensors", -1, 6)
    with pytest.raises(FileFormatError, match=r"level-00/step-4\.safetensors: not what was written"):
        search(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(run, name, tmp_path):
    (run.level_path(0, 1) / name).unlink()
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.") + ": no such file|not a ticket directory"):
        Ticket.load(run.level_path(0, 1))
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.") + ": no such file.*--force"):
        search(tmp_path)


def test_a_file_of_another_level_or_one_too_many_is_named(run, tmp_path):
    one, two = run.level_path(0, 1), run.level_path(0, 2)
    shutil.copy(one / "mask.safetensors", two)
    with pytest.raises(FileFormatError, match=r"mask\.safetensors: not what was written"):
        Ticket.load(two)
    shutil.copy(two / "model.safetensors", one / "best.safetensors")
    with pytest.raises(FileFormatError, match=r"best\.safetensors: not a file of this ticket"):
        Ticket.load(one)
    (one / "best.safetensors").unlink()
    shutil.rmtree(two)
    shutil.copytree(one, two)
    with pytest.raises(FileFormatError, match="of seed 0, level 1, which is not where it lies"):
        run.read_record(0, 2)


def test_other_types_and_other_values_are_found(run):
    folder = run.level_path(0, 1)
    for name in ("trained", "std"):
        path = folder / f"{name}.safetensors"
        whole, (arrays, _) = path.read_bytes(), read_tensors(path)
        first = next(iter(arrays))
        for changed in (
            {**arrays, first: arrays[first].astype(np.float16)},
            {**arrays, first: np.full_like(arrays[first], np.nan)},
            {("other" if key == first else key): value for key, value in arrays.items()},
        ):
            write_tensors(path, changed, {"format": "pt"} if name == "trained" else {})
            with pytest.raises(FileFormatError, match=f"{name}.safetensors: not what was written"):
                Ticket.load(folder)
        path.write_bytes(whole)
    assert Ticket.load(folder).hashed


def test_the_card_and_the_places_of_model_and_data_may_be_edited(run):
    folder = run.level_path(0, 1)
    (folder / "README.md").write_text("# Mine")
    (folder / "notes.txt").write_text("of nobody's concern")
    record = read_json(folder / "config.json")
    write_json(folder / "config.json", {**record, "given": {"model": "mlp", "data": "moved/"}})
    assert Ticket.load(folder).info["given"]["data"] == "moved/"
    write_json(folder / "config.json", {**record, "test": 1.0})
    with pytest.raises(FileFormatError, match=r"config\.json: not what was written .*edited by hand"):
        Ticket.load(folder)


def test_hashes_that_lead_out_of_the_folder_are_refused(run):
    from lottery.runs.ticket_directory import sealed

    folder = run.level_path(0, 1)
    record = read_json(folder / "config.json")
    for name in ("../model.safetensors", "/etc/passwd", "..", "a\0b", ""):
        write_json(folder / "config.json", sealed(record, {**record["files"], name: "00"}))
        with pytest.raises(FileFormatError, match=r"config\.json"):
            Ticket.load(folder)


class TestOfAnEarlierVersion:
    """Tickets that were stored before there were hashes: what can be told without them is."""

    @pytest.fixture
    def old(self, run):
        for folder in run.path.glob("seed-0/level-*"):
            as_an_earlier_version_wrote_it(folder)
        return run

    def test_it_opens_and_says_that_nothing_was_compared(self, old, tmp_path):
        ticket = Ticket.load(old.level_path(0, 1))
        assert not ticket.hashed and "not checked: stored by an earlier version" in str(ticket)
        saved = ticket.save(tmp_path / "again")
        assert saved.hashed and "not checked" not in str(saved) + str(Ticket.load(tmp_path / "again"))

    def test_a_search_goes_on_from_it(self, old, tmp_path):
        shutil.rmtree(old.level_path(0, 3))
        search(tmp_path)
        assert Ticket.load(old.level_path(0, 3)).hashed

    def test_a_mask_of_another_level_does_not_fit_the_counts(self, old):
        shutil.copy(old.level_path(0, 1) / "mask.safetensors", old.level_path(0, 2))
        with pytest.raises(
            FileFormatError, match=r"mask\.safetensors: keeps 58 of 72 weights, and config\.json says 46"
        ):
            Ticket.load(old.level_path(0, 2))

    def test_weights_that_are_not_finite_without_a_divergence(self, old):
        path = old.level_path(0, 1) / "trained.safetensors"
        arrays, header = read_tensors(path)
        write_tensors(path, {**arrays, "0.weight": np.full_like(arrays["0.weight"], np.nan)}, header)
        with pytest.raises(FileFormatError, match=r"trained\.safetensors: weights that are not finite"):
            Ticket.load(path.parent)

    def test_standard_deviations_of_other_tensors(self, old):
        path = old.level_path(0, 1) / "std.safetensors"
        arrays, header = read_tensors(path)
        write_tensors(path, {f"x.{name}": array for name, array in arrays.items()}, header)
        with pytest.raises(FileFormatError, match=r"std\.safetensors holds other tensors"):
            Ticket.load(path.parent)

    def test_one_hash_without_the_other_is_no_earlier_version(self, run):
        path = run.level_path(0, 1) / "config.json"
        record = read_json(path)
        for key in ("files", "record_sha256"):
            write_json(path, {name: value for name, value in record.items() if name != key})
            with pytest.raises(FileFormatError, match="not what was written"):
                Ticket.load(path.parent)


def test_every_ticket_that_is_saved_has_hashes(written, tmp_path):
    saved = Ticket.load(written.level_path(0, 1)).save(tmp_path / "ticket")
    assert sorted(read_json(tmp_path / "ticket/config.json")["files"]) == [
        "mask.safetensors",
        "model.safetensors",
        "std.safetensors",
        "trained.safetensors",
    ]
    assert "files" not in saved.info and "record_sha256" not in Ticket.load(tmp_path / "ticket").info
    Mask({"0.weight": np.ones((8, 6))}).save(tmp_path / "ticket/mask.safetensors")
    with pytest.raises(FileFormatError, match=r"mask\.safetensors: not what was written"):
        Ticket.load(tmp_path / "ticket")


def test_levels_that_share_a_file_are_each_whole(tmp_path):
    run = search(tmp_path, criterion="magnitude", rewind="0")
    one, two = (run.level_path(0, level) / "model.safetensors" for level in (1, 2))
    assert one.stat().st_ino == two.stat().st_ino
    for level in range(4):
        run.check(0, level)
    assert Path(one).exists()


class TestCheckpoints:
    """A level that was cut off goes on from a checkpoint as it was written, or not at all."""

    JOB = Job({"w": np.zeros(4, np.float32)}, Mask({"w": np.ones(4)}), 0, Budget(0, 10))

    @pytest.fixture
    def path(self, tmp_path):
        write_checkpoint(tmp_path, [self.JOB], {"mean": np.arange(8.0).reshape(1, 8)}, [{"generation": 3}])
        (path,) = tmp_path.glob("checkpoint-*")
        return path

    def test_it_comes_back(self, path):
        arrays, facts = read_checkpoint(path.parent, [self.JOB]) or ({}, [])
        assert arrays["mean"].tolist() == [list(range(8))] and facts == [{"generation": 3}]

    def test_a_flipped_bit_anywhere_is_found(self, path):
        whole = path.read_bytes()
        for position in range(8, len(whole), 7):
            flip(path, position, 2)
            # Where the name of a job changed, the checkpoint is another's, and nothing goes on from it either.
            with contextlib.suppress(FileFormatError):
                assert read_checkpoint(path.parent, [self.JOB]) is None
            path.write_bytes(whole)
        flip(path, -1, 6)
        with pytest.raises(FileFormatError, match="not what was written .*; delete it to train its level anew"):
            read_checkpoint(path.parent, [self.JOB])

    def test_one_without_a_hash_is_refused(self, path):
        arrays, header = read_tensors(path)
        write_tensors(path, arrays, {key: value for key, value in header.items() if key != "sha256"})
        with pytest.raises(FileFormatError, match="not a checkpoint of this version; delete it"):
            read_checkpoint(path.parent, [self.JOB])
