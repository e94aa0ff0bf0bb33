"""Handwritten digits, 8×8: embedded in scikit-learn, no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from lottery.data import Data
from lottery.data.datasets import dataset


@dataset("digits", source="scikit-learn load_digits; Alpaydin & Kaynak 1998, UCI")
def digits() -> Data:
    """1,797 handwritten digits as [1, 8, 8] images, embedded in scikit-learn (a fixed fifth is the test part)."""
    pixels, target = _digits()
    images = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(target).astype(np.int64)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    test, train = order[:360], order[360:]
    mean, std = images[train].mean(), images[train].std()
    images = (images - mean) / std
    return Data(
        train=(images[train], labels[train]), test=(images[test], labels[test]), name="digits", validation_size=360
    )


def _digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return what `sklearn.datasets.load_digits` returns, without the two seconds that its import takes."""
    package = importlib.util.find_spec("sklearn")
    for folder in package.submodule_search_locations or () if package is not None else ():
        table = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if table.is_file():
            numbers = np.loadtxt(table, delimiter=",")
            return numbers[:, :-1], numbers[:, -1].astype(int)
    from sklearn.datasets import load_digits  # a version that keeps its table elsewhere

    bunch: Any = load_digits()
    return bunch.data, bunch.target
