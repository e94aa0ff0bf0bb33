"""Images of 28×28 pixels where no data set is at hand: scikit-learn's digits three times as large, moved, with noise.

`images.py FILE TRAIN TEST`. Not MNIST: its numbers compare runs on one machine and say nothing about published ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def drawn(images: np.ndarray, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` images [count, 28, 28] of uint8, and which digit of `images` [n, 8, 8] each was."""
    which = rng.integers(0, len(images), count)
    large = np.kron(images[which], np.ones((1, 3, 3)))
    canvas = np.zeros((count, 28, 28))
    for image, place, (down, right) in zip(large, canvas, rng.integers(0, 5, (count, 2)), strict=True):
        place[down : down + 24, right : right + 24] = image
    canvas = canvas * 15 + rng.normal(0, 20, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), which


def main(file: Path, train: int, test: int) -> None:
    """Write an `.npz` whose test digits are none of its training digits."""
    values, labels = load_digits(return_X_y=True)
    digits = np.asarray(values).reshape(-1, 8, 8)
    rng = np.random.default_rng(0)
    arrays = {}
    for part, some, count in (("train", slice(0, 1400), train), ("test", slice(1400, None), test)):
        arrays[f"x_{part}"], which = drawn(digits[some], rng, count)
        arrays[f"y_{part}"] = np.asarray(labels)[some][which]
    unfinished = file.with_name(f"unfinished-{file.name}")
    np.savez(unfinished, **arrays)
    os.replace(unfinished, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
