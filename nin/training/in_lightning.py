"""A Lightning callback that records a run; imported only on request, for `lightning` is no dependency."""

from typing import Any

import lightning
from torch import Tensor, nn

from nin.training.nodes_of import report, the_noisy
from nin.training.record import Record


class RecordCallback(lightning.Callback):
    """Records the node of a LightningModule with `nin.Record`: `Trainer(callbacks=[RecordCallback(x, y, ...)])`.

    x, y, options   as in `nin.Record`: loss, test, every, probes, snapshots, forward
    The record is `callback.record` once training has begun; its numbers also go to the trainer's loggers, under nin/,
    and into checkpoints. The loss is that of the optimiser's step, the mean over accumulated batches. In a process
    group the first process records.
    Raises ValueError for a module without exactly one noisy network, and as `nin.Record` does.
    """

    def __init__(self, x: Any, y: Any, **options: Any) -> None:
        self.samples, self.options = (x, y), options
        self.record: Record | None = None
        self._state: dict | None = None
        self._loss = 0.0

    def on_train_start(self, trainer: "lightning.Trainer", pl_module: nn.Module) -> None:
        noisy = the_noisy(pl_module)
        self.record = Record(noisy, trainer.optimizers[0], *self.samples, step=trainer.global_step, **self.options)
        if self._state is not None:
            self.record.load_state_dict(self._state)

    def on_before_backward(self, trainer: "lightning.Trainer", pl_module: nn.Module, loss: Tensor) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._loss += loss.detach().item() / (scaler.get_scale() if scaler is not None else 1.0)

    def on_before_optimizer_step(self, trainer: "lightning.Trainer", pl_module: nn.Module, optimizer: Any) -> None:
        loss, self._loss = self._loss, 0.0
        if trainer.is_global_zero and optimizer is trainer.optimizers[0]:
            self.record(loss)
            report(self.record, trainer.global_step, [logger.log_metrics for logger in trainer.loggers])

    def state_dict(self) -> dict[str, Any]:
        return {} if self.record is None else self.record.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None
