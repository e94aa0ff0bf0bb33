"""Compiled programs are kept on disk while something evolves, and nothing but time depends on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from es.program_cache import SETTINGS, program_folder, programs_on_disk

NAMES = ["jax_compilation_cache_dir", "jax_enable_compilation_cache", *SETTINGS]
TWO_PROCESSES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from es import program_cache
program_cache.SETTINGS["jax_persistent_cache_min_compile_time_secs"] = 0.0
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
with program_cache.programs_on_disk():
    found = jax.jit(lambda x: jnp.sin(x @ x).sum(0))(jnp.arange(9.0).reshape(3, 3))
print(len(hits), np.asarray(found).tobytes().hex())
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """JAX as somebody has it who set nothing, with a cache directory of the test's own."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (name for name in before if name != "jax_enable_compilation_cache"):
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(SETTINGS, "jax_persistent_cache_min_compile_time_secs", 0.0)
    as_jax_has_them = {
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 1.0,
        "jax_compilation_cache_max_size": -1,
    }
    for name, value in as_jax_has_them.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield program_folder()
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def computed(scale: float = 2.0) -> Any:
    """Compile a new function, and return what it gives."""
    return np.asarray(jax.jit(lambda x: jnp.sin(x * scale) @ x)(jnp.arange(6.0)))


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*-cache"))


def test_programs_are_kept_inside_the_block_alone(folder):
    outside = computed()
    assert not folder.exists()
    with programs_on_disk():
        inside = computed()
        with programs_on_disk():
            pass
        kept = entries(folder)
        assert jax.config.jax_compilation_cache_max_size > 0  # pyright: ignore[reportAttributeAccessIssue]
    assert any("lambda" in name for name in kept)
    assert folder.stat().st_mode & 0o077 == 0
    assert jax.config.jax_compilation_cache_dir is None  # pyright: ignore[reportAttributeAccessIssue]
    assert jax.config.jax_compilation_cache_max_size == -1  # pyright: ignore[reportAttributeAccessIssue]
    computed(3.0)
    assert entries(folder) == kept
    with programs_on_disk():
        again = computed()
    assert entries(folder) == kept
    assert outside.tobytes() == inside.tobytes() == again.tobytes()


def test_who_chose_a_folder_or_none_keeps_it(folder, tmp_path, monkeypatch):
    for variable in (str(tmp_path / "own"), ""):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", variable)
        with programs_on_disk():
            computed()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_enable_compilation_cache", False)
    with programs_on_disk():
        computed()
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    with programs_on_disk():
        computed()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")  # pyright: ignore[reportAttributeAccessIssue]
    assert not folder.exists()
    assert entries(tmp_path / "own")


def test_a_folder_that_cannot_be_used_is_done_without(folder):
    folder.parent.mkdir(parents=True)
    folder.write_text("a file")
    with programs_on_disk():
        assert computed().shape == ()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)  # anybody could put a program there
    with programs_on_disk():
        computed()
    assert not entries(folder)


def test_a_damaged_program_is_compiled_again(folder):
    with programs_on_disk():
        first = computed()
    for path in folder.glob("*-cache"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with programs_on_disk():
        assert computed().tobytes() == first.tobytes()


def test_what_a_killed_process_left_does_not_stay(folder):
    with programs_on_disk():
        computed()
    whole = entries(folder)
    (folder / "jit_half-00-cache").write_bytes(b"half")  # JAX writes the time last
    with programs_on_disk():
        computed(3.0)
    assert "jit_half-00-cache" not in entries(folder)
    assert set(whole) < set(entries(folder))


def test_another_processor_has_another_folder(folder, monkeypatch):
    monkeypatch.setattr("es.program_cache.instructions", lambda: "sse2")
    assert program_folder() != folder
    assert program_folder().parent == folder.parent


def test_processes_share_programs_and_have_the_same_bits(folder):
    def started() -> Any:
        return subprocess.Popen([sys.executable, "-c", TWO_PROCESSES], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def ended(process: Any) -> tuple[int, str]:
        out, errors = process.communicate(timeout=250)
        assert (process.returncode, errors) == (0, b"")
        hits, bits = out.decode().split()
        return int(hits), bits

    side_by_side = [ended(process) for process in [started(), started()]]
    later = ended(started())
    assert later[0] > 0
    assert {bits for _, bits in [*side_by_side, later]} == {later[1]}
