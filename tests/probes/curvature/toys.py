"""Small networks whose critical rates are known, or that are hard to leave as they were."""

import torch
from torch import nn

from nin import inject
from nin.model.losses import LOSSES
from nin.model.networks import MLP
from nin.probes.curvature import critical_rate

DOUBLE = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """f_i = w_i sqrt(lam_i), so that the loss |f|^2 / 2 has the eigenvalues lam; the input does not matter."""

    def __init__(self, lam, start):
        super().__init__()
        self.unused = nn.Linear(1, 1, dtype=DOUBLE)  # the place of a node that nothing depends on
        self.lam = torch.tensor(lam, dtype=DOUBLE)
        self.w = nn.Parameter(torch.tensor(start, dtype=DOUBLE))

    def forward(self, x):
        return self.unused(x) * 0 + self.w * self.lam.sqrt()


def quadratic(lam, start):
    x = torch.zeros(40, 1, dtype=DOUBLE)
    noisy = inject(Quadratic(lam, start), "unused", sigma=1.0, generator=seeded())
    return noisy, x, torch.zeros(40, len(lam), dtype=DOUBLE)


def rate(noisy, x, y, *, loss=LOSSES["mse"], batch_size=8, seed=0, **options):
    return critical_rate(noisy, x, y, loss=loss, batch_size=batch_size, generator=seeded(seed), **options)


def task(n=60):
    generator = seeded(5)
    return torch.randn(n, 5, dtype=DOUBLE, generator=generator), torch.arange(n) % 3


def network(activation="tanh", layers="layers.0", sigma=0.7, law="gaussian"):
    net = MLP(5, (7, 6), 3, activation=activation, dtype=DOUBLE, generator=seeded(1))
    return inject(net, layers, sigma=sigma, law=law, generator=seeded(2))


class Tied(nn.Module):
    """A tied weight, dropout, batch norm, a frozen layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(5, 5, dtype=DOUBLE) for _ in range(3))
        self.second.weight = self.first.weight
        self.norm, self.drop = nn.BatchNorm1d(5, dtype=DOUBLE), nn.Dropout(0.5)
        self.last.requires_grad_(False)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.second(self.norm(torch.tanh(self.first(x)))))))
