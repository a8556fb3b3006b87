"""What is recorded while an ensemble trains, and at which steps."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nin.model.data import Dataset
from nin.model.losses import LOSSES, accuracy
from nin.phases.spikes import Spike, expected_spike
from nin.probes.curvature import Mode
from nin.support.precision import widened
from nin.training.config import RunConfig
from nin.training.ensemble import CHUNK, Ensemble, member
from nin.training.expected import ExpectedLoss, expected_steps
from nin.training.trajectories import CURVES, Trajectories

EARLY = 50  # a catapult spikes within ln(width) steps, so every step up to this one is recorded


class Recorder:
    """Fills the curves of runs and twins; `alive` always holds the indices of those still in the ensemble.

    configs  the runs, then their twins;  modes  one for each of them
    twin_of  for each run the index of its twin (`twins`)
    """

    def __init__(
        self, configs: Sequence[RunConfig], data: Dataset, modes: Sequence[Mode | None], *, twin_of: Sequence[int]
    ) -> None:
        self.configs, self.first, self.data, self.modes = tuple(configs), configs[0], data, modes
        self.twin_of, self.runs = list(twin_of), len(twin_of)
        self.expected = ExpectedLoss(configs, data)
        self.loss = LOSSES[self.first.loss]
        steps = self.first.steps
        log_spaced = np.geomspace(1, max(steps, 1), self.first.eval_points).round().astype(int)
        ends = {0, steps}
        self.clean_at = ends | {int(step) for step in log_spaced if step <= steps} if len(log_spaced) else set()
        noisy_at = {s for s in range(steps + 1) if s <= EARLY or s % self.first.record_every == 0}
        self.expected_at = ends | self.clean_at | {step for step in expected_steps(EARLY) if step <= steps}
        self.steps = sorted(self.expected_at | noisy_at)
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
        if step in self.expected_at:
            expected, stderr = self.expected.measure(ensemble, alive, first=step == 0)
            self.curves["expected_loss"][self._row[step], members] = expected
            self.curves["ratio_stderr"][self._row[step], members] = stderr
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
            self.networks[run, step] = partial(member, ensemble.template, state, index, self.configs[run])

    def trajectories(self, kappa_avg: Float[np.ndarray, " runs"]) -> Trajectories:
        """All records of the runs as one value."""
        configs = self.configs[: self.runs]
        lam = np.array([mode.lam if mode else np.nan for mode in self.modes[: self.runs]])
        eta, sigma = (np.array([getattr(c, name) for c in configs]) for name in ("lr", "sigma"))
        with np.errstate(over="ignore"):
            kappa_H = eta * sigma**2 * lam
        plain = [self._spike(twin) for twin in self.twin_of]
        return Trajectories(
            configs=configs,
            steps=np.array(self.steps),
            curves={name: curve[:, : self.runs] for name, curve in self.curves.items()},
            diverged_at=self.diverged_at[: self.runs],
            lambda_H=lam,
            kappa_H=kappa_H,
            kappa_avg=kappa_avg,
            plain_spike=np.array([spike.ratio for spike in plain]),
            plain_stderr=np.array([spike.stderr for spike in plain]),
            networks={key: network for key, network in self.networks.items() if key[0] < self.runs},
        )

    def _spike(self, twin: int) -> Spike:
        """The spike of a run or twin; infinite if it diverged within the first EARLY steps."""
        if self.diverged_at[twin] <= EARLY:
            return Spike(np.inf, np.nan)
        loss, stderr = self.curves["expected_loss"][:, twin], self.curves["ratio_stderr"][:, twin]
        return expected_spike(np.array(self.steps), loss, stderr, window=EARLY)

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
            loss = loss + widened(self.loss(outputs, labels)).sum(1)
            correct = correct + widened(accuracy(outputs, labels)).sum(1)
        return loss / len(x), correct / len(x)
