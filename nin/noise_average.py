"""The curvature that the noise injection weights feel: averaged over the noise, kinks of ReLU included."""

from collections.abc import Sequence

import numpy as np
import torch

from nin.config import RunConfig
from nin.data import Dataset
from nin.ensemble import CHUNK, Ensemble
from nin.noise import draw_noise


def kappa_avg(ensemble: Ensemble, configs: Sequence[RunConfig], data: Dataset) -> np.ndarray:
    """kappa_avg = eta W.E[dL/dW] / |W|^2 at W = W_NI for each of K runs (K,): the initial rate of fall of |W_NI|.

    E[dL/dW] = E[eps dl/dz(z + eps W)] (eq. (4)) over eval_samples training samples and curvature_pairs antithetic draws
    +-eps for each, which cancel the random walk <eps g>. To lowest order in sigma it is eta sigma^2 W.<H>W / |W|^2 for
    smooth networks; for ReLU, whose autograd Hessian lacks the kinks, it is the curvature that counts.
    NaN without a node and for W_NI = 0.
    """
    if ensemble.niw is None:
        return np.full(len(configs), np.nan)
    first = configs[0]
    x, y = data.x_train[: first.eval_samples], data.y_train[: first.eval_samples]
    generators = [config.generator("curvature") for config in configs]
    pull = torch.zeros(len(configs), dtype=torch.float64)
    for _ in range(first.curvature_pairs):
        draws = [
            config.sigma * draw_noise(len(x), config.nodes, law=config.law, generator=generator)
            for config, generator in zip(configs, generators, strict=True)
        ]
        for part_x, part_y, eps in zip(
            x.split(CHUNK), y.split(CHUNK), torch.stack(draws).to(x).split(CHUNK, dim=1), strict=True
        ):
            inputs = part_x.expand(len(configs), *part_x.shape)
            labels = part_y.expand(len(configs), *part_y.shape)
            for noise in (eps, -eps):
                ensemble.backward(inputs, labels, noise, loss=first.loss, scale=float(len(part_x)))
                pull += (ensemble.niw.detach() * ensemble.niw.grad).flatten(1).sum(1).double().cpu()
    pull = pull.numpy() / (2 * first.curvature_pairs * len(x))
    square = ensemble.niw.detach().double().square().flatten(1).sum(1).cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([config.lr for config in configs]) * pull / square
