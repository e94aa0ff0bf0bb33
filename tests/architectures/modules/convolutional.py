"""Networks of convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def head(features: int = 8, classes: int = 3) -> nn.Sequential:
    """Return what ends most image networks."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes))


class Residual(nn.Module):
    """Two residual blocks with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
            for _ in range(2)
        )
        self.head = head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x)


class UNet(nn.Module):
    """Down and up again, with a concatenation across; one class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, padding=1)
        self.bottom = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        above = F.relu(self.down(x))
        below = F.relu(self.up(F.relu(self.bottom(above))))
        return self.out(torch.cat([above, below], dim=1))


class Dense(nn.Module):
    """Every layer sees all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.head = head(15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(F.relu(layer(torch.cat(features, 1))))
        return self.head(torch.cat(features, 1))


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.head = head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv(x))
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.head(x * weights[:, :, None, None])


def inverted_bottleneck() -> nn.Module:
    """Pointwise, depthwise, pointwise, as in MobileNet."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8), head(),
    )  # fmt: skip


class Shuffle(nn.Module):
    """Grouped convolutions with a channel shuffle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.third = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.head = head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.second(F.relu(self.first(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(self.third(x)))


class Autoencoder(nn.Module):
    """Transposed convolutions that paint the image again."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 4, 2, 1))
        self.decode = nn.Sequential(nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


class WaveNet(nn.Module):
    """Gated dilated causal convolutions with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 8, 1)
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(3))
        self.mixes = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3))
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, total = self.stem(x), torch.zeros(())
        for i, (gate, mix) in enumerate(zip(self.gates, self.mixes, strict=True)):
            left, right = gate(F.pad(x, (2**i, 0))).chunk(2, dim=1)
            skip = torch.tanh(left) * torch.sigmoid(right)
            total = total + skip
            x = x + mix(skip)
        return self.out(F.relu(total).mean(-1))


def volumes() -> nn.Module:
    """Convolutions over three axes."""
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(4, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def super_resolution() -> nn.Module:
    """Ends in a pixel shuffle, unshuffled first."""
    return nn.Sequential(
        nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1), nn.PReLU(8), nn.Conv2d(8, 12, 1), nn.PixelShuffle(2)
    )


def norms() -> nn.Module:
    """Group, instance, layer and local response norms in one network."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.LocalResponseNorm(3),
        nn.Conv2d(8, 8, 3, padding=1), nn.LayerNorm([8, 8, 8]), nn.GELU(), head(),
    )  # fmt: skip


def dropouts() -> nn.Module:
    """Dropout of values, channels and alpha dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Dropout2d(0.2), nn.SELU(), nn.AlphaDropout(0.1), nn.Conv2d(8, 8, 3),
        nn.FeatureAlphaDropout(0.1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 3),
    )  # fmt: skip


def circular() -> nn.Module:
    """Padding that is not zero, uneven kernels and strides."""
    return nn.Sequential(
        nn.Conv2d(3, 8, (1, 3), padding="same", padding_mode="circular"), nn.LeakyReLU(),
        nn.Conv2d(8, 8, (3, 2), stride=(2, 1), padding=1, padding_mode="reflect"), nn.Hardswish(), head(),
    )  # fmt: skip


class Inception(nn.Module):
    """Branches of several widths, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({
            "one": nn.Conv2d(3, 4, 1),
            "three": nn.Conv2d(3, 4, 3, padding=1),
            "pool": nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(3, 4, 1)),
        })  # fmt: skip
        self.head = head(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(torch.cat([branch(x) for branch in self.branches.values()], 1)))


class Capsules(nn.Module):
    """Capsules that agree by routing (Sabour et al. 2017): a bare 4-D parameter in an einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.transform = nn.Parameter(0.1 * torch.randn(36, 3, 4, 4))

    @staticmethod
    def squash(x: torch.Tensor) -> torch.Tensor:
        norm = (x * x).sum(-1, keepdim=True)
        return norm / (1 + norm) * x / (norm + 1e-6).sqrt()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        primary = self.squash(self.conv(x).reshape(len(x), 36, 4))
        votes = torch.einsum("bni,ncij->bncj", primary, self.transform)
        routes = torch.zeros_like(votes[..., 0])
        found = votes.mean(1)
        for _ in range(2):
            found = self.squash((routes.softmax(2)[..., None] * votes).sum(1))
            routes = routes + (votes * found[:, None]).sum(-1)
        return 5 * found.norm(dim=-1)
