"""Noise nodes as a thermometer: the top of <H> while a network trains, without second derivatives."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import hadamard
from torch import Tensor, nn

from nin.model.evaluating import evaluating
from nin.model.nodes import NoisyNetwork
from nin.model.sites import find_layer, find_site
from nin.support.arguments import check_count, check_number


@dataclass(frozen=True)
class Reading:
    """One reading of a thermometer: eigenvalues of <H>, largest first, their standard errors, and the directions.

    eigenvalues  (nodes,)
    stderr       (nodes,): from the scatter of the readings and the difference of the two estimates of `Thermometer`;
                 NaN in the first reading
    vectors      (nodes, d): the orthonormal directions that the next reading uses
    """

    eigenvalues: Float[Tensor, " nodes"]
    stderr: Float[Tensor, " nodes"]
    vectors: Float[Tensor, "nodes d"]


def variance_of_double_average(w: float) -> float:
    """The variance of 2a - b for independent readings of variance 1, after many readings.

    a is the running average of the readings, a += w (reading - a), and b that of a, b += w (a - b). The reading taken
    j steps ago has the weight c_j = w (1 - w)^j (2 - w (j + 1)) in 2a - b. With r = (1 - w)^2 and s = 1 / (1 - r),

        sum r^j = s,    sum (j + 1) r^j = s^2,    sum (j + 1)^2 r^j = (1 + r) s^3 = (2s - 1) s^2,
        sum_j c_j^2 = w^2 (4 s - 4 w s^2 + w^2 (2s - 1) s^2)

    w    weight of the latest reading, 0 < w <= 1

    >>> variance_of_double_average(1.0)
    1.0
    """
    s = 1 / (1 - (1 - w) ** 2)
    return w**2 * s * (4 - 4 * w * s + w**2 * (2 * s - 1) * s)


class Thermometer:
    """Reads the top eigenvalues of a layer's local Hessian <H> from the gradients of noise nodes, batch by batch.

    M nodes add A eps V to the layer, V (M, d) orthonormal, eps +-1. Antithetic pairs +-eps cancel the random walk, and

        T = (1/A) dL/dW_NI = < eps eps^T V H_i > + O(A^2),        with mean V <H>

    is a noisy power iteration. It is shifted by the lowest Ritz value if that is negative, and so finds the
    algebraically largest eigenvalues of an indefinite <H>. T is averaged over about `memory` readings in a frame that
    rotates with V, and V rotates to the Ritz vectors of the average. Noise in the average makes its Ritz values too
    large, and makes v.<H>v in fresh readings too small by the same amount: their mean is correct to second order in the
    noise. The average lags behind a changing <H>; the trend of the sum of the positive Ritz values corrects for it.

    model      any network; it is measured in eval mode and not changed, nor are its gradients or torch's random state
    layer      dotted name of an nn.Linear or a convolution
    nodes      M; about the leading M - 2 eigenvalues are reliable
    amplitude  A, in the units of the values that are shifted; the bias is of order A^2
    memory     number of readings that the average spans; more readings mean less noise and more lag
    at         where the nodes enter, as in `nin.inject`
    seed       for the initial directions, and for the assignment of signs to samples

    Defaults: nodes and amplitude from the first trial in the reference, memory from benchmarks/thermometer.py.
    Source: an extension of arXiv 2210.13599, equation (8); section 8 of the reference.
    Raises ValueError for an unknown layer, listing the candidates, for more nodes than units, for an amplitude that is
    not positive, and for nodes or memory < 1.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str,
        *,
        nodes: int = 8,
        amplitude: float = 0.05,
        memory: int = 10,
        at: str | None = None,
        seed: int = 0,
    ) -> None:
        find_layer(model, layer)
        check_count("nodes", nodes)
        check_number("amplitude", amplitude, exclusive=True)
        check_count("memory", memory)
        self.model, self.layer, self.at = model, layer, at
        self.nodes, self.amplitude, self.memory = nodes, amplitude, memory
        self._rng = np.random.default_rng(seed)
        self._signs = hadamard(1 << (nodes - 1).bit_length())[:, :nodes]
        self._count = 0

    def read(self, x: Tensor, y: Tensor, *, loss: Callable[[Tensor, Tensor], Tensor]) -> Reading:
        """Take a reading on a batch, and return the average so far.

        loss(outputs, y) gives the mean or the per-sample losses, which are averaged. A batch that training has not yet
        seen in this epoch has a larger loss and curvature than the whole training set: to read <H> over all training
        samples, draw the batches independently of the training.
        A batch with a gradient that is not finite gives NaN and leaves the average unchanged.
        Raises ValueError for a batch of fewer samples than nodes, and for inputs that `nin.inject` rejects.
        """
        if len(x) < self.nodes:
            raise ValueError(f"x has {len(x)} samples for nodes={self.nodes}; pass a batch of at least as many.")
        if not self._count:
            self._start(x)
        pulled = self._pull(x, y, loss)  # (nodes, d)
        if not np.isfinite(pulled).all():  # a network that diverged
            nothing = torch.full((self.nodes,), torch.nan, dtype=torch.float64)
            return Reading(nothing, nothing, torch.from_numpy(self._v.copy()))
        fresh = (pulled * self._v).sum(1)  # v.<H>v in directions that are independent of this batch
        self._count += 1
        weight = max(1 / self._count, 1 / self.memory)
        self._block += weight * (pulled - self._block)
        away = fresh - self._fresh
        self._fresh += weight * away
        self._scatter = (1 - weight) * (self._scatter + weight * away**2)
        self._trace += weight * (fresh[self._positive].sum() - self._trace)
        self._trace_of_trace += weight * (self._trace - self._trace_of_trace)
        return self._show(self._turn(), weight)

    def _start(self, x: Tensor) -> None:
        site = find_site(self.model, self.layer, at=self.at, example=x[:2])
        d = math.prod(site.shape)
        if self.nodes > d:
            raise ValueError(f"nodes={self.nodes} is more than the {d} units of {self.layer!r} there; use fewer nodes.")
        weight = self.model.get_submodule(self.layer).weight.detach()
        self._noisy = NoisyNetwork(
            self.model,
            [site],
            niw=[weight.new_zeros(self.nodes, *site.shape)],
            sigma=[self.amplitude],
            law="rademacher",
            generator=torch.Generator(),
        )
        self._v = np.linalg.qr(self._rng.standard_normal((d, self.nodes)))[0].T
        self._block = np.zeros((self.nodes, d))
        self._fresh, self._scatter = np.zeros(self.nodes), np.zeros(self.nodes)
        self._trace = self._trace_of_trace = self._shift = 0.0
        self._positive = np.ones(self.nodes, dtype=bool)

    def _pull(self, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """T = (1/A^2) dL/dW_NI at W_NI = V under noise +-A eps; in whole blocks the columns of eps are orthogonal."""
        niw = self._noisy.niw
        signs = self._signs[self._rng.permutation(len(x)) % len(self._signs)]
        eps = torch.from_numpy(self.amplitude * np.concatenate([signs, -signs])).to(niw)
        niw.data = torch.from_numpy(self._v).to(niw).view_as(niw)
        with evaluating(self.model), torch.enable_grad():
            outputs = self._noisy(torch.cat([x, x]), eps)
            (gradient,) = torch.autograd.grad(loss(outputs, torch.cat([y, y])).mean(), niw)
        return gradient.flatten(1).double().cpu().numpy() / self.amplitude**2

    def _turn(self) -> np.ndarray:
        """Rotate V, and the averaged block with it, to the block's Ritz vectors; the Ritz values, largest first."""
        basis = np.linalg.qr((self._block + self._shift * self._v).T)[0].T  # (nodes, d)
        block = (basis @ self._v.T) @ self._block  # (nodes, d)
        inside = block @ basis.T  # (nodes, nodes)
        values, vectors = np.linalg.eigh((inside + inside.T) / 2)
        rotation = vectors.T[::-1]
        self._v, self._block = rotation @ basis, rotation @ block
        self._shift, self._positive = max(0.0, -values[0]), values[::-1] > 0
        return values[::-1]

    def _show(self, ritz: np.ndarray, weight: float) -> Reading:
        trend = float(np.clip(2 - self._trace_of_trace / self._trace, 0.5, 2)) if self._trace else 1.0
        values = trend * (ritz + self._fresh) / 2
        noise = variance_of_double_average(weight) * self._scatter
        stderr = trend * np.sqrt(noise + (ritz - self._fresh) ** 2 / 4)
        order = np.argsort(values)[::-1]
        if self._count == 1:
            stderr = np.full(self.nodes, np.nan)
        return Reading(*(torch.from_numpy(part.copy()) for part in (values[order], stderr[order], self._v)))
