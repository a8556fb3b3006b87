"""Convolutions in one to three dimensions, of all kinds, and the networks that are built of them."""

import torch
from kinds import RELU, Kind, centred, seeded, values
from torch import Tensor, nn

Y = torch.arange(8) % 3
IMAGES = values(8, 2, 6, 6)


def pooled(*layers: nn.Module, channels: int, pool: nn.Module | None = None) -> nn.Module:
    """Layers, tanh, the mean over pixels, a linear head."""
    pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
    return nn.Sequential(*layers, nn.Tanh(), pool, nn.Flatten(), nn.Linear(channels, 3))


def conv1d() -> nn.Module:
    layers = nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 3, 3)
    return seeded(pooled(*layers, channels=3, pool=nn.AdaptiveAvgPool1d(1)))


def conv2d() -> nn.Module:
    return seeded(pooled(nn.Conv2d(2, 3, 3, stride=2), nn.Tanh(), nn.Conv2d(3, 3, 2), channels=3))


def conv3d() -> nn.Module:
    layers = nn.Conv3d(1, 2, 2), nn.Tanh(), nn.Conv3d(2, 3, 2)
    return seeded(pooled(*layers, channels=3, pool=nn.AdaptiveAvgPool3d(1)))


def depthwise() -> nn.Module:
    layers = nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 3, 1)
    return seeded(pooled(*layers, channels=3))


def transposed() -> nn.Module:
    layers = nn.Conv2d(2, 3, 3, stride=2), nn.Tanh(), nn.ConvTranspose2d(3, 4, 3, stride=2)
    return seeded(pooled(*layers, channels=4))


def normed(norm: nn.Module) -> nn.Module:
    network = seeded(pooled(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 3, 3), channels=3))
    return centred(network, "7", IMAGES)


class Block(nn.Module):
    """x + branch(x), without a ReLU behind the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ResNet(nn.Module):
    """A pre-activation ResNet of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.blocks = nn.Sequential(Block(3), Block(3))
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Inplace(nn.Module):
    """A block of the original ResNet: a shortcut of another shape, and ReLU in place behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        h += self.shortcut(x)
        return self.fc(self.relu(h).mean((2, 3)))


class Excited(nn.Module):
    """Channels weighed by a hard sigmoid of their means, as in MobileNet v3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(2, 4, 3), nn.Hardswish(), nn.Conv2d(4, 4, 1)
        self.gate, self.head = nn.Hardsigmoid(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.conv(x))
        return self.head((h * self.gate(self.fc(h.mean((2, 3), keepdim=True)))).mean((2, 3)))


class UNet(nn.Module):
    """A class for each pixel: outputs (n, classes, rows, columns)."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.down(x))
        inner = torch.tanh(self.inner(nn.functional.max_pool2d(h, 2)))
        return self.out(torch.cat([h, torch.tanh(self.up(inner))], 1))


def by_pixel(outputs: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, y)


KINDS = [
    Kind("conv 1-d", conv1d, values(8, 2, 9), Y, "2", neurons="2"),
    Kind("conv 2-d", conv2d, IMAGES, Y, "2", neurons="2"),
    Kind("conv 2-d, node on channels", conv2d, IMAGES, Y, "2", at="preactivation", neurons="0"),
    Kind("conv 3-d", conv3d, values(8, 1, 3, 3, 3), Y, "2", neurons="2"),
    Kind("depthwise conv", depthwise, IMAGES, Y, "2", at="preactivation", neurons="2"),
    Kind("transposed conv", transposed, IMAGES, Y, "2", at="preactivation", neurons="2"),
    Kind("BatchNorm 2-d", lambda: normed(nn.BatchNorm2d(4)), IMAGES, Y, "3", at="preactivation", neurons="0",
         step=RELU),
    Kind("GroupNorm", lambda: normed(nn.GroupNorm(2, 4)), IMAGES, Y, "3", at="preactivation", neurons="0",
         step=RELU),
    Kind("ResNet", lambda: seeded(ResNet()), values(8, 2, 6, 6, seed=2), Y, "blocks.1.branch.2", at="preactivation",
         neurons="stem", step=RELU, blocks=("blocks.0", "blocks.1"),
         readout=lambda network, h: network.head(h.mean((2, 3)))),
    Kind("ResNet, in place", lambda: centred(seeded(Inplace()), "fc", IMAGES), IMAGES, Y, "conv2",
         at="preactivation", neurons="conv1", step=RELU),
    Kind("squeeze and excite", lambda: seeded(Excited()), IMAGES, Y, "conv", at="preactivation", neurons="conv"),
    Kind("U-Net", lambda: seeded(UNet()), IMAGES, values(8, 6, 6, seed=1).gt(0).long(), "inner",
         at="preactivation", neurons="inner", loss=by_pixel),
]  # fmt: skip
