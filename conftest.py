"""Fixtures for the tests and for the examples in docstrings."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Processes that run side by side must not fight for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compile the same small programs again and again, in child processes too; set before JAX is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="lottery-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
# Compiling takes most of a small evolution, and most of that is making its program fast. `XLA_FLAGS= pytest` runs the
# programs that users get; some tests of bits run them always, in child processes (tests/es/test_optimized.py).
_QUICK = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
# A flag that XLA does not know ends the process: jax 0.11 has these emitters alone, and no switch any more.
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_QUICK))


# No clock and no chance: an example that takes long, because the machine is busy, is no failure.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _power_that_stays_on() -> Iterator[None]:
    """Nobody waits for the disk, which takes a third of a short search: what is asked of it, and when, has tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # refuses what is not open, too
        yield


@pytest.fixture(autouse=True)
def _doctest_folder(doctest_namespace: dict[str, Any], tmp_path: Path) -> None:
    doctest_namespace["tmp"] = tmp_path
