"""The training response along a run: how it decays, what it consists of, and how the network's features change."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from nin.model.views import Forward, viewed
from nin.probes.response.features import effective_rank, live_units, participation
from nin.probes.response.fragility import flips, margin, weight_noise, worst_neuron
from nin.probes.response.one_step import Stepper
from nin.probes.response.tangent_kernel import kernel_by_layer
from nin.probes.watching import watching
from nin.support.arguments import check_count

COLUMNS = ["step", "layer", "quantity", "distance", "value", "error"]
BINS = 8  # of distance, used if there are more than twice as many different distances


class ResponseLaw:
    """Measures a network on a fixed probe set at each call of `read`; works with any training loop.

        law = ResponseLaw(model, x, y, loss=loss, optimizer=optimizer)
        for step in range(steps):
            if step in due:
                law.read(step)
            ...
        law.frame()

    x, y     the fixed probe set; the kernel of the first reading is the reference for the drift
    loss     loss(outputs, y) -> scalar, also for a batch of one
    optimizer   of the model's parameters
    features    names of the layers whose outputs are the hidden features; None: all layers without children except the
                last; worst_neuron is then not measured
    responders  number of samples whose response is measured, by one step of a copy each; None: all
    seed     of the noise in `flips` and `weight_noise`
    forward  forward(model, x) -> outputs, in place of model(x), such as lambda model, x: model(x).logits
    For integer x (tokens) the distance counts the entries that differ, and flips and margin are not measured.
    A reading costs n C backward passes of one sample for the kernel, a step on one sample for each responder, 64 passes
    over x under noise, and one for each neuron of `features`.
    Raises ValueError if the optimiser holds other parameters, the loss is not a scalar, or x and y differ in length.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Shaped[Tensor, "n ..."],
        y: Tensor,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        features: list[str] | None = None,
        responders: int | None = None,
        seed: int = 0,
        forward: Forward | None = None,
    ) -> None:
        if len(x) != len(y) or len(x) < 2:
            raise ValueError(f"x has {len(x)} samples and y has {len(y)}; give the same number, at least two.")
        if responders is not None:
            check_count("responders", responders)
        self.model, self.x, self.y, self.optimizer = viewed(model, forward, x)[0], x, y, optimizer
        self.features, self.responders, self.seed = features, responders, seed
        self._stepper = Stepper(model, optimizer, loss, forward)
        self._reference: Tensor | None = None
        self._tables: list[pd.DataFrame] = []

    def read(self, step: int) -> pd.DataFrame:
        """Measure now; the rows are kept for `frame` and returned."""
        check_count("step", step, minimum=0)
        rows = [*self._responses(), *self._kernel(), *self._features(), *self._fragility()]
        table = pd.DataFrame([(step, *row) for row in rows], columns=COLUMNS)
        self._tables.append(table)
        return table

    def frame(self) -> pd.DataFrame:
        """All readings: step, layer, quantity, distance (NaN except for kernel_at), value, error (standard error).

        response            mean |R(x_i | x_i)|, exact: a step of a copy of the optimiser on x_i
        response_linear     the same to first order in the step; nonlinearity: |exact - linear| / |linear|
        self_kernel         mean Theta(x_i, x_i), traced over outputs; stability: lr times self_kernel
        share               fraction of the self-kernel that a layer's parameters contribute
        drift               |Theta - Theta_0| / |Theta_0|, Frobenius norm, Theta_0 from the first reading
        kernel_at           mean Theta(x_i, x_j) at a distance, in units of the self-kernel
        within_over_across  mean |Theta_ij| of pairs with equal labels over that of pairs with different labels; absent
                            if a sample has several labels
        effective_rank, participation, live_units    of a layer's features (`nin.probes.response.features`)
        flips, worst_neuron, weight_noise, margin    fragility (`nin.probes.response.fragility`)
        """
        return pd.concat(self._tables, ignore_index=True) if self._tables else pd.DataFrame(columns=COLUMNS)

    def _responses(self) -> list[tuple]:
        exact, linear, nonlinear = [], [], []
        for i in range(len(self.x) if self.responders is None else min(self.responders, len(self.x))):
            one = slice(i, i + 1)
            found = self._stepper.step(self.x[one], self.y[one], self.x[one])
            exact.append(found.exact.abs().mean().item())
            linear.append(found.linear.abs().mean().item())
            nonlinear.append(found.nonlinearity)
        named = {"response": exact, "response_linear": linear, "nonlinearity": nonlinear}
        return [_row(name, values) for name, values in named.items()]

    def _kernel(self) -> list[tuple]:
        layers = kernel_by_layer(self.model, self.x)
        whole = sum(layers.values()).cpu().double()  # (n, n)
        own = whole.diagonal()
        rows = [_row("self_kernel", own.tolist())]
        rows.append(_row("stability", (self.optimizer.param_groups[0]["lr"] * own).tolist()))
        rows += [
            _row("share", (block.diagonal().cpu().double() / own).tolist(), layer) for layer, block in layers.items()
        ]
        self._reference = whole if self._reference is None else self._reference
        drift = (whole - self._reference).norm() / self._reference.norm()
        rows.append(("", "drift", np.nan, drift.item(), np.nan))
        i, j = torch.triu_indices(len(whole), len(whole), 1)
        pairs = (whole[i, j] / own.mean()).cpu().numpy()
        tokens, flat = not self.x.is_floating_point(), self.x.flatten(1).cpu().double()
        distance = (flat[i] != flat[j]).sum(1).double().numpy() if tokens else _distances(flat)
        if not tokens and (flat.abs() == 1).all() and flat.min() < flat.max():  # strings of bits: Hamming
            distance = (distance**2 / 4).round()
        for value, place in _bins(distance):
            rows.append(("", "kernel_at", value, pairs[place].mean(), _stderr(pairs[place])))
        several = self.y.dim() > 1 and self.y[0].numel() > 1
        if several and not self.y.is_floating_point():  # a label for each token: a sample has none
            return rows
        labels = self.y.flatten(1).argmax(1) if several else self.y.flatten()
        labels = labels.sign() if labels.is_floating_point() else labels
        same = (labels[i] == labels[j]).cpu().numpy()
        if same.any() and not same.all():
            ratio = np.abs(pairs[same]).mean() / np.abs(pairs[~same]).mean()
            rows.append(("", "within_over_across", np.nan, ratio, np.nan))
        return rows

    def _features(self) -> list[tuple]:
        with watching(self.model, self.features, lambda name, output: output.flatten(1).clone()) as run:
            seen = run(self.x)
        names = list(seen) if self.features is not None else list(seen)[:-1]
        measures = {"effective_rank": effective_rank, "participation": participation, "live_units": live_units}
        return [(n, name, np.nan, f(seen[n]), np.nan) for n in names for name, f in measures.items()]

    def _fragility(self) -> list[tuple]:
        x, y, generator = self.x, self.y, torch.Generator().manual_seed(self.seed)
        moves = x.is_floating_point()
        rows = [("", "flips", flips(self.model, x, generator=generator))] if moves else []
        rows.append(("", "weight_noise", weight_noise(self.model, x, y, generator=generator)))
        rows += [("", "margin", margin(self.model, x))] if moves else []
        if self.features is not None:
            rows += [(name, "worst_neuron", worst_neuron(self.model, x, y, layer=name)) for name in self.features]
        return [(layer, name, np.nan, value, np.nan) for layer, name, value in rows]


def _distances(flat: Float[Tensor, "n d"]) -> np.ndarray:
    """|x_i - x_j| for i < j, row by row of these pairs, so that all differences are never in memory together."""
    return torch.cat([(one - flat[i + 1 :]).norm(dim=1) for i, one in enumerate(flat)]).numpy()


def _row(quantity: str, values: list[float], layer: str = "") -> tuple:
    return layer, quantity, np.nan, float(np.mean(values)), _stderr(np.asarray(values))


def _stderr(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _bins(distance: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The distances, or, if there are many, the means of bins of equally many pairs; each with a mask of its pairs."""
    values = np.unique(distance)
    if len(values) <= 2 * BINS:
        return [(float(value), distance == value) for value in values]
    order = np.argsort(distance, kind="stable")
    places = [np.isin(np.arange(len(distance)), part) for part in np.array_split(order, BINS)]
    return [(float(distance[place].mean()), place) for place in places]
