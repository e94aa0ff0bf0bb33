"""C code that is compiled on the machine: kept whole, built again where it is not, and nothing where it cannot be."""

from __future__ import annotations

import ctypes
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pruning.sparse.native.compiling import Missing, cache_folder, compiled

again = compiled.__wrapped__

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    path = tmp_path / "answer.c"
    path.write_text(f"/* {tmp_path} */ int answer(void) {{ return 42; }}")
    return path


def build(source: Path) -> ctypes.CDLL:
    found = again(source)
    assert not isinstance(found, Missing)
    return found


def kept() -> list[Path]:
    return list((cache_folder() / "native").iterdir())


def test_a_library_is_built_once(source, monkeypatch):
    assert build(source).answer() == 42
    monkeypatch.setenv("CC", "false")
    assert build(source).answer() == 42
    assert len(kept()) == 1


@pytest.mark.parametrize("left", [0, 4096, 8192])
def test_a_library_that_was_cut_short_is_built_again(source, left):
    """To load such a one is the end of a process: what is not there cannot be read."""
    (folder := cache_folder() / "native").mkdir(parents=True)
    whole = build(source)._name
    short = Path(whole).read_bytes()[:left]
    (folder / "other.so").write_bytes(short)
    (folder / "other.so").replace(whole)
    assert build(source).answer() == 42
    assert Path(whole).stat().st_size > left


def test_threads_may_build_at_once(source):
    with ThreadPoolExecutor(4) as pool:
        assert [found.answer() for found in pool.map(build, [source] * 4)] == [42] * 4
    assert len(kept()) == 1


@pytest.mark.parametrize("compiler", ["false", "/no such/cc", "true", " "])
def test_a_compiler_that_gives_nothing(source, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert isinstance(again(source), Missing)


def test_a_user_without_a_home(source, monkeypatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(FileNotFoundError):
        cache_folder()
    assert build(source).answer() == 42


def test_a_home_that_cannot_be_written(source, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file in the folder's place")
    assert build(source).answer() == 42
