"""The training response of networks with a noise injection node, phase by phase."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from nin.model.dataset import Dataset
from nin.phases import classify
from nin.probes.response import Stepper, kernel
from nin.training.config import RunConfig
from nin.training.loop import train
from nin.training.schedule import log_spaced


def along_runs(
    base: RunConfig, data: Dataset, sigmas: Sequence[float], *, points: int = 8, probes: int = 16, responders: int = 8
) -> pd.DataFrame:
    """Response and kernel of the network without its noise, along a run at each noise scale.

    Columns: sigma, phase, step, response (mean |R(x_i | x_i)| over samples and outputs, one step of plain SGD at the
    run's learning rate), self_kernel (traced over outputs), niw_norm (of the node). No rows after a run diverged.
    """
    due = log_spaced(base.steps, points)
    runs = train([base.replace(sigma=sigma) for sigma in sigmas], data=data, snapshots=due)
    frame = runs.frame()
    x, y = data.x_test[:probes], data.y_test[:probes]
    rows = []
    for number, sigma in enumerate(sigmas):
        run = frame[frame["run"] == number]
        for step in due:
            if step >= run["diverged_at"].fillna(np.inf).iloc[0]:
                break
            noisy = runs.model(number, step=step)
            network = noisy.network
            optimizer = torch.optim.SGD(network.parameters(), lr=base.lr)
            stepper = Stepper(network, optimizer, F.cross_entropy)
            ones = [slice(i, i + 1) for i in range(responders)]
            sizes = [stepper.step(x[one], y[one], x[one]).exact.abs().mean().item() for one in ones]
            own = kernel(network, x).diagonal().mean().item()
            norm = noisy.niw.detach().norm().item()
            rows.append((sigma, classify(run), step, sum(sizes) / len(sizes), own, norm))
    return pd.DataFrame(rows, columns=["sigma", "phase", "step", "response", "self_kernel", "niw_norm"])
