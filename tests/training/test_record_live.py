"""Catches: control numbers of a record that are not those of the probes, a live figure that disturbs or is dear."""

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin
from nin.probes.curvature import critical_rate, local_hessian, top_mode
from nin.training import live

pytestmark = pytest.mark.usefixtures("unchecked")


def network(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(12) if norm else nn.Identity()
    return nn.Sequential(nn.Linear(6, 12), middle, nn.Tanh(), nn.Linear(12, 4)).double()


def noisy(norm: bool = False) -> nin.NoisyNetwork:
    return nin.inject(network(norm), "0", sigma=2.0, generator=torch.Generator().manual_seed(1))


def first_step(record, model, x, y):
    loss = F.cross_entropy(model(x[:32]), y[:32])
    loss.backward()
    record(loss)


@pytest.mark.parametrize("norm", [False, True])
def test_kappas_of_plain_sgd_are_those_of_the_probes(blobs, norm):
    x, y, model = blobs.x_train.double(), blobs.y_train, noisy(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    record = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, batch_size=32)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    first_step(record, model, x, y)
    ask = {"loss": F.cross_entropy, "batch_size": 32, "generator": torch.Generator().manual_seed(0)}
    rate = critical_rate(noisy(norm), x, y, **ask).rate
    assert record.kappas["kappa_1"] == pytest.approx(2 * 0.3 / rate, rel=1e-9)
    plain = network(norm)
    if norm:  # the statistics of the first samples, in training mode
        for _ in range(400):
            plain(x[:256])
    lam = top_mode(plain.eval(), "0", x[:256], y[:256], loss=F.cross_entropy).lam
    assert record.kappas["kappa_H"] == pytest.approx(0.3 * 4 * lam, rel=0.02 if norm else 1e-9)
    assert record.frame()["kappa_1"].iloc[0] == record.kappas["kappa_1"]
    state = dict(zip(model.state_dict(), before, strict=True))
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, state[name])]
    assert all("running" in name or "num_batches" in name or "extra" in name for name in changed)  # of the loss itself
    saved = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, batch_size=32)
    saved.load_state_dict(record.state_dict())
    assert saved.kappas == record.kappas


def test_another_optimiser_has_its_own_critical_rate_and_no_kappa_H(blobs):
    x, y, model = blobs.x_train.double(), blobs.y_train, noisy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.5, 0.9))
    record = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, batch_size=32)
    first_step(record, model, x, y)
    ask = {"loss": F.cross_entropy, "batch_size": 32, "generator": torch.Generator().manual_seed(0)}
    same = critical_rate(noisy(), x, y, optimizer=lambda p, lr: torch.optim.AdamW(p, lr=lr, betas=(0.5, 0.9)), **ask)
    assert record.kappas["kappa_1"] == pytest.approx(0.02 / same.rate, rel=1e-9)
    assert math.isnan(record.kappas["kappa_H"])


def test_settings_of_the_groups_count_and_groups_that_differ_are_refused(blobs):
    x, y, model = blobs.x_train.double(), blobs.y_train, noisy()
    optimizer = torch.optim.SGD(model.parameter_groups(lr=0.1, momentum=0.9))
    record = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, batch_size=32)
    first_step(record, model, x, y)
    ask = {"loss": F.cross_entropy, "batch_size": 32, "generator": torch.Generator().manual_seed(0)}
    same = critical_rate(noisy(), x, y, optimizer=lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), **ask)
    assert record.kappas["kappa_1"] == pytest.approx(0.2 / same.rate, rel=1e-9)
    model = noisy()
    groups = [{"params": model.network.parameters(), "lr": 0.1}, {"params": [model.niw], "lr": 0.01}]
    record = nin.Record(model, torch.optim.SGD(groups), x, y, loss=F.cross_entropy, batch_size=32)
    with pytest.warns(UserWarning, match="cannot be measured: the parameter groups of the optimiser differ in lr"):
        first_step(record, model, x, y)


def test_kappa_H_is_that_of_the_side_where_the_node_is(blobs):
    x, y = blobs.x_train.double().view(-1, 1, 2, 3), blobs.y_train
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4)).double()
    found = []
    for at in ("preactivation", "input"):
        model = nin.inject(network, "0", sigma=2.0, at=at, example=x[:2])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        record = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, batch_size=32)
        first_step(record, model, x, y)
        lam = local_hessian(network, "0", x[:256], y[:256], loss=F.cross_entropy, at=at)
        assert record.kappas["kappa_H"] == pytest.approx(
            0.3 * 4 * torch.linalg.eigvalsh(lam.double())[-1].item(), rel=1e-6
        )
        found.append(record.kappas["kappa_H"])
    assert found[0] != pytest.approx(found[1], rel=0.05)


def test_a_number_that_is_refused_is_said(blobs):
    x, y, model = blobs.x_train.double(), blobs.y_train, noisy()
    record = nin.Record(model, torch.optim.SGD(model.parameters(), lr=0.3), x, y, loss=F.cross_entropy, batch_size=9999)
    with pytest.warns(UserWarning, match="kappa_1 and kappa_H cannot be measured: batch_size=9999 is larger"):
        first_step(record, model, x, y)
    assert all(map(math.isnan, record.kappas.values()))
    with pytest.raises(ValueError, match="batch_size=0"):
        nin.Record(model, torch.optim.SGD(model.parameters(), lr=0.3), x, y, loss=F.cross_entropy, batch_size=0)


class Shown:
    """IPython's display, which keeps what it was given."""

    def __init__(self):
        self.images, self.updates = [], []

    def __call__(self, image, *, display_id):
        self.images.append(image)
        return self

    def update(self, image):
        self.updates.append(image)


@pytest.fixture
def shown(monkeypatch):
    """A notebook's display."""
    shown = Shown()
    notebook = SimpleNamespace(kernel=True, events=SimpleNamespace(register=lambda *_: None))
    monkeypatch.setattr("IPython.get_ipython", lambda: notebook)
    monkeypatch.setattr("IPython.display.display", shown)
    return shown


def trained(blobs, steps, *, live):
    x, y, model = blobs.x_train.double(), blobs.y_train, noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    record = nin.Record(model, optimizer, x, y, loss=F.cross_entropy, live=live)
    for step in range(steps):
        loss = F.cross_entropy(model(x[step : step + 32]), y[step : step + 32])
        optimizer.zero_grad()
        loss.backward()
        record(loss)
        optimizer.step()
    return record, model


@pytest.mark.slow
def test_a_live_record_draws_in_one_place_and_changes_nothing(blobs, shown, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)
    record, model = trained(blobs, 6, live=True)
    assert len(shown.images) == 1
    assert len(shown.updates) == 5
    assert all(image.data.startswith(b"\x89PNG") for image in (*shown.images, *shown.updates))
    assert len({image.data for image in shown.updates}) == 5
    assert not plt.get_fignums()
    silent, same = trained(blobs, 6, live=False)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), same.state_dict().values(), strict=True))
    assert record.frame().equals(silent.frame())


def test_drawing_takes_its_share_of_the_time_at_most(blobs, shown, monkeypatch):
    clock = iter(range(0, 10_000, 3))  # every look at the clock is three seconds later
    monkeypatch.setattr(live.time, "perf_counter", lambda: next(clock))
    drawing = live.Live()
    frame = trained(blobs, 3, live=False)[0].frame()
    drawing.draw(frame, "a title")
    assert drawing._next >= 3 / live.SHARE  # three seconds were spent on it


def test_outside_a_notebook_live_is_refused(blobs, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    with pytest.raises(ValueError, match="live=True draws in a notebook"):
        trained(blobs, 1, live=True)
