"""The phase of training in which a noise scale lies: measured along the run, and predicted before it."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nin.model.dataset import Dataset
from nin.model.evaluating import evaluating
from nin.model.losses import cross_entropy
from nin.model.nodes import NoisyNetwork
from nin.model.noise import draw_noise
from nin.phases import classify
from nin.probes.prediction import Prediction, predict
from nin.training.expected import SAMPLES, expected_steps
from studies.robust_learning.recipes import Recipe, start

RECORDS = 30  # along a run, beside the early ones
WINDOW = 50  # steps in which a spike counts: `nin.phases.SPIKE_WINDOW`


class Watcher:
    """Records what `nin.phases.classify` needs along a run of `fit`: |W_NI| and the expected noisy loss.

    The loss is that of SAMPLES fixed training samples, each with a fixed draw of noise and its negative.
    x, y    training samples; steps: length of the run
    """

    def __init__(self, x: Float[Tensor, " n *shape"], y: Int[Tensor, " n"], steps: int) -> None:
        rows = torch.arange(SAMPLES) * len(x) // SAMPLES
        self._x, self._y, self._rows = x[rows], y[rows], []
        self._eps = draw_noise(SAMPLES, 1, law="gaussian", generator=torch.Generator().manual_seed(0))
        self._steps = {*expected_steps(min(WINDOW, steps)), *range(0, steps + 1, max(1, steps // RECORDS))}
        self._start: np.ndarray | None = None

    def __call__(self, step: int, model: NoisyNetwork) -> None:
        if step in self._steps:
            loss, error = self._loss(model)
            size = math.sqrt(sum(w.detach().double().square().sum().item() for w in _weights(model)))
            self._rows.append((step, loss, loss, error, size))

    def phase(self) -> str:
        """The phase of the run, in the sense of `nin.phases.classify`."""
        columns = ["step", "noisy_loss", "expected_loss", "ratio_stderr", "niw_norm"]
        return classify(pd.DataFrame(self._rows, columns=columns))

    def _loss(self, model: NoisyNetwork) -> tuple[float, float]:
        """The expected noisy loss, and the standard error of its ratio to the first one."""
        sigma = model.sigma if isinstance(model.sigma, dict) else {model.layer: model.sigma}
        with evaluating(model), torch.no_grad(), np.errstate(invalid="ignore", over="ignore"):
            pair = [
                cross_entropy(model(self._x, {layer: sign * s * self._eps for layer, s in sigma.items()}), self._y)
                for sign in (1, -1)
            ]
            losses = ((pair[0] + pair[1]) / 2).double().numpy()
            self._start = losses if self._start is None else self._start
            mean, begin = losses.mean(), self._start.mean()
            away = losses / mean - self._start / begin
            return mean, away.std(ddof=1) / math.sqrt(SAMPLES) * mean / begin


def _weights(model: NoisyNetwork) -> list[Tensor]:
    return [model.niw] if isinstance(model.niw, Tensor) else list(model.niw.values())


def predicted(
    recipe: Recipe, data: Dataset, *, seed: int, keep: Int[Tensor, " kept"] | None = None, scales: bool = False
) -> Prediction:
    """`nin.predict` for a recipe with nodes: the phase of its run, from the network before the first step.

    scales: also the noise scales at which the phases begin.
    """
    x, y = (data.x_train, data.y_train) if keep is None else (data.x_train[keep], data.y_train[keep])
    _, noisy = start(recipe, x, data.classes, seed)
    return predict(
        noisy, x, y, loss=cross_entropy, lr=recipe.lr, batch_size=recipe.batch_size, steps=recipe.steps,
        generator=torch.Generator().manual_seed(seed), scales=scales,
    )  # fmt: skip


def borders(recipe: Recipe, data: Dataset, *, seeds: Sequence[int]) -> dict[str, float]:
    """The sigma at which each phase is predicted to begin for one node: geometric means over the networks of the seeds.

    recipe.strength is where the search begins (`nin.noise_scale`). 0 or inf if a phase begins at no noise scale.
    """
    found = [predicted(recipe, data, seed=seed, scales=True).scales for seed in seeds]
    table = pd.DataFrame([{scale.phase: scale.sigma for scale in scales} for scales in found])
    with np.errstate(divide="ignore"):  # a border at 0 makes the mean 0
        return np.exp(np.log(table).mean()).to_dict()
