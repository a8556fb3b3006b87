"""What the cases of bad input are written with: small networks, data, curves, files, and the command line in here."""

import atexit
import contextlib
import gzip
import io
import json
import shlex
import shutil
import struct
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy as loss

import nin
from nin import RunConfig, checks, figures, inject, load_data, phases, sweep, theory, train
from nin.companion import command, notebooks
from nin.companion.explorer.setting import Setting
from nin.companion.parameters import read_cell
from nin.model.data import linear_teacher
from nin.model.dataset import Dataset
from nin.model.idx import read_idx
from nin.model.networks import MLP
from nin.model.schedule import SigmaSchedule
from nin.phases import boundaries, classify, criteria, fit_decay, majority, of_kappa, representatives, summarise, vote
from nin.probes import curvature, interactions, response, stability
from nin.probes.for_sweeps import four_probes
from nin.probes.memorisation import FixedNoise, MemorisationMeter
from nin.probes.prediction import noise_scale, predict
from nin.sweeps import records
from nin.training.fixed_samples import FixedSamples

nan, inf = float("nan"), float("inf")
folder = Path(tempfile.mkdtemp(prefix="nin-bad-input-"))
atexit.register(shutil.rmtree, folder, ignore_errors=True)


class Refused(ValueError):
    """A command that ended with exit code 2 and one line."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


x = torch.randn(24, 6, generator=generator(1))
y = torch.arange(24) % 4
model = MLP(6, (8, 8), 4, generator=generator())
layer = "layers.0"
noisy = inject(model, layer, sigma=1.0, generator=generator())
blobs = Dataset(x, y, x[:12], y[:12], 4, "blobs")
base = RunConfig(widths=(8,), batch_size=8, steps=4, eval_points=2, eval_samples=8, curvature_pairs=1)
trained = partial(train, base, data=blobs)
swept = partial(sweep, base, data=blobs, store=folder / "store", over={"sigma": [1.0]})
sgd = torch.optim.SGD(model.parameters(), lr=0.1)
injected = partial(inject, model, layer, generator=generator())
predicted = partial(predict, noisy, x, y, loss=loss, generator=generator())
rate = partial(curvature.critical_rate, noisy, x, y, loss=loss, generator=generator())
steps = np.arange(40.0)
curve = np.exp(-steps / 10)
images = torch.rand(4, 1, 8, 8, generator=generator())
image_net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
spread_field = partial(stability.displacement_field, 8, 3.0, 0.01, 2, generator=generator())
table = pd.DataFrame({"step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]})
frame_of_runs = trained().frame()


def run_frame(**columns):
    """The records of a run of 60 steps that decays, with columns changed."""
    step = np.arange(60)
    columns = {"step": step, "noisy_loss": 2 - 0.01 * step, "niw_norm": np.exp(-step / 20), **columns}
    return pd.DataFrame(columns)


def data_of(**parts):
    """A small Dataset with parts changed."""
    good = {"x_train": x, "y_train": y, "x_test": x[:12], "y_test": y[:12], "classes": 4, "source": "blobs"}
    return Dataset(**good | parts)


def recorded(optimizer=None, **options):
    optimizer = optimizer or torch.optim.SGD(noisy.parameters(), lr=0.1)
    return nin.Record(**{"noisy": noisy, "optimizer": optimizer, "x": x, "y": y, "loss": loss, **options})


def draw(data):
    return figures.panels(1, 1)[0]


def saved(**options):
    return figures.save(**{"draw": draw, "name": "mine", "data": table, "folder": folder / "figures", **options})


def claim(**changes):
    good = {"name": "claim", "source": "NIN", "measured": 1.0, "predicted": 1.0, "tolerance": 0.1}
    return checks.Check(**good | changes)


def file(content, name="file"):
    path = folder / name
    path.write_bytes(content)
    return path


def idx(array):
    """An array of bytes as an IDX file."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def profile(text):
    """The values of a profile file with this text, beside the notebooks of the clone."""
    folder_of = notebooks.paths.notebooks
    there = folder / "notebooks"
    (there / "profiles").mkdir(parents=True, exist_ok=True)
    for path in folder_of().glob("*.ipynb"):
        (there / path.name).unlink(missing_ok=True)
        (there / path.name).symlink_to(path)
    (there / "profiles" / "mine.yaml").write_text(text)
    notebooks.paths.notebooks = lambda: there
    try:
        return notebooks.profile_values("mine")
    finally:
        notebooks.paths.notebooks = folder_of


def cell(source):
    """The parameters of a notebook whose cell has this source."""
    return read_cell(source, name="mine.ipynb")


def notebook(text):
    """The parameters of a notebook file with this text."""
    from nin.companion.parameters import parameters

    return parameters(file(text.encode(), "mine.ipynb"))


def cli(line):
    """`python -m nin LINE` in this process: Refused with the line it prints, if it ends as bad arguments should."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command.main(shlex.split(line))
        except SystemExit as stop:
            code = stop.code
    said = err.getvalue().strip()
    if code == 2 and len(said.splitlines()) == 1:
        raise Refused(said)
    if code:
        raise AssertionError(f"exit code {code}, and {len(said.splitlines())} lines: {said!r}")


def json_file(content, name):
    return file(json.dumps(content).encode(), name)


def packed(content):
    return gzip.compress(content, mtime=0)


def returns(value):
    """A network that returns this for any samples."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, x):
            self.linear(x)
            return value(x) if callable(value) else value

    return Odd()


__all__ = [
    "MLP",
    "FixedNoise",
    "FixedSamples",
    "MemorisationMeter",
    "Path",
    "Setting",
    "SigmaSchedule",
    "boundaries",
    "classify",
    "criteria",
    "fit_decay",
    "four_probes",
    "interactions",
    "linear_teacher",
    "load_data",
    "majority",
    "noise_scale",
    "of_kappa",
    "phases",
    "read_idx",
    "records",
    "representatives",
    "response",
    "summarise",
    "theory",
    "vote",
]  # fmt: skip
