"""Catches: a callback whose record differs from that of the same loop written out, or that changes the training."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin

STEPS, BATCH = 60, 16
ENDS = ["step", "noisy_loss", "expected_loss", "niw_norm", "train_loss"]


def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(STEPS * BATCH, 6, generator=generator), torch.arange(STEPS * BATCH) % 3


def injected():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    return nin.inject(model, "0", sigma=3.0, generator=torch.Generator().manual_seed(1))


def written_out(accumulate=1):
    """The loop that the trainers run: batches in order, plain SGD."""
    noisy, (x, y) = injected(), samples()
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy)
    pairs = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    for begin in range(0, len(pairs), accumulate):
        optimizer.zero_grad()
        total = 0.0
        for xs, ys in pairs[begin : begin + accumulate]:
            loss = F.cross_entropy(noisy(xs), ys) / accumulate
            loss.backward()
            total += loss.item()
        record(total)
        optimizer.step()
    return noisy, record


@pytest.mark.parametrize("accumulate", [1, 3])
def test_lightning(tmp_path, accumulate):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed (extra: trainers)")
    from nin.training.in_lightning import RecordCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = injected()

        def training_step(self, batch, _):
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Failing(lightning.pytorch.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            raise OSError("disk full")

    logger = lightning.pytorch.loggers.CSVLogger(tmp_path)
    x, y = samples()
    callback, module = RecordCallback(x, y, loss=F.cross_entropy), Module()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    options = {"max_epochs": 1, "callbacks": [callback], "enable_progress_bar": False, "enable_model_summary": False}
    options |= {"accelerator": "cpu", "default_root_dir": tmp_path, "accumulate_grad_batches": accumulate}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = lightning.Trainer(**options, logger=[logger, Failing()], log_every_n_steps=1)
        trainer.fit(module, loader)
    assert any("a logger failed at step 0" in str(one.message) for one in caught)
    noisy, record = written_out(accumulate)
    for ours, theirs in zip(module.net.parameters(), noisy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    found, expected = callback.record.frame(), record.frame()
    np.testing.assert_allclose(found[ENDS], expected[ENDS], rtol=1e-5)
    assert callback.record.phase().phase == record.phase().phase
    logger.save()
    logged = pd.read_csv(tmp_path / "lightning_logs" / "version_0" / "metrics.csv")
    assert logged["nin/niw_norm"].notna().sum() == len(found)
    again = RecordCallback(x, y, loss=F.cross_entropy)
    again.load_state_dict(callback.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the trainer's own
        lightning.Trainer(**(options | {"callbacks": [again], "logger": False})).fit(module, loader)
    assert len(again.record.frame()) > len(found)


@pytest.mark.parametrize(("accumulate", "counts"), [(1, False), (3, False), (3, True)])
def test_hugging_face(tmp_path, accumulate, counts):
    """counts: the model divides by the number of targets of a whole step, which the trainer then tells it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: trainers)")
    from transformers.modeling_outputs import SequenceClassifierOutput

    from nin.training.in_transformers import RecordCallback

    class Classifier(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, labels=None):
            logits = self.net(x)
            return SequenceClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)

    class Counting(Classifier):
        def forward(self, x, labels=None, num_items_in_batch=None, **others):
            output = super().forward(x, labels)
            if num_items_in_batch is not None:
                output.loss = output.loss * len(x) / num_items_in_batch
            return output

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    noisy = nin.inject(
        (Counting if counts else Classifier)(net), "net.0", sigma=3.0, generator=torch.Generator().manual_seed(1)
    )
    x, y = samples()
    callback = RecordCallback(
        {"x": x, "labels": y}, y, loss=F.cross_entropy, forward=lambda model, inputs: model(**inputs).logits
    )
    rows = [{"x": xs, "labels": ys} for xs, ys in zip(x, y, strict=True)]
    options = {"output_dir": str(tmp_path), "per_device_train_batch_size": BATCH, "report_to": []}
    options |= {"max_steps": STEPS // accumulate, "gradient_accumulation_steps": accumulate}
    options |= {"remove_unused_columns": False, "label_names": ["labels"], "use_cpu": True, "save_strategy": "no"}
    options |= {"max_grad_norm": 0.0, "disable_tqdm": True, "logging_strategy": "no"}
    with pytest.raises(ValueError, match="remove_unused_columns=True drops the inputs"):
        arguments = transformers.TrainingArguments(**(options | {"remove_unused_columns": True}))
        transformers.Trainer(model=noisy, args=arguments, train_dataset=rows, callbacks=[callback])
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = transformers.Trainer(
        model=noisy, args=transformers.TrainingArguments(**options), train_dataset=rows, callbacks=[callback],
        optimizers=(optimizer, constant),
    )  # fmt: skip
    trainer.get_train_dataloader = lambda: torch.utils.data.DataLoader(
        rows, batch_size=BATCH, collate_fn=transformers.default_data_collator
    )
    trainer.train()
    twin, record = written_out(accumulate)
    torch.testing.assert_close(noisy.niw, twin.niw)
    np.testing.assert_allclose(callback.record.frame()[ENDS], record.frame()[ENDS], rtol=1e-5)
    assert not noisy._forward_hooks


def test_accelerate():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed (extra: trainers)")
    noisy, (x, y) = injected(), samples()
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    accelerator = accelerate.Accelerator(cpu=True)
    noisy, optimizer = accelerator.prepare(noisy, optimizer)
    record = nin.Record(accelerator.unwrap_model(noisy), optimizer, x, y, loss=F.cross_entropy)
    for xs, ys in zip(x.split(BATCH), y.split(BATCH), strict=True):
        loss = F.cross_entropy(noisy(xs), ys)
        optimizer.zero_grad()
        accelerator.backward(loss)
        record(loss)
        optimizer.step()
    np.testing.assert_allclose(record.frame()[ENDS], written_out()[1].frame()[ENDS], rtol=1e-6)


def test_what_holds_no_single_noisy_network_is_refused():
    from nin.training.nodes_of import the_noisy

    noisy = injected()
    assert the_noisy(nn.Sequential(noisy, nn.ReLU())) is noisy
    for module, count in ((nn.Linear(2, 2), 0), (nn.Sequential(noisy, injected()), 2)):
        with pytest.raises(ValueError, match=f"holds {count} noisy networks"):
            the_noisy(module)
