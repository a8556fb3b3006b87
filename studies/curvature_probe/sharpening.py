"""The top of <H> along progressive sharpening, read live and by Lanczos, and a learning rate kept below a bound."""

from collections.abc import Callable
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import mse
from nin.probes.curvature import Reading, Thermometer, sharpness, top_mode
from nin.support.arguments import check_choice, check_number
from nin.support.randomness import own_randomness

Rule = Literal["fixed", "live", "start"]
RULES = ("fixed", "live", "start")


def convolutional() -> nn.Module:
    """Two 3 x 3 convolutions of stride 2 (8, 16 channels) with tanh on the digits, and a head; PyTorch's weights."""
    hidden = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *hidden, nn.Flatten(), nn.Linear(64, 10))


def perceptron() -> nn.Module:
    """64-64-64-10 with tanh; PyTorch's weights."""
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


class RowTransformer(nn.Module):
    """The rows of a digit as tokens: embedding and position, an encoder layer of width 32, mean, head."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.embed = nn.Unflatten(1, (8, 8)), nn.Linear(8, 32)
        self.position = nn.Parameter(0.02 * torch.randn(8, 32))
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(self.rows(x)) + self.position).mean(1))


# Each with the layer that is read and a learning rate at which eta times the sharpness is near 2 or above it: the
# convolutional network sharpens up to 2, the MLP starts near it, and the transformer starts above it.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "MLP": (perceptron, "0", 0.2),
    "convolutional": (convolutional, "3", 0.2),
    "transformer": (RowTransformer, "encoder.linear1", 0.1),
}


def bounded_rate(reading: Reading, *, sigma: float, bound: float, largest: float) -> float:
    """The learning rate eta <= largest with kappa = eta sigma^2 lambda <= bound, lambda one stderr above the reading.

    sigma    of the node;  bound  of kappa: 2 is the border of the catapult in the linear net
    Raises ValueError for sigma, bound or largest that are not positive.
    """
    for name, value in (("sigma", sigma), ("bound", bound), ("largest", largest)):
        check_number(name, value, exclusive=True)
    lam = reading.eigenvalues[0].item() + reading.stderr.nan_to_num(0)[0].item()
    return min(largest, bound / (sigma**2 * lam)) if lam > 0 else largest


def sharpen(
    name: str,
    data: Dataset,
    *,
    rule: Rule = "fixed",
    bound: float = 1.0,
    sigma: float = 1.0,
    steps: int = 200,
    every: int = 2,
    looks: int = 8,
    samples: int = 512,
    seed: int = 0,
) -> pd.DataFrame:
    """Train one of NETWORKS by full-batch gradient descent on the squared loss, and read the top of <H> on the way.

    rule     "fixed": the network's learning rate eta; "live": at each reading the `bounded_rate` of the reading;
             "start": the bounded rate of the first reading, kept
    bound, sigma    of kappa = eta sigma^2 lambda; no node is attached
    every    steps between readings, each on half of the samples, drawn anew
    looks    steps, evenly spaced, at which exact values are computed on all samples by Lanczos
    Columns: network, rule, step, eta, loss, value, stderr (thermometer), exact, sharpness (NaN between looks).
    Raises ValueError for an unknown rule.
    """
    check_choice("rule", rule, RULES)
    factory, layer, largest = NETWORKS[name]
    x, y = data.x_train[:samples].float(), data.y_train[:samples]
    generator = torch.Generator().manual_seed(seed)
    with own_randomness(seed):
        model = factory()
    meter, eta, rows = Thermometer(model, layer, seed=seed), largest, []
    optimizer = torch.optim.SGD(model.parameters(), lr=eta)
    look = {round(k * (steps - steps % every) / (looks - 1) / every) * every for k in range(looks)}

    def read() -> Reading:
        half = torch.randperm(len(x), generator=generator)[: len(x) // 2]
        return meter.read(x[half], y[half], loss=mse)

    for _ in range(meter.memory):
        read()
    for step in range(steps + 1):
        loss = mse(model(x), y).mean()
        if step % every == 0:
            reading = read()
            if rule == "live" or (rule == "start" and step == 0):
                eta = bounded_rate(reading, sigma=sigma, bound=bound, largest=largest)
            row = {"step": step, "eta": eta, "loss": loss.item(), "value": reading.eigenvalues[0].item(),
                   "stderr": reading.stderr[0].item(), "exact": torch.nan, "sharpness": torch.nan}  # fmt: skip
            if step in look:
                row["exact"] = top_mode(model, layer, x, y, loss=mse).lam
                row["sharpness"] = sharpness(model, x, y, loss=mse).lam
            rows.append(row)
        optimizer.param_groups[0]["lr"] = eta
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pd.DataFrame(rows).assign(network=name, rule=rule)
