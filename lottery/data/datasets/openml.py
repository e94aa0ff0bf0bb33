"""Image sets through scikit-learn's OpenML download, kept in its cache (`~/scikit_learn_data`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lottery.data import Data
from lottery.data.datasets import dataset
from lottery.data.files import read_path
from pruning.errors import DataError

_FASHION_MNIST_ON_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataset("mnist", source="LeCun et al. 1998; OpenML 554")
def mnist() -> Data:
    """70,000 handwritten digits of 28×28 pixels; 60,000 of them to train on (5,000 held out for validation)."""
    return _fetch("mnist", 554, (1, 28, 28), 60_000)


@dataset("fashion-mnist", source="Xiao et al. 2017 (arXiv 1708.07747); OpenML 40996, or Debian's dataset-fashion-mnist")
def fashion_mnist() -> Data:
    """70,000 pieces of clothing of 28×28 pixels; no download where Debian's dataset-fashion-mnist is installed."""
    if _FASHION_MNIST_ON_DEBIAN.is_dir():
        found = read_path(_FASHION_MNIST_ON_DEBIAN)
        return Data(found.train, test=found.test, name="fashion-mnist", validation_size=5_000)
    return _fetch("fashion-mnist", 40996, (1, 28, 28), 60_000)


@dataset("kmnist", source="Clanuwat et al. 2018 (arXiv 1812.01718); OpenML 41982")
def kmnist() -> Data:
    """70,000 cursive Japanese characters of 28×28 pixels, ten classes; 60,000 of them to train on."""
    return _fetch("kmnist", 41982, (1, 28, 28), 60_000)


@dataset("cifar10", source="Krizhevsky 2009; OpenML 40927")
def cifar10() -> Data:
    """60,000 colour photographs of 32×32 pixels, ten classes; 50,000 of them to train on."""
    return _fetch("cifar10", 40927, (3, 32, 32), 50_000)


def _fetch(name: str, data_id: int, shape: tuple[int, int, int], train: int) -> Data:
    from sklearn.datasets import fetch_openml

    try:
        pixels, target = fetch_openml(data_id=data_id, as_frame=False, return_X_y=True, parser="liac-arff")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name}: OpenML data set {data_id} could not be downloaded ({error}); "
            "give --data a folder of IDX files or an .npz instead"
        ) from error
    images = np.asarray(pixels).reshape(-1, *shape).astype(np.uint8)
    labels = np.asarray(target).astype(np.int64)
    return Data(
        train=(images[:train], labels[:train]),
        test=(images[train:], labels[train:]),
        name=name,
        validation_size=5_000,
    )
