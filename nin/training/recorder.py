"""What is recorded while an ensemble trains, and at which steps."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import accuracy
from nin.phases.spikes import Spike, expected_spike
from nin.probes.curvature import Mode
from nin.support.precision import widened
from nin.training.config import DTYPES, RunConfig
from nin.training.ensemble import Ensemble
from nin.training.expected import ExpectedLoss, expected_steps
from nin.training.objective import Objective
from nin.training.trajectories import CURVES, Trajectories
from nin.training.updates import Stack

EARLY = 50  # a catapult spikes within ln(width) steps, so every step up to this one is recorded


class Recorder:
    """Fills the curves of runs and twins; `alive` always holds the indices of those still in the ensemble.

    configs  the runs, then their twins;  modes  for each of them the top mode of each layer with a node, [] if unknown
    twin_of  for each run the index of its twin (`twins`)
    alone    why the runs are trained one after the other; None if together
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        data: Dataset,
        modes: Sequence[Sequence[Mode]],
        *,
        twin_of: Sequence[int],
        objective: Objective,
        alone: str | None = None,
    ) -> None:
        self.configs, self.first, self.data, self.modes = tuple(configs), configs[0], data, modes
        self.twin_of, self.runs, self.alone = list(twin_of), len(twin_of), alone
        self.expected = ExpectedLoss(configs, data, objective)
        self.loss = objective
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
        self._top = self._vectors()

    def due(self, step: int) -> bool:
        """Whether a step is recorded."""
        return step in self._row

    def _vectors(self) -> list[Float[Tensor, "runs d"]]:
        """The top eigenvectors of all runs, by layer; [] where there are none, as in the linear net."""
        if any(mode.vector is None for modes in self.modes for mode in modes):
            return []
        like = {"dtype": DTYPES[self.first.dtype], "device": self.data.x_train.device}
        by_layer = zip(*self.modes, strict=True)
        return [torch.stack([mode.vector for mode in modes]).to(**like) for modes in by_layer]

    @torch.no_grad()
    def record(self, step: int, loss: Float[Tensor, " K"], ensemble: Stack, alive: Int[Tensor, " K"]) -> None:
        """Record the noisy loss, the NIW and, if due, the clean losses, all before the update of a step."""
        members = alive.numpy()

        def enter(name: str, values: Float[Tensor, " K"]) -> None:
            self.curves[name][self._row[step], members] = values.cpu().numpy()

        enter("noisy_loss", loss)
        if step in self.expected_at:
            expected, stderr = self.expected.measure(ensemble, alive, first=step == 0)
            self.curves["expected_loss"][self._row[step], members] = expected
            self.curves["ratio_stderr"][self._row[step], members] = stderr
        if weights := list(ensemble.weights.values()):
            norms = [torch.linalg.vector_norm(niw.flatten(1), dim=1) for niw in weights]  # (K,) each
            enter("niw_norm", norms[0] if len(norms) == 1 else torch.stack(norms).norm(dim=0))
            if self.modes[0]:
                enter("noise_output", self._noise_output(ensemble, weights, alive))
        if step in self.clean_at:
            everything = step in (0, self.first.steps)
            count = None if everything else self.first.eval_samples
            for part in ("train", "test"):
                x, y = getattr(self.data, f"x_{part}")[:count], getattr(self.data, f"y_{part}")[:count]
                clean_loss, clean_accuracy = self._clean_of_all(step, ensemble, x, y, alive)
                enter(f"{part}_loss", clean_loss)
                enter(f"{part}_accuracy", clean_accuracy)

    def keep_networks(self, step: int, ensemble: Stack, alive: Int[Tensor, " K"]) -> None:
        """Keep the present networks of all runs in the ensemble, under this step."""
        runs = alive.tolist()
        copies = ensemble.copies([self.configs[run] for run in runs])
        self.networks |= {(run, step): build for run, build in zip(runs, copies, strict=True)}

    def trajectories(self, kappa_avg: Float[np.ndarray, " runs"]) -> Trajectories:
        """All records of the runs as one value."""
        configs = self.configs[: self.runs]
        lam = np.array([max((mode.lam for mode in modes), default=np.nan) for modes in self.modes[: self.runs]])
        eta, sigma = (np.array([getattr(c, name) for c in configs]) for name in ("lr", "sigma"))
        with np.errstate(over="ignore"):
            kappa_H = eta * sigma**2 * lam
        if self.first.optimizer != "sgd":  # whose steps are not lr times the gradient
            kappa_H, kappa_avg = np.full_like(kappa_H, np.nan), np.full_like(kappa_avg, np.nan)
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
            alone=self.alone,
            networks={key: network for key, network in self.networks.items() if key[0] < self.runs},
        )

    def _spike(self, twin: int) -> Spike:
        """The spike of a run or twin; infinite if it diverged within the first EARLY steps."""
        if self.diverged_at[twin] <= EARLY:
            return Spike(np.inf, np.nan)
        loss, stderr = self.curves["expected_loss"][:, twin], self.curves["ratio_stderr"][:, twin]
        return expected_spike(np.array(self.steps), loss, stderr, window=EARLY)

    def _noise_output(self, ensemble: Stack, weights: list[Tensor], alive: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
        if not self._top:  # the linear net: n = v.w / sqrt N
            readout = ensemble.parameters["network.layers.1.weight"]  # (K, 1, N)
            projection = (weights[0] * readout).sum(-1) / readout.shape[-1] ** 0.5  # (K, nodes)
        else:
            pairs = zip(weights, self._top, strict=True)
            parts = [(niw.flatten(2) * top[alive].unsqueeze(1)).sum(-1) for niw, top in pairs]  # (K, nodes) each
            projection = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return projection[:, 0] if projection.shape[1] == 1 else torch.linalg.vector_norm(projection, dim=1)

    def _clean_of_all(
        self,
        step: int,
        ensemble: Stack,
        x: Shaped[Tensor, "n ..."],
        y: Shaped[Tensor, "n ..."],
        alive: Int[Tensor, " K"],
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean loss and accuracy (K,) without noise; at step 0 runs of one seed are one network, measured once."""
        if step or not isinstance(ensemble, Ensemble) or not ensemble.exact:
            return self._clean(ensemble, x, y)
        seeds = torch.tensor([self.configs[run].seed for run in alive])
        distinct, place = seeds.unique(return_inverse=True)
        first = torch.stack([(seeds == seed).nonzero()[0, 0] for seed in distinct])
        loss, correct = self._clean(ensemble.part(first if len(first) > 1 else first.repeat(2)), x, y)
        return loss[place], correct[place]

    def _clean(
        self, ensemble: Stack, x: Shaped[Tensor, "n ..."], y: Shaped[Tensor, "n ..."]
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean loss and accuracy (K,) of all members without noise."""
        loss, correct = 0, 0
        sizes = ensemble.chunks(len(x))
        for part_x, part_y in zip(x.split(sizes), y.split(sizes), strict=True):
            outputs = ensemble(part_x.expand(len(ensemble), *part_x.shape))  # (K, chunk, outputs)
            labels = part_y.expand(len(ensemble), *part_y.shape)  # (K, chunk, ...)
            loss = loss + widened(self.loss(outputs, labels)).sum(1)
            correct = correct + widened(_accuracy(outputs, labels)).sum(1)
        return loss / len(x), correct / len(x)


def _accuracy(outputs: Float[Tensor, "K chunk ..."], y: Shaped[Tensor, "K chunk ..."]) -> Float[Tensor, "K chunk"]:
    """The accuracy of each sample, over further axes, such as tokens, their mean; NaN if the outputs are no classes."""
    if outputs.dim() < 3 or outputs.shape[:-1] != y.shape:
        return outputs.new_full(outputs.shape[:2], float("nan"))
    found = accuracy(outputs, y)
    return found.flatten(2).mean(2) if found.dim() > 2 else found
