"""What is recorded while an ensemble trains, and at which steps."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nin.model.data import Dataset
from nin.model.losses import LOSSES, accuracy
from nin.probes.curvature import Mode
from nin.training.config import RunConfig
from nin.training.ensemble import CHUNK, Ensemble, member
from nin.training.trajectories import CURVES, Trajectories

EARLY = 50  # a catapult spikes within ln(width) steps, so every step up to this one is recorded


class Recorder:
    """Fills the curves of K runs; `alive` always holds the indices of the runs still in the ensemble."""

    def __init__(self, configs: Sequence[RunConfig], data: Dataset, modes: Sequence[Mode | None]) -> None:
        self.configs, self.first, self.data, self.modes = tuple(configs), configs[0], data, modes
        self.loss = LOSSES[self.first.loss]
        steps = self.first.steps
        log_spaced = np.geomspace(1, max(steps, 1), self.first.eval_points).round().astype(int)
        self.clean_at = {0, steps} | {int(step) for step in log_spaced if step <= steps}
        noisy_at = {s for s in range(steps + 1) if s <= EARLY or s % self.first.record_every == 0}
        self.steps = sorted(self.clean_at | noisy_at)
        self._row = {step: row for row, step in enumerate(self.steps)}
        self.curves = {name: np.full((len(self.steps), len(configs)), np.nan) for name in CURVES}
        self.diverged_at = np.full(len(configs), np.nan)
        self.networks: dict[tuple[int, int], Callable[[], nn.Module]] = {}
        with_vector = [mode is not None and mode.vector is not None for mode in modes]
        self._top = torch.stack([mode.vector for mode in modes]).to(data.x_train) if all(with_vector) else None

    def due(self, step: int) -> bool:
        """Whether a step is recorded."""
        return step in self._row

    @torch.no_grad()
    def record(self, step: int, loss: Float[Tensor, " K"], ensemble: Ensemble, alive: Int[Tensor, " K"]) -> None:
        """Record the noisy loss, the NIW and, if due, the clean losses, all before the update of a step."""
        members = alive.numpy()

        def enter(name: str, values: Float[Tensor, " K"]) -> None:
            self.curves[name][self._row[step], members] = values.cpu().numpy()

        enter("noisy_loss", loss)
        if ensemble.niw is not None:
            enter("niw_norm", torch.linalg.vector_norm(ensemble.niw.flatten(1), dim=1))
            enter("noise_output", self._noise_output(ensemble, alive))
        if step in self.clean_at:
            everything = step in (0, self.first.steps)
            count = None if everything else self.first.eval_samples
            for part in ("train", "test"):
                x, y = getattr(self.data, f"x_{part}")[:count], getattr(self.data, f"y_{part}")[:count]
                clean_loss, clean_accuracy = self._clean(ensemble, x, y)
                enter(f"{part}_loss", clean_loss)
                enter(f"{part}_accuracy", clean_accuracy)

    def keep_networks(self, step: int, ensemble: Ensemble, alive: Int[Tensor, " K"]) -> None:
        """Keep the present networks of all runs in the ensemble, under this step."""
        state = ensemble.state()
        for index, run in enumerate(alive.tolist()):
            self.networks[run, step] = partial(member, ensemble.template, state, index)

    def trajectories(self, kappa_avg: Float[np.ndarray, " runs"]) -> Trajectories:
        """All records as one value."""
        lam = np.array([mode.lam if mode else np.nan for mode in self.modes])
        eta, sigma = (np.array([getattr(c, name) for c in self.configs]) for name in ("lr", "sigma"))
        with np.errstate(over="ignore"):
            kappa_H = eta * sigma**2 * lam
        return Trajectories(
            configs=self.configs,
            steps=np.array(self.steps),
            curves=self.curves,
            diverged_at=self.diverged_at,
            lambda_H=lam,
            kappa_H=kappa_H,
            kappa_avg=kappa_avg,
            networks=self.networks,
        )

    def _noise_output(self, ensemble: Ensemble, alive: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
        if self._top is None:  # the linear net: n = v.w / sqrt N
            readout = ensemble.parameters["network.layers.1.weight"]  # (K, 1, N)
            projection = (ensemble.niw * readout).sum(-1) / readout.shape[-1] ** 0.5  # (K, nodes)
        else:
            projection = (ensemble.niw.flatten(2) * self._top[alive].unsqueeze(1)).sum(-1)  # (K, nodes)
        return projection[:, 0] if projection.shape[1] == 1 else torch.linalg.vector_norm(projection, dim=1)

    def _clean(
        self, ensemble: Ensemble, x: Float[Tensor, "n ..."], y: Shaped[Tensor, "n ..."]
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean loss and accuracy (K,) of all members without noise."""
        loss, correct = 0, 0
        for part_x, part_y in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
            outputs = ensemble(part_x.expand(len(ensemble), *part_x.shape))  # (K, chunk, outputs)
            labels = part_y.expand(len(ensemble), *part_y.shape)  # (K, chunk, ...)
            loss = loss + self.loss(outputs, labels).double().sum(1)
            correct = correct + accuracy(outputs, labels).double().sum(1)
        return loss / len(x), correct / len(x)
