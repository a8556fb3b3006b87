"""Curvature read from plain noise injection weights, compared with the exact one, for several networks and seeds."""

import copy
from collections.abc import Iterable

import pandas as pd
import torch
from torch import nn

from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.probes.curvature import local_hessian
from nin.probes.curvature.decay import from_decay
from nin.training.config import RunConfig
from nin.training.start import layer_names
from studies.curvature_probe.follow import follow

# The network barely moves during a reading: |W_NI| sigma sqrt(nodes) is about 0.8, small next to the pre-activations.
NODES, SIGMA, NIW_STD, LR, BATCH, STEPS = 8, 4.0, 0.0066, 0.005, 1024, 150


def linear_net(seeds: Iterable[int], *, width: int = 2048) -> pd.DataFrame:
    """Blind readings in the linear net; <H> = v v^T / N has the eigenvalue |v|^2 / N: seed, read, stderr, exact, norm.

    norm: the rival of the reading, the rate of decay of |W_NI|, most of which lies in directions that do not decay.
    """
    rows = []
    for seed in seeds:
        config = RunConfig(
            dataset="linear_teacher", network="linear", loss="mse", widths=(width,), lr=0.002, sigma=2.0, niw_std=0.1,
            steps=100, seed=seed, batch_size=1024, resample="step", dtype="float64",
        )  # fmt: skip
        seen = follow(config, every=None)
        readout = seen.network.network.layers[1].weight[0].detach()
        found = from_decay(seen.niw, eta=config.lr, sigma=config.sigma)
        exact, niw = (readout @ readout).item() / len(readout), seen.niw.double()
        whole = ((niw[:-1] - niw[1:]) * niw[:-1]).sum() / niw[:-1].square().sum() / (config.lr * config.sigma**2)
        rows.append((seed, found.lam, found.stderr, exact, whole.item()))
    return pd.DataFrame(rows, columns=["seed", "read", "stderr", "exact", "norm"])


def trained_network(base: RunConfig, data: Dataset, seeds: Iterable[int], *, before: int = 300) -> pd.DataFrame:
    """Readings in networks trained for some steps without a node: along their top mode, and blind.

    base, before    the first run, without a node, and its number of steps
    Columns: seed; read, stderr: along the top mode of <H> at the start; exact: v.<H>v along it, mean of start and
    end; blind, blind_stderr, blind_exact: the same along the direction in which the weights decay most.
    """
    rows = []
    for seed in seeds:
        start = follow(base.replace(seed=seed, nodes=0, steps=before), data=data, every=None).network
        config = base.replace(
            seed=seed, nodes=NODES, sigma=SIGMA, niw_std=NIW_STD, lr=LR, steps=STEPS, resample="step",
            batch_size=min(BATCH, len(data.x_train)),
        )  # fmt: skip
        seen = follow(config, data=data, network=lambda start=start: copy.deepcopy(start), every=None)
        hessians = [_hessian(config, network, data) for network in (start, seen.network.network)]
        mean, top = sum(hessians) / 2, torch.linalg.eigh(hessians[0]).eigenvectors[:, -1]
        given = from_decay(seen.niw, eta=config.lr, sigma=config.sigma, direction=top)
        blind = from_decay(seen.niw, eta=config.lr, sigma=config.sigma)
        u = blind.direction.double()
        rows.append(
            (seed, given.lam, given.stderr, (top @ mean @ top).item(), blind.lam, blind.stderr, (u @ mean @ u).item())
        )
    return pd.DataFrame(rows, columns=["seed", "read", "stderr", "exact", "blind", "blind_stderr", "blind_exact"])


def _hessian(config: RunConfig, network: nn.Module, data: Dataset) -> torch.Tensor:
    x, y = data.x_train[: config.eval_samples], data.y_train[: config.eval_samples]
    return local_hessian(network, layer_names(config, network)[0], x, y, loss=LOSSES[config.loss]).double()
