"""When does fixed noise pay in a linear network? Closed forms in the eigenmodes of the sample Gram matrix.

f_c(x_i) = a_c . x_i + w_c eps_i with C outputs, y_c = b_c . x + xi_c, L = 1/(2 n) sum_i sum_c (f - y)^2, n samples,
d inputs, eps ~ N(0, sigma^2) drawn once. With X X^T = sum_k s_k u_k u_k^T and mu_k = s_k / n, the residual r and w obey

    r_k(t+1) = (1 - eta mu_k) r_k(t) - eps_k [w(t+1) - w(t)],   w(t+1) - w(t) = (eta/n) sum_k eps_k r_k(t) .

The node acts back on itself through (1/n) sum_k eps_k^2 (...), self-averaging for large n. Replacing eps_k^2 by
sigma^2 leaves a rank-one matrix, A = diag(mu) + (sigma^2/n) 1 1^T, and, with phi(t) = A^(-1) [1 - (1 - eta A)^t] 1,

    E|W_NI|^2 = C w_0^2 D(t)^2 + (sigma^2/n^2) sum_k phi_k(t)^2 R_k,   D(t) = 1 - (sigma^2/n) sum_k phi_k(t),

R_k = sum_c E (u_k . r_c(0))^2 without the node, w_0 the standard deviation of an initial entry. The first term decays
as the node is unlearned; the second is the noise used as a feature. The turn is the minimum of the sum.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from nin.model.dataset import Dataset
from nin.support.arguments import check_count, check_number

OUTPUTS = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A linear regression with a node: n samples, d inputs of variance 1, targets of variance 1 plus label noise.

    label_noise  sigma_xi, in units of the standard deviation of the signal
    sigma, niw_std   of eps and of the initial NIW entries
    lr, batch_size, steps   of SGD
    """

    n: int = 128
    d: int = 64
    label_noise: float = 0.5
    sigma: float = 1.0
    niw_std: float = 0.3
    lr: float = 0.05
    batch_size: int = 32
    steps: int = 800

    def __post_init__(self) -> None:
        for name in ("n", "d", "batch_size", "steps"):
            check_count(name, getattr(self, name))
        for name in ("label_noise", "sigma", "niw_std", "lr"):
            check_number(name, getattr(self, name), exclusive=name in ("sigma", "lr"))


def regression(setting: Setting, *, generator: torch.Generator) -> Dataset:
    """x ~ N(0, 1), y = x B + sigma_xi xi with B of variance 1/d, so that each signal has variance 1; 10 outputs.

    Settings that differ in label_noise alone have the same x, B and xi with one generator state.
    """
    draw = {"dtype": torch.float64, "generator": generator}
    B = torch.randn(setting.d, OUTPUTS, **draw) / math.sqrt(setting.d)
    parts = []
    for count in (setting.n, 500):
        x, xi = torch.randn(count, setting.d, **draw), torch.randn(count, OUTPUTS, **draw)
        parts += [x, x @ B + setting.label_noise * xi]
    source = f"linear regression, {setting.d} inputs, label noise {setting.label_noise:g}"
    return Dataset(*parts, classes=OUTPUTS, source=source)


class Modes:
    """The closed forms of the module for one setting and its data; the network starts as `nin.model.networks.MLP`."""

    def __init__(self, setting: Setting, data: Dataset) -> None:
        self.setting = setting
        ones = np.ones((len(data.x_train), 1))  # the bias
        X, Y = np.hstack([data.x_train.numpy(), ones]), data.y_train.numpy()
        self._start = 2 / setting.d  # variance of the initial weights
        values, self._u = np.linalg.eigh(X @ X.T)
        self._s = np.clip(values, 0, None)
        self._y = self._u.T @ Y  # (n, C)
        self._x = self._u.T @ X  # (n, d + 1)
        self._test = np.hstack([data.x_test.numpy(), np.ones((len(data.x_test), 1))]), data.y_test.numpy()
        signal = np.square(self._x[:, :-1]).sum(1)
        self.R = np.square(self._y).sum(1) + OUTPUTS * self._start * signal  # (n,)
        A = np.diag(self._s / setting.n) + setting.sigma**2 / setting.n
        self._lam, self._vectors = np.linalg.eigh(A)

    def phi(self, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, "n T"]:
        """phi(t) = A^(-1) [1 - (1 - eta A)^t] 1."""
        reached = _reached(self._lam, self.setting.lr, steps)  # (n, T)
        return self._vectors @ (reached * self._vectors.sum(0)[:, None])

    def fixed(self, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """The rms of |W_NI| over draws of fixed noise."""
        setting, phi = self.setting, self.phi(np.asarray(steps))
        decay = 1 - setting.sigma**2 / setting.n * phi.sum(0)
        used = setting.sigma**2 / setting.n**2 * (phi**2 * self.R[:, None]).sum(0)
        return np.sqrt(OUTPUTS * (setting.niw_std * decay) ** 2 + used)

    def redrawn(self, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """The rms of |W_NI| with fresh noise at each step, the rival: a random walk that decays.

        E|W|^2(t+1) = [1 - 2 kappa + kappa^2 (1 + 2/|B|)] E|W|^2(t) + eta^2 sigma^2 <r^2>(t) / |B|, kappa = eta sigma^2.
        """
        setting = self.setting
        kappa, batch = setting.lr * setting.sigma**2, setting.batch_size
        factor = 1 - 2 * kappa + kappa**2 * (1 + 2 / batch)
        left = (1 - setting.lr * self._s / setting.n) ** 2
        square, residual, found = OUTPUTS * setting.niw_std**2, self.R.copy(), []
        for _ in range(int(np.max(steps)) + 1):
            found.append(square)
            square = factor * square + kappa * setting.lr * residual.sum() / setting.n / batch
            residual *= left
        return np.sqrt(found)[np.asarray(steps)]

    def test_loss(self, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """The mean test loss, without the node's reaction on the weights."""
        (x, y), losses = self._test, []
        for reached in _reached(self._s / self.setting.n, self.setting.lr, np.asarray(steps)).T / self.setting.n:
            mean = x @ (self._x.T @ (reached[:, None] * self._y))  # (m, C), from weights 0
            left = x - x @ (self._x.T @ (reached[:, None] * self._x))  # (m, d + 1): what is left of initial weights
            start = OUTPUTS * self._start * np.square(left[:, :-1]).sum(1).mean()
            losses.append(0.5 * (np.square(y - mean).sum(1).mean() + start))
        return np.array(losses)

    def turn(self) -> int:
        """The step at which the rms of |W_NI| is lowest; the last step if it falls to the end."""
        steps = np.arange(self.setting.steps + 1)
        return int(self.fixed(steps).argmin())

    def loss_turn(self) -> int:
        """The step at which the test loss is lowest, on a grid of steps that grow by 7 %."""
        steps = np.unique(np.geomspace(1, self.setting.steps, 100).round().astype(int))
        return int(steps[self.test_loss(steps).argmin()])


def optimum(setting: Setting) -> float:
    """rms |W_NI| of the least-squares solution for d < n: sqrt(C) sigma_xi / (sigma sqrt(n - d - 3)), bias included.

    The node is regressed on what d inputs and the bias leave of eps; the variance of its coefficient is
    sigma_xi^2 E 1/|eps_perp|^2 with |eps_perp|^2 ~ sigma^2 chi^2(n - d - 1). For d << n: prediction 20.
    """
    free = setting.n - setting.d - 3
    if free <= 0:
        raise ValueError(f"n={setting.n}, d={setting.d}: the optimum exists for n > d + 3 only.")
    return math.sqrt(OUTPUTS / free) * setting.label_noise / setting.sigma


def turn_of_few_inputs(setting: Setting) -> float:
    """t = ln(1 + w_0^2 sigma^2 n / sigma_xi^2) / (eta sigma^2): the turn for d << n, the inputs learned first.

    Then D = exp(-eta sigma^2 t) and E|W|^2 = C [w_0^2 D^2 + n*^2 (1 - D)^2], lowest at D = n*^2 / (w_0^2 + n*^2).
    Infinite without label noise.
    """
    if not setting.label_noise:
        return math.inf
    ratio = (setting.niw_std * setting.sigma / setting.label_noise) ** 2 * setting.n
    return math.log1p(ratio) / (setting.lr * setting.sigma**2)


def _reached(values: Float[np.ndarray, " n"], lr: float, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, "n T"]:
    """[1 - (1 - eta v)^t] / v for each eigenvalue v, eta t for v = 0."""
    nonzero = np.maximum(values, 1e-9)[:, None]
    learned = -np.expm1(steps * np.log1p(-lr * nonzero)) / nonzero
    return np.where(values[:, None] > 1e-9, learned, lr * steps)
