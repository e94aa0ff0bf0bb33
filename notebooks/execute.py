"""Execute notebooks from their paired scripts and store them with their outputs.

python notebooks/execute.py [SCRIPT ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def scripts() -> list[Path]:
    """Return the notebooks' scripts, in order."""
    return sorted(HERE.glob("[0-9]_*.py"))


def execute(script: Path) -> Any:
    """Return the notebook of a script, executed in an empty folder."""
    notebook = jupytext.read(script)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # times, which differ from run to run
        cell.id = f"cell-{number}"
    return notebook


if __name__ == "__main__":
    for chosen in [Path(name) for name in sys.argv[1:]] or scripts():
        nbformat.write(execute(chosen), chosen.with_suffix(".ipynb"))
        print(chosen.with_suffix(".ipynb"))
