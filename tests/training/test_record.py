"""Catches: a record that changes the training, or that calls a phase which its rows cannot show."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin
from nin.phases import classify

STEPS = 120


def classifier(seed=0, *, norm=False):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 32), nn.BatchNorm1d(32) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(0.1 * norm)]
    return nn.Sequential(*layers, nn.Linear(32, 4)).double()


def injected(sigma, **options):
    return nin.inject(classifier(**options), "0", sigma=sigma, generator=torch.Generator().manual_seed(1))


def sgd(noisy, lr=0.05, **options):
    return torch.optim.SGD(noisy.parameters(), lr=lr, **options)


def trained(blobs, noisy, optimizer, *, steps=STEPS, every=1, record=True, **options):
    """A loop as anybody writes it; `every`: steps between calls of the record."""
    x, y = blobs.x_train.double(), blobs.y_train
    if record is True:
        record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy, **options)
    torch.manual_seed(2)
    for step in range(steps):
        batch = torch.randint(len(x), (16,))
        loss = F.cross_entropy(noisy(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        if record and step % every == 0:
            record(loss, step=step)
        optimizer.step()
    return record


def go_on(blobs, noisy, optimizer, record, steps):
    """Full-batch steps with a record that is there."""
    x, y = blobs.x_train.double(), blobs.y_train
    for _ in range(steps):
        value = F.cross_entropy(noisy(x), y)
        optimizer.zero_grad()
        value.backward()
        record(value)
        optimizer.step()


def recorded(blobs, noisy, optimizer, **options):
    return nin.Record(noisy, optimizer, blobs.x_train.double(), blobs.y_train, loss=F.cross_entropy, **options)


@pytest.mark.parametrize("optimizer", [sgd, lambda noisy: torch.optim.AdamW(noisy.parameters(), lr=0.01)])
def test_training_does_not_notice_the_record(blobs, optimizer, unchecked):
    def mean(model, x, y):
        return pd.DataFrame({"mean": [model(x).mean().item() + torch.rand(1).item()]})

    ends = []
    for record in (True, None):
        noisy = injected(3.0, norm=True)
        options = {"test": (blobs.x_test.double(), blobs.y_test), "probes": {"mean": mean}, "snapshots": [3, 70]}
        trained(blobs, noisy, optimizer(noisy), record=record, **(options if record else {}))
        ends.append((copy.deepcopy(noisy.state_dict()), torch.rand(3)))
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][name]), name
    assert torch.equal(ends[0][1], ends[1][1])  # torch's generator too


@pytest.mark.parametrize("per_sample", [True, False])
def test_rows_are_those_of_a_naive_measurement(blobs, per_sample):
    """Expected loss, its error and clean losses against sums over samples, with batch norm."""
    noisy, x, y = injected(3.0, norm=True), blobs.x_train.double(), blobs.y_train
    loss = lambda f, t: F.cross_entropy(f, t, reduction="none" if per_sample else "mean")  # noqa: E731
    optimizer = sgd(noisy)
    record, twins = nin.Record(noisy, optimizer, x, y, loss=loss), []
    for _ in range(3):
        value = F.cross_entropy(noisy(x), y)
        optimizer.zero_grad()
        value.backward()
        twins.append(copy.deepcopy(noisy))
        record(value)
        optimizer.step()
    draws = record._samples.draws[0]
    assert draws.shape == (256, 1) and draws.std() == pytest.approx(1, abs=0.1)
    index, before = torch.arange(256) % 64, None
    for twin, row in zip(twins, record.frame().itertuples(), strict=True):
        for module in twin.modules():  # batch norm by the statistics of the samples, no dropout
            module.train(isinstance(module, nn.BatchNorm1d))
        with torch.no_grad():
            both = [F.cross_entropy(twin(x[index], sign * 3.0 * draws), y[index], reduction="none") for sign in (1, -1)]
            clean = F.cross_entropy(twin.network(x), y).item()
        losses = ((both[0] + both[1]) / 2).numpy()
        assert row.expected_loss == pytest.approx(losses.mean(), rel=1e-10)
        assert row.train_loss == pytest.approx(clean, rel=1e-10)
        assert row.niw_norm == pytest.approx(twin.niw.norm().item(), rel=1e-12)
        if per_sample:
            before = losses if before is None else before
            away = losses / losses.mean() - before / before.mean()
            expected = away.std(ddof=1) / 16 * losses.mean() / before.mean()
            assert row.ratio_stderr == pytest.approx(expected, rel=1e-8, abs=1e-15)
    assert record.frame()["train_accuracy"].between(0, 1).all()


@pytest.mark.parametrize(
    ("sigma", "phase"), [(0.01, "decoupled"), (8.0, "decay"), (60.0, "catapult"), (1e5, "divergent")]
)
def test_a_dense_record_has_the_phase_that_classify_gives(blobs, sigma, phase, unchecked):
    noisy = injected(sigma)
    record = trained(blobs, noisy, sgd(noisy), steps=400)
    reading = record.phase()
    assert reading.phase == phase == classify(record.frame())
    assert 0.5 < reading.certainty <= 1
    assert phase in str(reading)


def test_a_catapult_is_not_called_anything_else_for_want_of_rows(blobs, unchecked):
    """Every step shows it; every 10 or 50 steps may show it or not, and then the record says that it cannot tell."""
    for every in (1, 2, 10, 50):
        noisy = injected(60.0)
        reading = trained(blobs, noisy, sgd(noisy), steps=200, every=every).phase()
        assert reading.phase == "catapult" if every <= 2 else reading.phase in ("catapult", None)
    noisy = injected(8.0)
    reading = trained(blobs, noisy, sgd(noisy), steps=200, every=10).phase()
    assert reading.phase is None and "nothing was measured between steps 0 and 10" in str(reading)


def test_a_record_that_begins_late_or_ends_early_cannot_tell(blobs):
    noisy = injected(8.0)
    optimizer = sgd(noisy)
    trained(blobs, noisy, optimizer, record=None)
    record = recorded(blobs, noisy, optimizer, step=STEPS)
    go_on(blobs, noisy, optimizer, record, 60)
    assert record.phase().phase is None and "begins at step 120" in record.phase().why
    noisy = injected(8.0)
    short = trained(blobs, noisy, sgd(noisy), steps=20)
    assert short.phase().phase is None and "only 19 steps were recorded" in short.phase().why


def test_a_network_that_was_trained_before_is_named(blobs, unchecked):
    """A new node in a trained network: the label holds, with the two losses beside it."""
    noisy = injected(0.0)
    trained(blobs, noisy, sgd(noisy), record=None, steps=300)
    fresh = nin.inject(noisy.network, "0", sigma=0.5)
    reading = trained(blobs, fresh, sgd(fresh), steps=80).phase()
    assert reading.phase == "decoupled" and "the network was trained before: clean loss 0.0" in reading.why
    new = injected(0.5)
    assert trained(blobs, new, sgd(new), steps=80).phase().why == ""


def test_weight_decay_is_divided_out_or_named(blobs, unchecked):
    """Of a node of sigma = 0 only weight decay changes |W_NI|; without it the node stands still."""
    noisy = injected(0.0)
    plain = trained(blobs, noisy, sgd(noisy, weight_decay=0.05), steps=400)
    frame = plain.frame()
    assert frame["niw_norm"].iloc[-1] / frame["niw_norm"].iloc[0] == pytest.approx(0.9975**390, rel=1e-6)
    np.testing.assert_allclose(frame["niw_norm"] / frame["niw_decay"], frame["niw_norm"].iloc[0], rtol=1e-9)
    assert (
        plain.phase().phase == "decoupled"
        and classify(frame.drop(columns=["lr", "weight_decay", "niw_decay"])) == "decay"
    )
    noisy = injected(0.0)
    adamw = trained(blobs, noisy, torch.optim.AdamW(noisy.parameters(), lr=0.01, weight_decay=0.1), steps=300)
    assert adamw.phase().phase == "decoupled"
    for unknown in (
        lambda noisy: sgd(noisy, weight_decay=0.05, momentum=0.9),
        lambda noisy: torch.optim.Adam(noisy.parameters(), lr=0.01, weight_decay=0.1),
    ):
        noisy = injected(0.0)
        reading = trained(blobs, noisy, unknown(noisy), steps=100).phase()
        assert reading.phase is None and "noisy.parameter_groups" in reading.why
    noisy = injected(0.0)
    groups = torch.optim.Adam(noisy.parameter_groups(lr=0.01, weight_decay=0.1))
    assert trained(blobs, noisy, groups, steps=100).phase().phase == "decoupled"


def test_weight_decay_on_the_node_of_one_layer_is_not_that_of_another(blobs):
    def groups(noisy, decays):
        niw = [{"params": [w], "weight_decay": decay} for w, decay in zip(noisy.weights.values(), decays, strict=True)]
        return torch.optim.SGD([{"params": noisy.network.parameters()}, *niw], lr=0.05)

    for decays, known in (((0.0, 0.0), True), ((0.1, 0.1), True), ((0.0, 0.1), False), ((0.1, 0.0), False)):
        torch.manual_seed(0)
        noisy = nin.inject(classifier(), ["0", "4"], sigma=0.0)
        record = trained(blobs, noisy, groups(noisy, decays), steps=100)
        frame = record.frame()
        assert frame["weight_decay"].iloc[0] == max(decays)
        assert record.phase().phase == ("decoupled" if known else None)
        if known:
            np.testing.assert_allclose(frame["niw_norm"] / frame["niw_decay"], frame["niw_norm"].iloc[0], rtol=1e-9)


def test_weight_decay_does_not_act_on_a_frozen_node(blobs):
    noisy = injected(3.0)
    noisy.niw.requires_grad_(False)
    optimizer = torch.optim.SGD(noisy.network.parameters(), lr=0.05, weight_decay=0.1)
    record = trained(blobs, noisy, optimizer, steps=100)
    assert (record.frame()["niw_decay"] == 1).all() and record.phase().phase == "decoupled"


def test_a_changed_noise_scale_is_named(blobs):
    noisy = injected(8.0)
    optimizer = sgd(noisy)
    record = recorded(blobs, noisy, optimizer)
    for sigma in (8.0, 4.0):
        noisy.sigma = sigma
        go_on(blobs, noisy, optimizer, record, 40)
    assert record.phase().phase is None and "sigma changed" in record.phase().why


def test_saved_and_resumed_it_goes_on(blobs, tmp_path):
    def new():
        noisy = injected(8.0)
        optimizer = sgd(noisy)
        return noisy, optimizer, recorded(blobs, noisy, optimizer)

    whole, first, second = new(), new(), new()
    go_on(blobs, *whole, 90)
    go_on(blobs, *first, 30)
    torch.save([part.state_dict() for part in first], tmp_path / "checkpoint.pt")
    for part, state in zip(second, torch.load(tmp_path / "checkpoint.pt"), strict=True):
        part.load_state_dict(state)
    go_on(blobs, *second, 60)
    pd.testing.assert_frame_equal(second[2].frame(), whole[2].frame())
    pd.testing.assert_frame_equal(second[2].norms(), whole[2].norms())
    assert second[2].phase().phase == whole[2].phase().phase


def test_several_layers_and_nodes_by_their_names(blobs):
    torch.manual_seed(0)
    noisy = nin.inject(classifier(), ["0", "4"], sigma=[1.0, 2.0], nodes=[1, 3])
    norms = trained(blobs, noisy, sgd(noisy), steps=3).norms()
    last = norms[norms["step"] == 0]
    assert list(zip(last["layer"], last["node"], strict=True)) == [("0", 0), ("4", 0), ("4", 1), ("4", 2)]
    assert last["sigma"].tolist() == [1, 2, 2, 2]


def test_what_cannot_be_recorded_is_refused(blobs, unchecked):
    x, y = blobs.x_train.double(), blobs.y_train
    noisy = injected(1.0)
    optimizer = sgd(noisy)
    for make, message in (
        (lambda: nin.Record(noisy.network, optimizer, x, y, loss=F.cross_entropy), "noisy is a Sequential"),
        (lambda: nin.Record(noisy, sgd(injected(1.0)), x, y, loss=F.cross_entropy), "optimizer does not train"),
        (lambda: nin.Record(noisy, optimizer, x[:3], y, loss=F.cross_entropy), "x has 3 and y has 64 samples"),
        (lambda: nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy, every=0), "every=0"),
        (lambda: nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy, snapshots=[3]), "belong together"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy)
    with pytest.raises(ValueError, match="no gradient has reached W_NI"):
        record(1.0)
    F.cross_entropy(noisy(x), y).backward()
    for loss, message in ((torch.ones(3), r"loss of shape \(3,\)"), ("low", "loss='low'"), (None, "loss=None")):
        with pytest.raises(ValueError, match=message):
            record(loss)
    record(1.0, step=4)
    with pytest.raises(ValueError, match="step=4 does not follow step 4"):
        record(1.0, step=4)
    late = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy)
    optimizer.step()
    with pytest.raises(ValueError, match="the weights changed since the record was made"):
        late(1.0)
