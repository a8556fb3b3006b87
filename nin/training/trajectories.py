"""The results of training: tidy curves, curvature numbers at the start, networks at chosen steps."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import nn

from nin.training.config import RunConfig
from nin.training.learning_rate import niw_decay

CURVES = (
    "noisy_loss",
    "expected_loss",
    "ratio_stderr",
    "niw_norm",
    "noise_output",
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
)
OF_THE_RUN = ("diverged_at", "lambda_H", "kappa_H", "kappa_avg", "plain_spike", "plain_stderr")


@dataclass(frozen=True)
class Trajectories:
    """The record of K runs at R steps: .frame() is the table, .model(run) a network.

    configs      the runs, in the order given
    steps        recorded steps (R,)
    curves       one array (R, K) for each name of CURVES, NaN where not measured
    diverged_at  (K,) step of the first noisy loss that is not finite, NaN if all are finite
    lambda_H, kappa_H, kappa_avg   (K,) curvature numbers at step 0, NaN without a node; see `nin.train`
    plain_spike, plain_stderr      (K,) the spike of the same training without noise, and its standard error
    alone        why the runs were trained one after the other, and not as one stack; None if they were
    networks     (run, step) -> function that builds the network
    """

    configs: tuple[RunConfig, ...]
    steps: Int[np.ndarray, " R"]
    curves: dict[str, Float[np.ndarray, "R K"]] = dataclasses.field(repr=False)
    diverged_at: Float[np.ndarray, " K"]
    lambda_H: Float[np.ndarray, " K"]
    kappa_H: Float[np.ndarray, " K"]
    kappa_avg: Float[np.ndarray, " K"]
    plain_spike: Float[np.ndarray, " K"]
    plain_stderr: Float[np.ndarray, " K"]
    alone: str | None
    networks: dict[tuple[int, int], Callable[[], nn.Module]] = dataclasses.field(repr=False)

    def table(self, run: int) -> pd.DataFrame:
        """The numbers of one run, one row for each recorded step until it diverged: step, CURVES, OF_THE_RUN."""
        self._check(run)
        rows = ~(self.steps > self.diverged_at[run])  # NaN, never diverged, keeps all
        columns = {"step": self.steps[rows]} | {name: self.curves[name][rows, run] for name in CURVES}
        return pd.DataFrame(columns | {name: getattr(self, name)[run] for name in OF_THE_RUN})

    def frame(self) -> pd.DataFrame:
        """One row per run and recorded step, up to the step at which a run diverged.

        Columns: the config's fields (several values of one as text, 128x128x128), run (its index), niw_decay (the
        factor by which weight decay alone has shrunk |W_NI|, NaN if unknown), step, the CURVES, and for the whole run
        diverged_at, lambda_H, kappa_H, kappa_avg, plain_spike, plain_stderr.
        """
        return tidy(self.configs, [self.table(run) for run in range(len(self.configs))])

    def model(self, run: int, step: int = -1) -> nn.Module:
        """The network of a run before the update of that step, -1 for the end; a NoisyNetwork if it has a node.

        Raises ValueError if no network was kept there; `nin.train(..., snapshots=[step, ...])` keeps them.
        """
        self._check(run)
        step = self.configs[run].steps if step == -1 else step
        if (run, step) not in self.networks:
            kept = sorted(s for r, s in self.networks if r == run)
            diverged = self.diverged_at[run]
            fate = "" if np.isnan(diverged) else f" (it diverged at step {diverged:.0f})"
            raise ValueError(
                f"step={step!r}: no network of run {run}{fate} was kept there, only those of steps {kept}. "
                "Pass snapshots=[...] to nin.train."
            )
        return self.networks[run, step]()

    def _check(self, run: int) -> None:
        if isinstance(run, bool) or run not in range(len(self.configs)):
            raise ValueError(f"run={run!r} is unknown; there are runs 0 to {len(self.configs) - 1}.")


def tidy(configs: Sequence[RunConfig], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The tables of several runs as one; each row has the fields of its config and the index of its run."""
    return labelled(configs, pd.concat(tables, ignore_index=True), [len(table) for table in tables])


def labelled(configs: Sequence[RunConfig], rows: pd.DataFrame, lengths: Sequence[int]) -> pd.DataFrame:
    """As `tidy`, for tables that are joined already: the first lengths[0] rows are those of the first run."""
    fields = pd.DataFrame([config.as_text() | {"run": run} for run, config in enumerate(configs)])
    fields = fields.astype({"niw_std": float, "clip": float})
    steps = np.split(rows["step"].to_numpy(), np.cumsum(lengths)[:-1])
    decays = [niw_decay(config, of_run.tolist()) for config, of_run in zip(configs, steps, strict=True)]
    fields = fields.iloc[np.repeat(np.arange(len(configs)), lengths)].assign(niw_decay=np.concatenate(decays))
    return pd.concat([fields.reset_index(drop=True), rows], axis=1)
