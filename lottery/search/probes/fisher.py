"""Fisher information."""

from __future__ import annotations

import torch

from lottery.data.batch import chunks
from lottery.networks.example_gradients import NetworkLoss, chunk_size, mean_squares
from lottery.search.probes import Look, probe
from lottery.search.probes.modes import with_statistics_of


@probe("fisher", source="Theis et al. 2018, section 2 (arXiv 1801.05787)")
def fisher(look: Look) -> dict[str, torch.Tensor]:
    """The empirical Fisher information's diagonal: the mean over a batch of squared gradients of single examples.

    In evaluation mode, with batch norms that hold the statistics of the whole batch: an example alone has none.

    Raises:
        BadValue: a loss that cannot be computed for a single example.
    """
    model = with_statistics_of(look.model, look.examples[0])
    network = NetworkLoss(model, look.weights, look.loss, asker="criterion 'fisher'", instead="'taylor'")
    return mean_squares(network, chunks(look.examples, chunk_size(look.weights)))
