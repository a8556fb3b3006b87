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
from nin.model.functional import naming_derivatives
from nin.model.layers import weight_like
from nin.model.nodes import NoisyNetwork
from nin.model.shift import no_hooks_left
from nin.model.sites import check_bare, find_layer, find_site
from nin.model.views import Forward, Inputs, targeted, viewed
from nin.probes.curvature.ladder import Ladder
from nin.support.arguments import check_count, check_number, check_seed
from nin.support.precision import matching


@dataclass(frozen=True)
class Reading:
    """One reading of a thermometer: eigenvalues of <H>, largest first, their standard errors, and the directions.

    eigenvalues  (nodes,)
    stderr       (nodes,): from the noise within a batch, the movement between readings and the difference of the two
                 estimates of `Thermometer`; NaN in the first reading
    vectors      (nodes, d): the orthonormal directions that the next reading uses
    """

    eigenvalues: Float[Tensor, " nodes"]
    stderr: Float[Tensor, " nodes"]
    vectors: Float[Tensor, "nodes d"]


GROUPS = 4  # of a batch, whose scatter is the noise
HUGE = 1e100  # pulls of a network that diverged: their squares would overflow


class Thermometer:
    """Reads the top eigenvalues of a layer's local Hessian <H> from the gradients of noise nodes, batch by batch.

    M nodes add A eps V to the layer, V (M, d) orthonormal, eps +-1. Antithetic pairs +-eps cancel the random walk, and

        T = (1/A) dL/dW_NI = < eps eps^T V H_i > + O(A^2),        with mean V <H>

    is a noisy power iteration. It is shifted by the lowest Ritz value if that is negative, and so finds the
    algebraically largest eigenvalues of an indefinite <H>. T is averaged in a frame that rotates with V, and V rotates
    to the Ritz vectors of the average. Noise in the average makes its Ritz values too large, and makes v.<H>v in fresh
    readings too small by the same amount: their mean is correct to second order in the noise.

    The memory adapts (`nin.probes.curvature.ladder`): the longest average that no shorter one contradicts is read. The
    scatter of T between the GROUPS groups of a batch gives its noise without a reference to earlier readings. If a
    reading jumps, the averages start anew from a second reading of the same batch, for which V has turned.

    model      any network; it is measured in eval mode and not changed, nor are its gradients or torch's random state
    layer      dotted name of an nn.Linear or a convolution
    nodes      M; about the leading M - 2 eigenvalues are reliable
    amplitude  A, in the units of the values that are shifted; the bias is of order A^2. Beside values above A / eps of
               the dtype (4e5 in float32 by default), as in a network that diverges, rounding swallows the shift
    memory     number of readings that the longest average spans
    at, batch_axis    where the nodes enter, as in `nin.inject`; a layer that is called several times gets the same
               noise in all its calls
    seed       for the initial directions, and for the assignment of signs to samples
    forward    forward(model, x) -> outputs, in place of model(x), as in `local_hessian`

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
        memory: int = 16,
        at: str | None = None,
        seed: int = 0,
        forward: Forward | None = None,
        batch_axis: int | None = None,
    ) -> None:
        check_bare(model)
        find_layer(model, layer)
        check_count("nodes", nodes)
        check_number("amplitude", amplitude, exclusive=True)
        check_count("memory", memory)
        check_seed("seed", seed)
        self.model, self.layer, self.at, self.batch_axis = model, layer, at, batch_axis
        self.forward = forward
        self.nodes, self.amplitude, self.memory = nodes, amplitude, memory
        self._rng = np.random.default_rng(seed)
        self._signs = hadamard(1 << (nodes - 1).bit_length())[:, :nodes]
        self._count = 0

    def read(self, x: Inputs, y: Inputs, *, loss: Callable[..., Tensor]) -> Reading:
        """Take a reading on a batch, and return the average so far.

        x and y are tensors with one row for each sample, or sequences or mappings of them; loss(outputs, y) gives the
        mean or the per-sample losses, which are averaged. A batch that training has not yet seen in this epoch has a
        larger loss and curvature than the whole training set: to read <H> over all training samples, draw the batches
        independently of the training.
        A batch with a gradient that is not finite, or beyond HUGE, gives NaN and leaves the average unchanged.
        Raises ValueError for a batch of fewer samples than nodes, or than 2, and for inputs that `nin.inject` rejects.
        """
        (view, x), (loss, y) = viewed(self.model, self.forward, x), targeted(loss, y)
        if len(x) != len(y):
            raise ValueError(f"x has {len(x)} and y has {len(y)} samples; pass the same number.")
        if len(x) < max(2, self.nodes):
            raise ValueError(
                f"x has {len(x)} samples for nodes={self.nodes}; pass a batch of at least as many, and of 2."
            )
        if not self._count:
            self._start(view, x)
        self._noisy.network = view
        pulled = self._pull(x, y, loss)  # (groups, nodes, d)
        if not (np.abs(pulled) < HUGE).all():
            nothing = torch.full((self.nodes,), torch.nan, dtype=torch.float64)
            return Reading(nothing, nothing, torch.from_numpy(self._v.copy()))
        self._count += 1
        ritz, rung = self._absorb(pulled)
        if rung is None:
            self._ladder.restart()
            ritz, rung = self._absorb(self._pull(x, y, loss))
        return self._show(ritz, rung or 0)

    def _absorb(self, pulled: np.ndarray) -> tuple[np.ndarray, int | None]:
        """Average pulls (groups, nodes, d), choose the memory, and turn V; the Ritz values and `Ladder.choose`."""
        groups = (pulled * self._v).sum(2)  # (groups, nodes): v.<H>v in directions that are independent of this batch
        of_sum = self._positive.astype(float)
        weights = self._ladder.add(groups, of_sum)
        self._blocks += weights[:, None, None] * (pulled.mean(0) - self._blocks)
        rung = self._ladder.choose(of_sum)
        return self._turn(rung or 0), rung

    def _start(self, view: nn.Module, x: Tensor) -> None:
        site = find_site(view, self.layer, at=self.at, example=x[:2], batch_axis=self.batch_axis)
        d = math.prod(site.shape)
        if self.nodes > d:
            raise ValueError(f"nodes={self.nodes} is more than the {d} units of {self.layer!r} there; use fewer nodes.")
        weight = weight_like(self.model, self.layer)
        self._noisy = NoisyNetwork(
            self.model,
            [site],
            niw=[weight.new_zeros(self.nodes, *site.shape)],  # replaced by the copies of V in `_pull`
            sigma=[self.amplitude],
            law="rademacher",
            generator=torch.Generator(),
            calls="same",
        )
        self._v = np.linalg.qr(self._rng.standard_normal((d, self.nodes)))[0].T
        self._ladder = Ladder(self.memory, self.nodes)
        self._blocks = np.zeros((len(self._ladder.memories), self.nodes, d))
        self._shift, self._positive = 0.0, np.ones(self.nodes, dtype=bool)

    def _pull(self, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """T = (1/A^2) dL/dW_NI at W_NI = V under noise +-A eps, from each group of samples: (groups, nodes, d).

        Each group has its own copy of the nodes, whose noise is 0 on the samples of the others, so that one pass
        gives all groups. In whole blocks of a group the columns of eps are orthogonal.
        """
        niw, count, rows = self._noisy.niw, len(x), len(self._signs)
        groups = max(2, min(GROUPS, count // rows))
        place = self._rng.permutation(count)
        group = place // rows % groups if count >= 2 * rows else place % groups
        signs = np.zeros((count, groups, self.nodes))
        signs[np.arange(count), group] = self._signs[place % rows]
        signs = signs.reshape(count, -1)
        eps = matching(torch.from_numpy(self.amplitude * np.concatenate([signs, -signs])), niw)
        niw.data = matching(torch.from_numpy(self._v), niw).repeat(groups, 1).view(-1, *niw.shape[1:])
        with (
            evaluating(self.model), naming_derivatives(), no_hooks_left(self._noisy),
            torch.enable_grad(), self._noisy.using(eps),
        ):  # fmt: skip
            outputs = self._noisy(torch.cat([x, x]))
            (gradient,) = torch.autograd.grad(loss(outputs, torch.cat([y, y])).mean(), niw)
        pulled = gradient.flatten(1).cpu().double().numpy().reshape(groups, self.nodes, -1) / self.amplitude**2
        return pulled * (count / np.bincount(group, minlength=groups))[:, None, None]

    def _turn(self, rung: int) -> np.ndarray:
        """Rotate V, and the averaged blocks with it, to the Ritz vectors of a block; its Ritz values, largest first."""
        block = self._blocks[rung]
        basis = np.linalg.qr((block + self._shift * self._v).T)[0].T  # (nodes, d)
        inside = basis @ self._v.T @ block @ basis.T  # (nodes, nodes)
        values, vectors = np.linalg.eigh((inside + inside.T) / 2)
        v = vectors.T[::-1] @ basis
        self._blocks = (v @ self._v.T) @ self._blocks
        self._v = v
        self._shift, self._positive = max(0.0, -values[0]), values[::-1] > 0
        return values[::-1]

    def _show(self, ritz: np.ndarray, rung: int) -> Reading:
        of_sum, fresh = self._positive.astype(float), self._ladder.means[rung]
        trend = self._ladder.trend(rung, of_sum)
        values = trend * (ritz + fresh) / 2
        stderr = np.sqrt(self._ladder.variance(rung, values, of_sum) + (trend * (ritz - fresh) / 2) ** 2)
        order = np.argsort(values)[::-1]
        if self._count == 1:
            stderr = np.full(self.nodes, np.nan)
        return Reading(*(torch.from_numpy(part.copy()) for part in (values[order], stderr[order], self._v)))
