"""The very simple network of the training response, f(x) = sum_j v_j phi(w_j . x + b_j) + c: many at once, exactly.

One network for each of several activations, losses and seeds; those of one seed share data, order and initial weights.
Gradients are written out, so that one step of all networks takes a dozen operations (arXiv 2405.04074; its widths,
rates and encodings are not known to us: those here are workable ones of the reference).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.support.arguments import check_choice, check_count, check_number

METHODS = ("sgd", "momentum", "adam")
SCALINGS = ("standard", "ntk")
BETA = 0.9  # of momentum
SLOPE = 0.01  # of the leaky ReLU, torch's default
ETA = {"mse": 0.02, "ce": 0.1, "sigmoid_mse": 0.3}  # per loss, at H = 64 and d = 10: the reference's workable rates

ACTIVATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {  # phi(z), phi'(z)
    "tanh": lambda z: (h := torch.tanh(z), 1 - h * h),
    "relu": lambda z: (z.clamp(min=0), (z > 0).to(z)),
    "sigmoid": lambda z: (h := torch.sigmoid(z), h * (1 - h)),
    "leaky_relu": lambda z: (torch.maximum(z, SLOPE * z), SLOPE + (1 - SLOPE) * (z > 0).to(z)),
}
MODULES = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU}


def _sigmoid_slope(f: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(f)
    return (p - (y + 1) / 2) * p * (1 - p)


SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # l'(f, y), labels +-1 (real targets for mse)
    "mse": lambda f, y: f - y,
    "ce": lambda f, y: -y * torch.sigmoid(-y * f),
    "sigmoid_mse": _sigmoid_slope,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda f, y: 0.5 * (f - y) ** 2,
    "ce": lambda f, y: nn.functional.softplus(-y * f),
    "sigmoid_mse": lambda f, y: 0.5 * (torch.sigmoid(f) - (y + 1) / 2) ** 2,
}


@dataclass(frozen=True, kw_only=True)
class SimpleRecipe:
    """What is trained: activations x losses x seeds.

    losses    a name may occur several times, with different learning rates or label noise
    inputs, hidden    d and H
    batch     samples per step, 1 as in the paper; None: all of them (gradient descent)
    eta       learning rate of each loss, or one for all; None: ETA of the loss
    label_noise       sigma of fresh Gaussian noise on the target at every step, of each loss or one for all
    bias      standard deviation of the initial biases b, of each loss or one for all
    method    "sgd"; "momentum", with beta = 0.9; "adam", with torch's defaults and one eta for all losses
    scaling   initial weights, and the factors s_i of the input and s_o of the output of equation (4):
        "standard": w ~ N(0, 1/d), v ~ N(0, 1/H), both factors 1; "ntk": w, v ~ N(0, 1), s_i = d^-1/2, s_o = H^-1/2
    """

    activations: Sequence[str] = tuple(ACTIVATIONS)
    losses: Sequence[str] = tuple(LOSSES)
    seeds: Sequence[int] = tuple(range(6))
    inputs: int = 10
    hidden: int = 64
    batch: int | None = 1
    eta: float | Sequence[float] | None = None
    label_noise: float | Sequence[float] = 0.0
    bias: float | Sequence[float] = 0.0
    method: str = "sgd"
    scaling: str = "standard"

    def __post_init__(self) -> None:
        for activation in self.activations:
            check_choice("activations", activation, ACTIVATIONS)
        for loss in self.losses:
            check_choice("losses", loss, LOSSES)
        for name in ("inputs", "hidden"):
            check_count(name, getattr(self, name))
        if self.batch is not None:
            check_count("batch", self.batch)
        check_choice("method", self.method, METHODS)
        check_choice("scaling", self.scaling, SCALINGS)
        if self.method == "adam" and not isinstance(self.eta, float):
            raise ValueError(f"eta={self.eta!r} of adam must be one number, like 0.001: it is the same for all losses.")
        for eta in self.per_loss("eta"):
            check_number("eta", eta, exclusive=True)
        for name in ("label_noise", "bias"):
            for value in self.per_loss(name):
                check_number(name, value)

    @property
    def factors(self) -> tuple[float, float]:
        """s_i and s_o."""
        return (1.0, 1.0) if self.scaling == "standard" else (self.inputs**-0.5, self.hidden**-0.5)

    def per_loss(self, name: Literal["eta", "label_noise", "bias"]) -> list[float]:
        """The learning rate, label noise or bias of each loss. ValueError if there are more or fewer than losses."""
        value = getattr(self, name)
        if value is None:
            return [ETA[loss] for loss in self.losses]
        values = [value] * len(self.losses) if isinstance(value, (int, float)) else list(value)
        if len(values) != len(self.losses):
            raise ValueError(f"{name}={value!r} must be one number, or one for each of the {len(self.losses)} losses.")
        return values


@dataclass
class Factors:
    """The terms of Theta, equation (4), each (seeds, activations, losses, n, m), and their sum."""

    output: Float[Tensor, "S A L n m"]
    hidden: Float[Tensor, "S A L n m"]
    bias: Float[Tensor, "S A L n m"]
    whole: Float[Tensor, "S A L n m"] = field(init=False)

    def __post_init__(self) -> None:
        self.whole = self.output + self.hidden + self.bias


class SimpleNetworks:
    """The stacked networks, float64; S seeds, A activations, L losses, H hidden units, d inputs.

    w (S, A, L, H, d) ~ N(0, 1/d), b (S, A, L, H) ~ bias N(0, 1), v (S, A, L, H) ~ N(0, 1/H), c (S, A, L) = 0; w and v
    have variance 1 in the NTK scaling.
    """

    def __init__(self, recipe: SimpleRecipe) -> None:
        self.recipe = recipe
        A, L, H, d = len(recipe.activations), len(recipe.losses), recipe.hidden, recipe.inputs
        self._generators = [torch.Generator().manual_seed(seed) for seed in recipe.seeds]
        w, v = self._normal(H, d), self._normal(H)
        if recipe.scaling == "standard":
            w, v = w / d**0.5, v / H**0.5
        S = len(w)
        self.w = w[:, None, None].expand(S, A, L, H, d).contiguous()
        self.v = v[:, None, None].expand(S, A, L, H).contiguous()
        self.b, self.c = torch.zeros_like(self.v), torch.zeros(S, A, L, dtype=torch.float64)
        spread = torch.tensor(recipe.per_loss("bias"), dtype=torch.float64)
        if spread.any():
            self.b += spread[:, None] * self._normal(H)[:, None, None]
        self._s_i, self._s_o = recipe.factors
        self.eta = torch.tensor(recipe.per_loss("eta"), dtype=torch.float64)
        self._sigma = torch.tensor(recipe.per_loss("label_noise"), dtype=torch.float64)
        self._optimizer: torch.optim.Optimizer | None = None
        if recipe.method == "momentum":  # of gradients that eta has multiplied
            self._optimizer = torch.optim.SGD(self._parameters(), lr=1.0, momentum=BETA)
        elif recipe.method == "adam":
            self._optimizer = torch.optim.Adam(self._parameters(), lr=recipe.eta)

    def _normal(self, *shape: int) -> Tensor:
        """N(0, 1) for each seed, (S, *shape)."""
        return torch.stack([torch.randn(*shape, dtype=torch.float64, generator=g) for g in self._generators])

    def _parameters(self) -> list[Tensor]:
        return [self.w, self.b, self.v, self.c]

    def hidden(self, x: Float[Tensor, "S n d"]) -> tuple[Float[Tensor, "S A L H n"], Float[Tensor, "S A L H n"]]:
        """phi(z) and phi'(z), (S, A, L, H, n)."""
        S, A, L, H, d = self.w.shape
        z = torch.baddbmm(self.b.view(S, -1, 1), self.w.view(S, -1, d), x.mT, alpha=self._s_i)  # (S, A L H, n)
        z = z.view(S, A, L * H, -1)
        parts = [ACTIVATIONS[name](z[:, a]) for a, name in enumerate(self.recipe.activations)]  # (S, L H, n) each
        h, slope = (torch.stack(part, 1).view(S, A, L, H, -1) for part in zip(*parts, strict=True))
        return h, slope

    def outputs(self, x: Float[Tensor, "S n d"]) -> Float[Tensor, "S A L n"]:
        """f(x) of every network."""
        return self._readout(self.hidden(x)[0])

    def _readout(self, h: Float[Tensor, "S A L H n"]) -> Float[Tensor, "S A L n"]:
        return self._s_o * (self.v[..., None, :] @ h).squeeze(-2) + self.c[..., None]

    def for_each_loss(self, y: Float[Tensor, "S n"]) -> Float[Tensor, "S L n"]:
        """The same targets for every loss."""
        return y[:, None].expand(-1, len(self.recipe.losses), -1)

    def slopes(self, f: Float[Tensor, "S A L n"], y: Float[Tensor, "S L n"]) -> Float[Tensor, "S A L n"]:
        """l'(f, y), loss by loss."""
        return torch.stack([SLOPES[name](f[:, :, k], y[:, None, k]) for k, name in enumerate(self.recipe.losses)], 2)

    def losses(self, f: Float[Tensor, "S A L n"], y: Float[Tensor, "S L n"]) -> Float[Tensor, "S A L n"]:
        """l(f, y), loss by loss."""
        return torch.stack([LOSSES[name](f[:, :, k], y[:, None, k]) for k, name in enumerate(self.recipe.losses)], 2)

    def step(self, x: Float[Tensor, "S n d"], y: Float[Tensor, "S L n"]) -> None:
        """One step of every network on the mean loss over n samples."""
        S, _, _, _, d = self.w.shape
        h, slope = self.hidden(x)  # (S, A, L, H, n) each
        f = self._readout(h)  # (S, A, L, n)
        rate = 1.0 if self.recipe.method == "adam" else self.eta[:, None]
        g = self.slopes(f, y) * (rate / x.shape[1])  # (S, A, L, n)
        scaled = self._s_o * g
        dz = slope * (self.v[..., None] * scaled[..., None, :])  # (S, A, L, H, n)
        if self._optimizer is None:
            self.v -= (h @ scaled[..., None]).squeeze(-1)
            self.c -= g.sum(-1)
            self.b -= dz.sum(-1)
            self.w.view(S, -1, d).baddbmm_(dz.view(S, -1, x.shape[1]), x, alpha=-self._s_i)
            return
        self.w.grad = self._s_i * torch.bmm(dz.view(S, -1, x.shape[1]), x).view(self.w.shape)
        self.b.grad, self.v.grad, self.c.grad = dz.sum(-1), (h @ scaled[..., None]).squeeze(-1), g.sum(-1)
        self._optimizer.step()

    def train(
        self, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"], steps: int, *, at: Sequence[int] = ()
    ) -> Iterator[int]:
        """Train for `steps` steps; yield each of the sorted steps in `at` before it is taken (or after the last)."""
        due = iter([*at, None])
        following = next(due)
        for step, (rows, noise) in enumerate(self._order(x.shape[1], steps)):
            if step == following:
                yield step
                following = next(due)
            inputs, targets = x, y
            if rows is not None:
                inputs = x.gather(1, rows[..., None].expand(-1, -1, x.shape[2]))  # (S, batch, d)
                targets = y.gather(1, rows)  # (S, batch)
            targets = self.for_each_loss(targets)  # (S, L, batch)
            if noise is not None:
                targets = targets + self._sigma[:, None] * noise[:, None]
            self.step(inputs, targets)
        if following is not None:
            yield steps

    def _order(self, count: int, steps: int) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """Samples (S, batch) of each step, drawn with replacement, None for all; and label noise."""
        recipe, block = self.recipe, 1024
        for start in range(0, steps, block):
            size = min(block, steps - start)
            batch = count if recipe.batch is None else recipe.batch
            rows = noise = None
            if recipe.batch is not None:
                drawn = [torch.randint(count, (size, batch), generator=g) for g in self._generators]
                rows = torch.stack(drawn, 1)
            if self._sigma.any():
                drawn = [torch.randn(size, batch, dtype=torch.float64, generator=g) for g in self._generators]
                noise = torch.stack(drawn, 1)
            for k in range(size):
                yield None if rows is None else rows[k], None if noise is None else noise[k]

    def factors(self, x: Float[Tensor, "S n d"], x2: Float[Tensor, "S m d"] | None = None) -> Factors:
        """Theta(x, x') of each network as equation (4): output weights, hidden weights and biases, output bias."""
        h, slope = self.hidden(x)  # (S, A, L, H, n) each
        h2, slope2 = (h, slope) if x2 is None else self.hidden(x2)  # (S, A, L, H, m) each
        output = self._s_o**2 * h.mT @ h2  # (S, A, L, n, m)
        overlap = self._s_i**2 * (x @ (x if x2 is None else x2).mT)[:, None, None] + 1  # (S, 1, 1, n, m): inputs, bias
        hidden = self._s_o**2 * overlap * (slope.mT @ (self.v.square()[..., None] * slope2))  # (S, A, L, n, m)
        return Factors(output, hidden, torch.ones_like(output))

    def exact_responses(self, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"]) -> Float[Tensor, "S A L n n"]:
        """R(x_i | x_j) of one step on each x_j alone, [..., i, j], by copies with the optimiser's state."""
        f, columns, targets = self.outputs(x), [], self.for_each_loss(y)
        for j in range(x.shape[1]):
            after = copy.deepcopy(self)
            after.step(x[:, j : j + 1], targets[..., j : j + 1])
            columns.append(after.outputs(x) - f)
        return torch.stack(columns, -1)

    def linear_responses(self, x: Float[Tensor, "S n d"], y: Float[Tensor, "S n"]) -> Float[Tensor, "S A L n n"]:
        """-eta Theta(x_i, x_j) l'(f(x_j), y_j), [..., i, j], of plain SGD (equation (1))."""
        g = self.slopes(self.outputs(x), self.for_each_loss(y)) * self.eta[:, None]  # (S, A, L, n)
        return -self.factors(x).whole * g[..., None, :]

    def module(self, seed: int, activation: int, loss: int) -> nn.Sequential:
        """One of the networks as an nn.Module, (n, d) -> (n, 1), by its indices along S, A, L.

        The module has the weights s_i w and s_o v: its kernel is that of the network in the standard scaling only.
        """
        H, d = self.w.shape[-2:]
        first, last = nn.utils.skip_init(nn.Linear, d, H), nn.utils.skip_init(nn.Linear, H, 1)
        network = nn.Sequential(first, MODULES[self.recipe.activations[activation]](), last).double()
        place = seed, activation, loss
        with torch.no_grad():
            for ours, theirs in zip(
                network.parameters(),
                (self._s_i * self.w[place], self.b[place], self._s_o * self.v[place][None], self.c[place][None]),
                strict=True,
            ):
                ours.copy_(theirs)
        return network


def strings(count: int, inputs: int, seeds: Sequence[int]) -> Float[Tensor, "S count inputs"]:
    """Random strings of +-1, different within a seed; ValueError if there are fewer than count."""
    check_count("count", count)
    if count > 2**inputs:
        raise ValueError(f"count={count} is more than the {2**inputs} strings of {inputs} bits.")
    drawn = [torch.randperm(2**inputs, generator=torch.Generator().manual_seed(seed + 1000))[:count] for seed in seeds]
    bits = (torch.stack(drawn)[..., None] >> torch.arange(inputs)) & 1
    return 2.0 * bits.double() - 1
