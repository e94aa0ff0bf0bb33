"""Loads a compacted network in ONNX. Needs onnxruntime alone.

from load import load

session = load()
feeds = {session.get_inputs()[0].name: x}       # x: a NumPy array, any batch size
(y,) = session.run(None, feeds)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(folder: str | Path = Path(__file__).parent) -> Any:
    """Return an `onnxruntime.InferenceSession` on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(Path(folder) / "model.onnx"), providers=["CPUExecutionProvider"])
