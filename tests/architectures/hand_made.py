"""Networks made by hand, of the kinds that break pruning tools: the list."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lottery.networks.objectives.objective import Metric
from tests.architectures import data
from tests.architectures.entry import Architecture
from tests.architectures.modules import calls, control, sequences, weights
from tests.architectures.modules import convolutional as conv

IMAGES, VECTORS, SIGNALS = (
    partial(data.classified, 3, 8, 8),
    partial(data.classified, 6),
    partial(data.classified, 2, 16),
)
SERIES = partial(data.classified, 5, 4)


def hits(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the accuracy of a batch."""
    return (outputs.argmax(-1) == labels).float().mean()


def of(read: Any) -> dict[str, Any]:
    """Return loss and metric for logits that must be found in a model's outputs, or labels in a batch."""

    def loss(outputs: Any, batch: Any) -> Any:
        return F.cross_entropy(*read(outputs, batch))

    return {"loss": loss, "metric": Metric("accuracy", lambda o, b: hits(*read(o, b)), is_fraction=True, additive=True)}


def error(loss: Any) -> dict[str, Any]:
    """Return a loss that is the metric too."""
    return {"loss": loss, "metric": Metric("error", loss, higher_is_better=False, additive=True)}


def first_of_two(outputs: Any, labels: torch.Tensor) -> Any:
    """Return the logits, whether or not auxiliary ones came with them."""
    return outputs[0] if isinstance(outputs, tuple) else outputs, labels


def auxiliary(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss with the auxiliary logits' part."""
    if isinstance(outputs, tuple):
        return F.cross_entropy(outputs[0], labels) + 0.3 * F.cross_entropy(outputs[1], labels)
    return F.cross_entropy(outputs, labels)


def both(outputs: Any, targets: Any) -> torch.Tensor:
    """Return the sum of two heads' losses."""
    return F.cross_entropy(outputs[0], targets[0]) + F.mse_loss(outputs[1], targets[1])


def surprise(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood of a distribution."""
    return -outputs.log_prob(targets).mean()


def batch_norm_in(dtype: torch.dtype) -> nn.Module:
    """Return a network of another floating-point type."""
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)).to(dtype)


def convolutional() -> list[Architecture]:
    """Return those with convolutions."""
    return [
        Architecture("residual", conv.Residual, IMAGES),
        Architecture("u-net", conv.UNet, data.segmented),
        Architecture("dense-connections", conv.Dense, IMAGES),
        Architecture("squeeze-excite", conv.SqueezeExcite, IMAGES),
        Architecture("depthwise", conv.inverted_bottleneck, IMAGES),
        Architecture("grouped-shuffle", conv.Shuffle, IMAGES),
        Architecture("transposed-autoencoder", conv.Autoencoder, partial(data.reconstructed, 3, 8, 8)),
        Architecture("wavenet", conv.WaveNet, SIGNALS),
        Architecture("volumes", conv.volumes, partial(data.classified, 1, 4, 4, 4)),
        Architecture("pixel-shuffle", conv.super_resolution, partial(data.reconstructed, 3, 8, 8)),
        Architecture("norms", conv.norms, IMAGES),
        Architecture("dropouts", conv.dropouts, IMAGES),
        Architecture("circular-padding", conv.circular, IMAGES),
        Architecture("inception", conv.Inception, IMAGES),
        Architecture("capsules", conv.Capsules, IMAGES),
        Architecture("mlp-mixer", sequences.Mixer, IMAGES),
    ]


def sequential() -> list[Architecture]:
    """Return those of sequences."""
    recurrent = sequences.Recurrent
    return [
        Architecture("lstm", partial(recurrent, nn.LSTM, num_layers=2), data.sentences),
        Architecture("gru-bidirectional", partial(recurrent, nn.GRU, bidirectional=True), data.sentences),
        Architecture("rnn", partial(recurrent, nn.RNN, nonlinearity="relu"), data.sentences),
        Architecture("packs-by-lengths", sequences.PadsAndPacks, data.with_lengths),
        Architecture("packed-batches", sequences.TakesPacked, data.packed, resizable=False),
        Architecture("cell-loop", sequences.CellLoop, SERIES),
        Architecture("masked-attention", sequences.MaskedAttention, data.padded_sentences),
        Architecture("fused-attention", sequences.FusedAttention, data.sentences),
        Architecture("cross-attention", sequences.CrossAttention, partial(data.pairs, 5, 4)),
        Architecture("transformer-encoder", sequences.Encoder, data.sentences),
        Architecture("transformer-norm-first", partial(sequences.Encoder, True), data.sentences),
        Architecture("transformer-decoder", sequences.Decoder, data.next_tokens),
        Architecture("tied-language-model", sequences.TiedLanguageModel, data.next_tokens),
        Architecture("gmlp", sequences.GatedMLP, data.sentences),
        Architecture("perceiver", sequences.Latents, SERIES),
        Architecture("embedding-bag", sequences.Bag, data.sentences),
        Architecture("fourier-mixer", sequences.FourierMixer, data.sentences),
        Architecture("state-space", sequences.StateSpace, SERIES),
    ]


def weighted() -> list[Architecture]:
    """Return those with unusual weights."""
    return [
        Architecture("perceptron", weights.perceptron, VECTORS),
        Architecture("weight-norm", weights.weight_norm, VECTORS),
        Architecture("spectral-norm", weights.spectral_norm, VECTORS),
        Architecture("orthogonal", weights.orthogonal, VECTORS),
        Architecture("shared-module", weights.Shared, VECTORS),
        Architecture("tied-autoencoder", weights.TiedAutoencoder, partial(data.reconstructed, 6)),
        Architecture("bare-matrices", weights.BareMatrices, VECTORS),
        Architecture("experts-3d", weights.Experts, VECTORS),
        Architecture("third-party-linear", weights.subclassed, VECTORS),
        Architecture("transposed-linear", weights.transposed, VECTORS),
        Architecture("bilinear", weights.Bilinear, partial(data.pairs, 6)),
        Architecture("lora-merges", weights.lora, VECTORS),
        Architecture("complex", weights.Complex, VECTORS),
        Architecture("hypernetwork", weights.Hypernetwork, VECTORS),
        Architecture("kan", weights.Kan, VECTORS),
        Architecture("fourier-features", weights.BufferWeights, VECTORS),
        Architecture("weight-standardized", weights.ScaledWeights, VECTORS),
        Architecture("parameter-list", weights.ParameterList, VECTORS),
        Architecture(
            "float64", partial(batch_norm_in, torch.float64), partial(data.classified, 6, dtype=torch.float64)
        ),
        Architecture("bfloat16", partial(batch_norm_in, torch.bfloat16), VECTORS),
    ]


def behaving() -> list[Architecture]:
    """Return those with unusual forward passes, batches and results."""
    answer = of(lambda outputs, labels: (outputs.logits, labels))
    return [
        Architecture(
            "dictionaries", calls.NamedDictionary, data.dictionaries, **of(lambda o, b: (o["logits"], b["label"]))
        ),
        Architecture("returns-dataclass", calls.ReturnsDataclass, VECTORS, **answer),
        Architecture("returns-namedtuple", calls.ReturnsNamedTuple, VECTORS, **answer),
        Architecture("auxiliary-head", calls.AuxiliaryInTraining, VECTORS, auxiliary, of(first_of_two)["metric"]),
        Architecture("two-heads", calls.Heads, data.two_targets, **error(both)),
        Architecture("mixture-density", calls.MixtureDensity, partial(data.regressed, 6), **error(surprise)),
        Architecture("siamese", calls.Siamese, partial(data.pairs, 6, classes=False)),
        Architecture("contrastive", calls.Contrastive, data.views),
        Architecture(
            "graph-convolution", calls.GraphConvolution, data.graphs, resizable=False, **of(lambda o, b: (o, b.y))
        ),
        Architecture("lambda-attribute", control.LambdaAttribute, VECTORS),
        Architecture("replaced-forward", control.replaced_forward, VECTORS),
        Architecture("hooks", control.hooked, VECTORS),
        Architecture("running-mean", control.RunningMean, VECTORS),
        Architecture("python-counter", control.PythonCounter, VECTORS),
        Architecture("variational", control.Variational, partial(data.reconstructed, 6), draws=True),
        Architecture("energy-gradient", control.Energy, partial(data.reconstructed, 6)),
        Architecture("neural-ode", control.NeuralODE, VECTORS),
        Architecture("equilibrium", control.Equilibrium, VECTORS),
        Architecture("data-dependent", control.DataDependent, VECTORS),
        Architecture("early-exit", control.EarlyExit, VECTORS),
        Architecture("checkpointed", control.Checkpointed, VECTORS),
        Architecture("highway", control.Highway, VECTORS),
        Architecture("scripted-part", control.ScriptedPart, VECTORS),
    ]


def architectures() -> list[Architecture]:
    """Return the whole list."""
    return [*convolutional(), *sequential(), *weighted(), *behaving()]
