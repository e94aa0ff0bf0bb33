"""Execute notebooks from their paired scripts and store them with their outputs.

python notebooks/execute.py [SCRIPT ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def scripts() -> list[Path]:
    """Return the notebooks' scripts, in order."""
    return sorted(HERE.glob("[0-9]_*.py"))


def execute(script: Path, smaller: Mapping[str, float] | None = None) -> Any:
    """Return the notebook of a script, executed in an empty folder.

    Args:
        script: jupytext's paired script.
        smaller: values by name; they replace those of the cell that is tagged `parameters`.
    """
    notebook = jupytext.read(script)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = "\n".join(_with(line, smaller or {}) for line in cell.source.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # times, which differ from run to run
        cell.id = f"cell-{number}"
    return notebook


def _with(line: str, values: Mapping[str, float]) -> str:
    name = line.partition(" = ")[0]
    return f"{name} = {values[name]}" if name in values else line


if __name__ == "__main__":
    for chosen in [Path(name) for name in sys.argv[1:]] or scripts():
        nbformat.write(execute(chosen), chosen.with_suffix(".ipynb"))
        print(chosen.with_suffix(".ipynb"))
