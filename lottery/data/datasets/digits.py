"""Handwritten digits, 8×8: embedded in scikit-learn, no download."""

from __future__ import annotations

import numpy as np

from lottery.data import Data
from lottery.data.datasets import dataset


@dataset("digits", source="scikit-learn load_digits; Alpaydin & Kaynak 1998, UCI")
def digits() -> Data:
    """1,797 handwritten digits as [1, 8, 8] images, embedded in scikit-learn (a fixed fifth is the test part)."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = (np.asarray(pixels).reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    labels = np.asarray(target).astype(np.int64)
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(images))
    test, train = order[:360], order[360:]
    mean, std = images[train].mean(), images[train].std()
    images = (images - mean) / std
    return Data(
        train=(images[train], labels[train]), test=(images[test], labels[test]), name="digits", validation_size=360
    )
