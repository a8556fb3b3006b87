"""Catches: runs of other networks, losses and optimisers that are not what a loop of one's own would train."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from curves import largest_difference
from torch import nn
from torch.nn import functional as F

import nin
from nin import RunConfig, inject, train
from nin.model.dataset import Dataset
from nin.model.independence import statistics_of
from nin.phases import classify, criteria
from nin.probes.curvature import top_mode
from nin.training import loop
from nin.training.batches import batches

pytestmark = pytest.mark.usefixtures("unchecked")  # thousands of small steps
SMALL = RunConfig(
    layer="0", sigma=2.0, steps=60, batch_size=16, eval_points=4, dtype="float64", lr=0.05, curvature_pairs=0
)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 4))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 4))


SETTINGS = [
    {},
    {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "decay_node": False},
    {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True, "warmup": 10, "schedule": "cosine"},
    {"schedule": "steps", "milestones": (20, 40), "drop": 0.3, "weight_decay": 0.01},
    {"clip": 0.05, "lr": 0.2},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_runs_trained_one_by_one_are_those_trained_as_a_stack(blobs, monkeypatch, changes):
    configs = [SMALL.replace(sigma=sigma, seed=seed, **changes) for sigma in (0.5, 4.0) for seed in (0, 1)]
    together = train(configs, data=blobs, network=plain)
    assert together.alone is None
    monkeypatch.setattr(loop, "why_alone", lambda *_: "asked for")
    apart_ = train(configs, data=blobs, network=plain)
    assert apart_.alone == "asked for"
    assert max(largest_difference(together, run, apart_, run) for run in range(4)) < 1e-8
    ends = [{name: p.detach() for name, p in runs.model(1).named_parameters()} for runs in (together, apart_)]
    assert all(torch.allclose(ends[0][name], ends[1][name], rtol=1e-8) for name in ends[0])
    assert ends[0].keys() == ends[1].keys()


def schedulers(optimizer, config):
    """torch's own schedulers of a config."""
    found = []
    if config.warmup:
        rise = {"start_factor": 1 / config.warmup, "total_iters": config.warmup - 1}
        found.append(torch.optim.lr_scheduler.LinearLR(optimizer, **rise))
    if config.schedule == "cosine":
        found.append(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.steps))
    if config.schedule == "steps":
        milestones = list(config.milestones)
        found.append(torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=milestones, gamma=config.drop))
    return found


def own_loop(config, data, optimizer_of):
    """What one would write for a network with batch norm: noisy loss and |W_NI| by step, and the network."""
    torch.manual_seed(config.generator("weights").initial_seed())
    noisy = inject(normed().double(), "0", sigma=config.sigma, generator=config.generator("niw")).train()
    optimizer = optimizer_of(noisy)
    rates = schedulers(optimizer, config)
    rows = []
    for (index, eps), step in zip(batches(config, len(data.x_train)), range(config.steps + 1), strict=False):
        end = copy.deepcopy(noisy) if step == config.steps else None
        loss = F.cross_entropy(noisy(data.x_train[index].double(), config.sigma * eps), data.y_train[index])
        rows.append((loss.item(), noisy.niw.norm().item()))
        if end:
            return np.array(rows), end
        optimizer.zero_grad()
        loss.backward()
        if config.clip:
            torch.nn.utils.clip_grad_norm_(noisy.parameters(), config.clip)
        optimizer.step()
        for rate in rates:
            rate.step()


@pytest.mark.parametrize(
    ("changes", "optimizer_of"),
    [
        ({"clip": 0.5}, lambda noisy: torch.optim.SGD(noisy.parameters(), lr=0.05)),
        (
            {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3, "decay_node": False, "schedule": "cosine"},
            lambda noisy: torch.optim.AdamW(noisy.parameter_groups(lr=0.01, weight_decay=0.3)),
        ),
        (
            {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3, "warmup": 20},
            lambda noisy: torch.optim.AdamW(noisy.parameters(), lr=0.01, weight_decay=0.3),
        ),
        (
            {"momentum": 0.9, "nesterov": True, "schedule": "steps", "milestones": (20, 45), "lr": 0.02},
            lambda noisy: torch.optim.SGD(noisy.parameters(), lr=0.02, momentum=0.9, nesterov=True),
        ),
    ],
)
def test_a_network_with_batch_norm_trains_as_in_a_loop_of_ones_own(blobs, changes, optimizer_of):
    config = SMALL.replace(record_every=1, **changes)
    runs = train([config, config.replace(sigma=0.3)], data=blobs, network=normed)
    assert "running_mean" in runs.alone
    rows, noisy = own_loop(config, blobs, optimizer_of)
    table = runs.table(0)
    np.testing.assert_allclose(table["noisy_loss"], rows[:, 0], rtol=1e-9)
    np.testing.assert_allclose(table["niw_norm"], rows[:, 1], rtol=1e-9)
    found, expected = runs.model(0).state_dict(), noisy.state_dict()
    for name in ("network.0.weight", "network.1.running_mean", "network.1.running_var"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [normed, dropping])
def test_a_table_has_what_a_record_of_the_same_network_has(blobs, network):
    config = SMALL.replace(eval_samples=512)
    runs = train(config, data=blobs, network=network)
    data = blobs.to(torch.float64)
    for step, noisy in (
        (0, train(config, data=blobs, network=network, snapshots=[0]).model(0, 0)),
        (60, runs.model(0)),
    ):
        optimizer = torch.optim.SGD(noisy.parameters(), lr=0.05)
        record = nin.Record(noisy, optimizer, data.x_train, data.y_train, loss=F.cross_entropy)
        F.cross_entropy(noisy.train()(data.x_train[:16]), data.y_train[:16]).backward()
        record(1.0)
        theirs, ours = record.frame().iloc[0], runs.table(0).set_index("step").loc[step]
        assert ours["expected_loss"] == pytest.approx(theirs["expected_loss"], rel=1e-9)
        if network is dropping:  # without batch statistics all samples and the first 512 are one function
            x, y = data.x_train, data.y_train
            assert ours["train_loss"] == pytest.approx(F.cross_entropy(noisy.eval()(x), y).item(), rel=1e-9)


def test_a_run_with_dropout_is_the_same_alone_and_in_a_group_and_leaves_the_generators(blobs):
    configs = [SMALL.replace(sigma=sigma, seed=seed) for sigma in (0.5, 4.0) for seed in (0, 1)]
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    group = train(configs, data=blobs, network=dropping)
    assert "draws" in group.alone
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    for run, config in enumerate(configs):
        assert largest_difference(group, run, train(config, data=blobs, network=dropping), 0) == 0
    silent = train(
        configs[0], data=blobs, network=lambda: nn.Sequential(*[m for m in dropping() if type(m) is not nn.Dropout])
    )
    assert largest_difference(group, 0, silent, 0) > 1e-3  # the dropout acts


def test_frozen_parameters_stay_and_tied_weights_stay_tied(blobs):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.norm = nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)
            self.back, self.out = nn.Linear(6, 6, bias=False), nn.Linear(6, 4)
            self.back.weight = self.into.weight
            self.out.bias.requires_grad_(False)

        def forward(self, x):
            return self.out(self.back(torch.relu(self.norm(self.into(x)))))

    runs = train(
        SMALL.replace(layer="into", optimizer="adamw", weight_decay=0.1), data=blobs, network=Tied, snapshots=[0]
    )
    start, end = runs.model(0, 0).network, runs.model(0).network
    assert torch.equal(start.out.bias, end.out.bias)
    assert end.back.weight is end.into.weight
    assert not torch.equal(start.into.weight, end.into.weight)


def test_nodes_in_several_layers(blobs):
    config = SMALL.replace(layer=("0", "3"), nodes=2, record_every=1)
    runs = train([config, config.replace(sigma=0.1)], data=blobs, network=plain)
    assert runs.alone is None
    noisy = runs.model(0)
    assert {layer: niw.shape for layer, niw in noisy.weights.items()} == {"0": (2, 12), "3": (2, 4)}
    norm = math.sqrt(sum(niw.square().sum().item() for niw in noisy.weights.values()))
    assert runs.curves["niw_norm"][-1, 0] == pytest.approx(norm, rel=1e-12)
    # the same by hand: noise of both layers side by side, one stream
    by_hand = copy.deepcopy(train(config, data=blobs, network=plain, snapshots=[0]).model(0, 0))
    index, eps = next(batches(config, len(blobs.x_train)))
    noise = dict(zip(("0", "3"), (config.sigma * eps).split(2, dim=1), strict=True))
    loss = F.cross_entropy(by_hand(blobs.x_train[index].double(), noise), blobs.y_train[index])
    assert runs.curves["noisy_loss"][0, 0] == pytest.approx(loss.item(), rel=1e-12)
    assert "0, 3" in set(runs.frame()["layer"])


def label_smoothing(outputs, y):
    return F.cross_entropy(outputs, y, label_smoothing=0.1)


def test_a_loss_of_ones_own_by_its_mean_or_by_sample(blobs):
    configs = [SMALL.replace(sigma=sigma) for sigma in (0.5, 4.0)]
    mean = train(configs, data=blobs, network=plain, loss=label_smoothing)
    each = train(configs, data=blobs, network=plain, loss=nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"))
    assert mean.alone is None
    assert max(largest_difference(mean, run, each, run) for run in range(2)) < 1e-10
    mlp = [train(configs[0].replace(layer=0, widths=(8,)), data=blobs, loss=one) for one in (label_smoothing, None)]
    assert largest_difference(mlp[0], 0, mlp[1], 0) > 1e-3
    named = train(configs, data=blobs, network=plain)
    same = train(configs, data=blobs, network=plain, loss=F.cross_entropy)
    assert max(largest_difference(named, run, same, run) for run in range(2)) < 1e-10


def test_the_fast_perceptron_with_a_loss_of_ones_own_is_the_named_one(blobs):
    config = SMALL.replace(layer=0, widths=(9, 8), sigma=1.0)
    assert largest_difference(train(config, data=blobs), 0, train(config, data=blobs, loss=F.cross_entropy), 0) < 1e-10


def weighted(outputs, y):
    return F.cross_entropy(outputs, y, weight=torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=outputs.dtype))


def ignoring(outputs, y):
    return F.cross_entropy(outputs, y, ignore_index=0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (weighted, "the mean of the samples alone"),
        (ignoring, "not finite"),
        (lambda outputs, y: outputs.flatten()[0], "cannot be computed|the mean of the samples"),
        (F.binary_cross_entropy_with_logits, "cannot be computed from outputs of float64"),
        (lambda outputs, y: F.cross_entropy(outputs, y, reduction="none").repeat(2), "losses for"),
    ],
)
def test_a_loss_that_is_no_mean_over_the_samples_is_refused_before_training(blobs, loss, message):
    with pytest.raises(ValueError, match=message):
        train(SMALL, data=blobs, network=plain, loss=loss)


def test_soft_labels_several_labels_and_regression(blobs):
    soft = torch.softmax(torch.randn(len(blobs.x_train), 4), 1), torch.softmax(torch.randn(len(blobs.x_test), 4), 1)
    data = dataclasses.replace(blobs, y_train=soft[0], y_test=soft[1])
    runs = train(SMALL, data=data, network=normed, loss=F.cross_entropy)
    model, x = runs.model(0).network.double(), data.x_train.double()
    assert runs.table(0)["train_loss"].iloc[-1] < runs.table(0)["train_loss"].iloc[0]
    assert runs.table(0)["train_accuracy"].isna().all()
    several = dataclasses.replace(data, y_train=(soft[0] > 0.25).float(), y_test=(soft[1] > 0.25).float())
    runs = train(SMALL, data=several, network=plain, loss=F.binary_cross_entropy_with_logits)
    model = runs.model(0).network
    value = F.binary_cross_entropy_with_logits(model(x), several.y_train.double()).item()
    assert runs.table(0)["train_loss"].iloc[-1] == pytest.approx(value, rel=1e-10)
    with pytest.raises(ValueError, match="pass loss="):
        train(SMALL, data=several, network=plain)


class Reader(nn.Module):
    """Next-token prediction: (n, 5) integers -> (n, 5, 7)."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=self.places.dtype)
        return self.head(self.block(self.tokens(x) + self.places, src_mask=mask))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("layer", ["tokens", "block.linear1"])
def test_sequences_of_tokens(dropout, layer):
    rows = torch.arange(6)[:, None].add(torch.randint(7, (80, 1, 1))).movedim(1, 2).reshape(80, 6) % 7
    data = Dataset(rows[:64, :5], rows[:64, 1:], rows[64:, :5], rows[64:, 1:], classes=7, source="counting")
    config = SMALL.replace(layer=layer, optimizer="adamw", lr=0.01, steps=40, sigma=0.1)
    runs = train(config, data=data, network=lambda: Reader(dropout))
    noisy, table = runs.model(0).eval(), runs.table(0)
    outputs = noisy(data.x_train)
    clean = F.cross_entropy(outputs.flatten(0, 1), data.y_train.flatten()).item()
    assert table["train_loss"].iloc[-1] == pytest.approx(clean, rel=1e-8)
    assert table["train_accuracy"].iloc[-1] == pytest.approx((outputs.argmax(2) == data.y_train).double().mean().item())
    assert table["train_loss"].iloc[-1] < 0.7 * table["train_loss"].iloc[0]


def jitter(x):
    return x + 0.5 * torch.randn_like(x)


def test_augmentation_follows_from_the_seed_and_touches_nothing_that_is_measured(blobs):
    configs = [SMALL.replace(seed=seed) for seed in (0, 1)]
    torch.manual_seed(1)
    both = train(configs, data=blobs, network=plain, augment=jitter)
    torch.manual_seed(2)
    again = train(configs[1], data=blobs, network=plain, augment=jitter)
    assert largest_difference(both, 1, again, 0) < 1e-12
    bare = train(configs, data=blobs, network=plain)
    assert both.curves["noisy_loss"][0, 0] != bare.curves["noisy_loss"][0, 0]
    for name in ("expected_loss", "train_loss", "test_loss"):
        assert both.curves[name][0, 0] == bare.curves[name][0, 0]
    with pytest.raises(ValueError, match="augment returned .* as many samples"):
        train(configs, data=blobs, network=plain, augment=lambda x: x[:3])


def test_autocast(blobs):
    config = SMALL.replace(dtype="float32", autocast=True)
    runs, exact = (
        train(config, data=blobs, network=plain),
        train(config.replace(autocast=False), data=blobs, network=plain),
    )
    assert "autocast" in runs.alone
    assert runs.model(0).network[0].weight.dtype == torch.float32
    assert 1e-5 < largest_difference(runs, 0, exact, 0) < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = F.cross_entropy(runs.model(0).eval()(blobs.x_train).float(), blobs.y_train).item()
    assert runs.table(0)["train_loss"].iloc[-1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_decay": 2.0, "lr": 0.01},
        {"weight_decay": 0.2, "lr": 0.01, "momentum": 0.9},
        {"weight_decay": 0.2, "lr": 0.01, "momentum": 0.9, "nesterov": True},
        {"weight_decay": 2.0, "lr": 0.01, "optimizer": "adamw", "schedule": "cosine"},
        {"weight_decay": 2.0, "lr": 0.01, "optimizer": "adamw", "warmup": 30},
    ],
)
def test_weight_decay_is_not_the_decay_phase(blobs, changes):
    config = SMALL.replace(sigma=0.0, record_every=1, **changes)
    frame = train(config, data=blobs, network=normed).frame()
    shrunk = frame["niw_norm"] / frame["niw_norm"].iloc[0]
    assert shrunk.iloc[-1] < 0.75
    np.testing.assert_allclose(frame["niw_decay"], shrunk, rtol=1e-9)
    assert classify(frame) == "decoupled"
    spared = train(config.replace(decay_node=False), data=blobs, network=normed).frame()
    assert (spared["niw_norm"] == spared["niw_norm"].iloc[0]).all()
    assert (spared["niw_decay"] == 1).all()


def test_a_weight_decay_of_unknown_effect_takes_the_certainty(blobs):
    frame = train(SMALL.replace(optimizer="adam", weight_decay=0.1), data=blobs, network=normed).frame()
    found = criteria(frame)
    assert "factor that is not known" in found.doubt
    assert math.isnan(found.certainty)


def test_curvature_of_a_network_with_batch_norm_is_that_of_the_statistics_of_its_data(blobs):
    network = normed().double()
    with torch.no_grad():
        network[1].running_mean.fill_(3.0)  # of another data set
    x, y = blobs.x_train.double(), blobs.y_train
    before = copy.deepcopy(network.state_dict())
    with statistics_of(network, x):
        measured = top_mode(network, "0", x, y, loss=F.cross_entropy).lam
        torch.testing.assert_close(network.eval()(x), network.train()(x))
        network[1].running_mean.copy_(network[0](x).mean(0))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert network[1].training
    h = network[0](x)
    folded = nn.Sequential(network[0], nn.Identity(), network[2], network[3])
    fixed = lambda z: (z - h.mean(0).detach()) / (h.var(0, correction=0).detach() + 1e-5).sqrt()  # noqa: E731
    folded[1].forward = fixed
    assert measured == pytest.approx(top_mode(folded, "0", x, y, loss=F.cross_entropy).lam, rel=1e-6)
    runs = train(SMALL.replace(curvature_pairs=1), data=blobs, network=normed)
    assert np.isfinite(runs.lambda_H).all()
    assert np.isfinite(runs.kappa_avg).all()


def test_curvature_at_the_start_can_be_left_out(blobs):
    runs = train(SMALL, data=blobs, network=plain)
    assert np.isnan(runs.lambda_H).all()
    assert np.isnan(runs.curves["noise_output"]).all()
    assert np.isnan(train(SMALL.replace(optimizer="adam", curvature_pairs=1), data=blobs, network=plain).kappa_H).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nesterov": True}, "nesterov=True needs"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum=0.9 applies to optimizer='sgd' only"),
        ({"schedule": "steps"}, "belong together"),
        ({"milestones": (3,)}, "belong together"),
        ({"schedule": "linear"}, "schedule='linear' is unknown"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"autocast": "bfloat16"}, "autocast='bfloat16' must be True or False"),
        ({"layer": ()}, "layer=\\(\\)"),
        ({"layer": ("0", "0")}, "different layers"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SMALL.replace(**changes)


SHARED = plain()


class Splitting(nn.Module):
    def forward(self, x):
        return x[:, :2], x[:, 2:]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: SHARED, "returned the same module twice"),
        (lambda: inject(plain(), "0", sigma=1.0), "without a node"),
        (lambda: torch.zeros(3), "must return an nn.Module"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Flatten(0)), "first axis must count the samples"),
        (lambda: nn.Sequential(nn.Linear(6, 4), Splitting()), "returned tuple, not a tensor"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(blobs, network, message):
    with pytest.raises(ValueError, match=message):
        train([SMALL, SMALL.replace(seed=1)], data=blobs, network=network)


def test_images_need_a_network_of_ones_own(blobs):
    images = dataclasses.replace(blobs, x_train=blobs.x_train.view(-1, 1, 2, 3), x_test=blobs.x_test.view(-1, 1, 2, 3))
    with pytest.raises(ValueError, match="takes rows"):
        train(SMALL.replace(layer=0), data=images)
    runs = train(SMALL.replace(layer="1"), data=images, network=lambda: nn.Sequential(nn.Flatten(), *plain()))
    assert runs.alone is None


def test_a_weight_of_a_rare_class_is_seen_before_training(blobs):
    rare = torch.zeros(640, dtype=torch.long)
    rare[17] = 3  # between the samples that are spread evenly
    data = dataclasses.replace(blobs, x_train=blobs.x_train.repeat(10, 1), y_train=rare)
    weight = torch.tensor([1.0, 1.0, 1.0, 50.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="the mean of the samples alone"):
        train(SMALL, data=data, network=plain, loss=nn.CrossEntropyLoss(weight=weight))


@pytest.mark.parametrize("count", [129, 257])
def test_batch_norm_meets_no_rest_of_a_few_samples(blobs, count):
    """257 samples in passes of 256 would leave one, which has no statistics: they are measured in two halves."""
    x, y = blobs.x_train.repeat(9, 1)[:count], blobs.y_train.repeat(9)[:count]
    data = Dataset(x, y, blobs.x_test, blobs.y_test, classes=4, source="blobs")
    runs = train(SMALL, data=data, network=normed)
    network = runs.model(0).network.train()
    with torch.no_grad():
        ends = ((0, count),) if count < 256 else ((0, 128), (128, count))
        parts = [(network(x[a:b].double()), y[a:b]) for a, b in ends]
        expected = sum(F.cross_entropy(f, t, reduction="sum").item() for f, t in parts) / count
    assert runs.table(0)["train_loss"].iloc[-1] == pytest.approx(expected, rel=1e-9)
    noisy = inject(normed().double(), "0", sigma=1.0)
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    record = nin.Record(noisy, optimizer, x.double(), y, loss=F.cross_entropy)
    F.cross_entropy(noisy(x[:9].double()), y[:9]).backward()
    record(1.0)
    assert np.isfinite(record.frame()["train_loss"].iloc[0])


def test_the_linear_net_with_a_loss_of_ones_own_has_its_own_curvature():
    data = nin.model.data.linear_teacher(n_train=64, n_test=8)
    shape = {"network": "linear", "widths": (40,), "loss": "mse", "dtype": "float64"}
    config = RunConfig(**shape, steps=3, batch_size=8, eval_samples=64)
    losses = (None, lambda f, y: (f - y).square().sum(1))
    mse, twice = (train(config, data=data, loss=loss).lambda_H[0] for loss in losses)
    assert twice == pytest.approx(2 * mse, rel=1e-9)
