"""Notebooks run from top to bottom, and what is stored is what the paired script says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
assert SPEC is not None and SPEC.loader is not None
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)

SMALLER = {
    "STEPS": 100,
    "TOLERANCE": 1.0,
    "GENERATIONS": 4,
    "POLE_GENERATIONS": 2,
    "REPLICATES": 2,
    "LEVELS": 2,
    "HALVINGS": 2,
    "POLE_LEVELS": 1,
}
"""What a notebook's cell of parameters says, made small: here it must run, not be right.

Every level of an evolved network compiles a program of its own, which takes longer than its few generations.
"""


@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs_and_agrees_with_its_script(script):
    stored = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    written = jupytext.read(script)
    assert [(c.cell_type, c.source) for c in stored.cells] == [(c.cell_type, c.source) for c in written.cells]
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2


@pytest.mark.timeout(180)
@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(script, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebooks.execute(script, SMALLER)


@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_a_notebook_says_how_long_it_trains_in_one_cell(script):
    cells = [c for c in jupytext.read(script).cells if "parameters" in c.metadata.get("tags", ())]
    assert len(cells) == 1
    assert {line.partition(" = ")[0] for line in cells[0].source.splitlines()} <= set(SMALLER)


@pytest.mark.parametrize("script", notebooks.scripts(), ids=lambda path: path.stem)
def test_a_notebook_imports_lottery_by_its_public_names_alone(script):
    assert "from lottery." not in script.read_text(encoding="utf-8")
