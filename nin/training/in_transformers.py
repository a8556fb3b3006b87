"""A callback of Hugging Face's Trainer that records a run; imported only on request."""

from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nin.training.nodes_of import the_noisy
from nin.training.record import Record


class RecordCallback(TrainerCallback):
    """Records the node of a model with `nin.Record`: `Trainer(model=noisy, callbacks=[RecordCallback(x, y, ...)])`.

    x, y, options   as in `nin.Record`, such as x={"input_ids": ids, "labels": ids}, y=ids,
                    forward=lambda model, x: model(**x).logits
    The record is `callback.record` once training has begun. The loss is the model's own (`outputs.loss`), the mean over
    accumulated batches. In a process group the first process records.
    Raises ValueError for remove_unused_columns=True, which drops the inputs of a wrapped model; for a model without
    exactly one noisy network, or whose outputs have no loss; and as `nin.Record` does.
    """

    def __init__(self, x: Any, y: Any, **options: Any) -> None:
        self.samples, self.options = (x, y), options
        self.record: Record | None = None
        self._losses: list[float] = []

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns=True drops the inputs of a wrapped model, whose forward takes any: use "
                "TrainingArguments(remove_unused_columns=False, label_names=['labels'])."
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: nn.Module, **kwargs: Any
    ) -> None:
        noisy, begin = the_noisy(model), state.global_step
        self.record = Record(noisy, kwargs["optimizer"], *self.samples, step=begin, **self.options)
        self._hook = noisy.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, noisy: nn.Module, inputs: tuple, keywords: dict[str, Any], outputs: Any) -> None:
        if noisy.training:
            loss = getattr(outputs, "loss", None)
            if loss is None:
                raise ValueError("the model returned no loss; give it labels, so that outputs.loss exists.")
            self._losses.append(loss.detach().item())
            self._shares = keywords.get("num_items_in_batch") is not None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        losses, self._losses = self._losses, []
        if state.is_world_process_zero:
            self.record(sum(losses) / (1 if self._shares else len(losses)))  # shares of a mean over all, or means

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._hook.remove()
