"""Whether an ensemble agrees: a prediction only where chance cannot explain the majority."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

ABSTAINS = -1


def majority_p_value(first: int, second: int) -> float:
    """Return the two-sided binomial p-value of the most frequent answer against the next one.

    Source: Black et al. 2022, selective ensembles, Algorithm 2 (arXiv 2111.08230).

    >>> round(majority_p_value(5, 0), 4), round(majority_p_value(9, 1), 4)
    (0.0625, 0.0215)
    """
    return float(binomtest(first, first + second, 0.5).pvalue)


def selective_prediction(answers: NDArray[np.integer] | Sequence[Sequence[int]], alpha: float) -> NDArray[np.int64]:
    """Return the members' most frequent answer for each example, or `ABSTAINS`.

    Args:
        answers: classes, [members, examples].
        alpha: the largest p-value at which the answer counts.

    >>> selective_prediction([[1, 0], [1, 1], [1, 0], [1, 1], [1, 0], [1, 1]], 0.05).tolist()
    [1, -1]
    """
    found: list[int] = []
    for column in np.asarray(answers).T:
        classes, counts = np.unique(column, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        first, second = int(counts[order[0]]), int(counts[order[1]]) if len(order) > 1 else 0
        found.append(int(classes[order[0]]) if majority_p_value(first, second) <= alpha else ABSTAINS)
    return np.array(found, np.int64)
