"""What does each of the four probes cost per snapshot, compared with an epoch of training, at three sizes?"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.model.dataset import Dataset
from nin.model.networks import MLP
from nin.probes.for_sweeps import four_probes
from studies.image_networks import SmallConvolutional

SAMPLES, BATCH, SET, ROUNDS = 60_000, 128, 256, 3
HIDDEN = ["layers.0", "layers.1", "layers.2"]
SIZES = {  # name: side of the images, network, node, hidden layers
    "MLP, width 64, 16 x 16": (16, partial(MLP, 256, (64,) * 3, 10), "layers.0", HIDDEN),
    "MLP, width 512, 28 x 28": (28, partial(MLP, 784, (512,) * 3, 10), "layers.0", HIDDEN),
    "convolutions 16, 32, 28 x 28": (28, partial(SmallConvolutional, 28, 16), "dense", ["act1", "act2", "act3"]),
}
EPOCH = "an epoch of training"


def run() -> str:
    """One table: seconds per snapshot, also as a fraction of an epoch of 60,000 samples, and the memory it adds."""
    rows = []
    for size in SIZES:
        work = _work(size)
        taken = in_turn({name: partial(seconds, part) for name, part in work.items()}, ROUNDS)
        for name in work:
            share = "" if name == EPOCH else spread(taken[name] / taken[EPOCH])
            rows.append((size, name, spread(taken[name], 3), share, f"{max(_memory(size, name), 0.0):.0f}"))
    columns = ("network", "what", "seconds", "of an epoch", "memory it adds at most (MB)")
    setting = (
        f"Probe set: {SET} images, of which 10 are masked (8 patches), 100 deformed (2 draws), 8 learnt; kernel of 24. "
        f"An epoch: {SAMPLES:,} samples in batches of {BATCH}, SGD, a plain loop. Median (range) of {ROUNDS} rounds."
    )
    return f"{setting}\n\n{table(columns, rows)}"


def _work(size: str) -> dict:
    side, build, node, hidden = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = build()
    kinds = nn.functional.interpolate(torch.randn(10, 1, 5, 5, generator=generator), side, mode="bicubic").flatten(1)
    y = torch.randint(10, (SAMPLES,), generator=generator)
    x = kinds[y] + 0.5 * torch.randn(SAMPLES, side**2, generator=generator)
    data = Dataset(x, y, x[:SET], y[:SET], 10, "smooth images")
    _epoch(model, data)  # the probes see a network that has learnt to classify
    probes = four_probes(node=node, lr=0.05, hidden=hidden, delta=0.7 if side < 28 else 1.0)
    work = {EPOCH: partial(_epoch, model, data)}
    return work | {name: partial(probe, model.eval(), data.x_test, data.y_test) for name, probe in probes.items()}


def _epoch(model: nn.Module, data: Dataset) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for rows in torch.randperm(SAMPLES).split(BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()
        optimizer.step()


def _memory(size: str, name: str) -> float:
    """Peak resident memory minus that before the work, MB, in a separate process; NaN if Linux does not report it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_grown, size, name).result()


def _grown(size: str, name: str) -> float:
    work = _work(size)[name]
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak, which includes making the data
        before = _status("VmRSS")
        work()
        return _status("VmHWM") - before
    except OSError:
        return float("nan")


def _status(name: str) -> float:
    """An entry of the process's status, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))
