"""Catches: noise of a probe at another place than asked for, on the wrong axis, or in one of several calls only."""

import pytest
import torch
from torch import nn

from nin.model.losses import cross_entropy
from nin.probes.curvature import Thermometer, local_hessian, noise_averaged


def values(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Twice(nn.Module):
    """A layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.cell(torch.tanh(self.cell(x)))))


class Second(nn.Module):
    """Samples on the second axis of a layer's values."""

    def __init__(self):
        super().__init__()
        self.cell, self.lstm, self.head = nn.Linear(3, 3), nn.LSTM(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.lstm(self.cell(x.transpose(0, 1)))[0][-1])


def convolution():
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "layer", "shape", "options"),
    [
        (Twice, "cell", (3,), {}),
        (Second, "cell", (4, 3), {"batch_axis": 1}),
        (convolution, "0", (1, 3, 3), {"at": "preactivation"}),
    ],
)
def test_both_probes_agree_with_the_local_hessian(model, layer, shape, options):
    torch.manual_seed(0)
    model = model().double()
    x, y = values(1, *shape).expand(16, *shape), torch.ones(16, dtype=torch.long)  # one sample: readings without noise
    at = {name: value for name, value in options.items() if name == "at"}
    H = local_hessian(model, layer, x, y, loss=cross_entropy, **at)
    expected, vectors = torch.linalg.eigh(H)
    meter = Thermometer(model, layer, nodes=3, amplitude=1e-4, memory=1, **options)
    for _ in range(3):
        reading = meter.read(x, y, loss=cross_entropy)
    torch.testing.assert_close(reading.eigenvalues, expected.flip(0), rtol=1e-5, atol=1e-6)
    value, stderr = noise_averaged(model, layer, x, y, loss=cross_entropy, direction=vectors[:, -1], amplitude=1e-3,
                                   pairs=100, **options)  # fmt: skip
    assert value == pytest.approx(expected[-1].item(), abs=4 * stderr) and stderr < 0.06 * expected[-1].item()


def test_a_direction_of_another_size_is_refused():
    x, y = values(4, 1, 3, 3), torch.ones(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"direction has 3 entries, and the input of '0' has 9 units \(1, 3, 3\)"):
        noise_averaged(convolution().double(), "0", x, y, loss=cross_entropy, direction=values(3), amplitude=0.1)
