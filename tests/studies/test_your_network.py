"""Catches: an attention that sees what follows, a loop whose record is that of other runs, a prediction that is judged
against the wrong run, probes that read another function than the network, and a swap that changes the characters."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import nin
from nin.model.independence import statistics_of
from nin.probes.asking import ask
from studies.your_network import figures, measure, probes
from studies.your_network.networks import Residual, Transformer, characters, descriptions, mean_over_places

TEXT, FOLLOWING, ALPHABET = characters("the cat sat on the mat and the dog sat on the log " * 8, 8)


@pytest.fixture(scope="module")
def images():
    data = nin.load_data("digits", n_train=320)
    return measure.Case(
        partial(Residual, 10, (4, 8)), "head", "input", data.x_train, data.y_train, F.cross_entropy,
        {"SGD": 0.05, "AdamW": 0.003}, batch_size=32,
    )  # fmt: skip


@pytest.fixture(scope="module")
def letters():
    return measure.Case(
        partial(Transformer, len(ALPHABET), 8, 8, depth=1), "head", "input", TEXT, FOLLOWING, mean_over_places,
        {"SGD": 0.5, "AdamW": 0.003}, batch_size=32,
    )  # fmt: skip


def test_characters_are_those_of_the_text():
    x, y, alphabet = characters("abcab", 3)
    assert alphabet == "abc" and x.tolist() == [[0, 1, 2], [1, 2, 0]] and y.tolist() == [[1, 2, 0], [2, 0, 1]]
    with pytest.raises(ValueError, match="text of 5 characters must be longer than context=5"):
        characters("abcab", 5)
    assert len(descriptions()) > 10_000


def test_the_loss_is_the_mean_over_samples_and_places():
    logits, targets = torch.randn(3, 4, 5, dtype=torch.float64), torch.randint(5, (3, 4))
    each = [-torch.log_softmax(logits[i, t], 0)[targets[i, t]] for i in range(3) for t in range(4)]
    torch.testing.assert_close(mean_over_places(logits, targets), torch.stack(each).mean())


def test_the_transformer_does_not_see_what_follows():
    torch.manual_seed(0)
    network, x = Transformer(9, 6, 8).double(), torch.randint(9, (4, 6))
    later = x.clone()
    later[:, 4] = (later[:, 4] + 1) % 9
    same, other = network(x), network(later)
    torch.testing.assert_close(same[:, :4], other[:, :4])
    assert (same[:, 4:] - other[:, 4:]).abs().amax((0, 2)).min() > 1e-3  # the places from the change on


def test_attention_against_the_sum_written_out():
    torch.manual_seed(0)
    block = Transformer(5, 4, 6, heads=2, depth=1).double().blocks[0]
    start = torch.randn(2, 4, 6, dtype=torch.float64)
    h = block.norm1(start)
    q, k, v = (part.unflatten(-1, (2, 3)) for part in block.qkv(h).chunk(3, -1))
    mixed = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    for b in range(2):
        for t in range(4):
            for head in range(2):
                weights = torch.softmax(k[b, : t + 1, head] @ q[b, t, head] / 3**0.5, 0)
                mixed[b, t, head] = weights @ v[b, : t + 1, head]
    x = start + block.out(mixed.flatten(2))
    torch.testing.assert_close(block(start), x + block.down(F.gelu(block.up(block.norm2(x)))))


def test_a_run_is_that_of_a_loop_without_a_record(images):
    """The same weights by the same draws, without the record, for both optimisers and the warm-up."""
    for name in measure.OPTIMISERS:
        record = measure.follow(images, optimiser=name, sigma=10.0, seed=3, steps=5)
        noisy = images.noisy(sigma=10.0, seed=3)
        if name == "SGD":
            optimizer = torch.optim.SGD(noisy.parameters(), lr=0.05)
        else:
            optimizer = torch.optim.AdamW(noisy.parameter_groups(weight_decay=0.01), lr=0.003)
        losses = []
        for step in range(6):
            if name == "AdamW":
                for group in optimizer.param_groups:
                    group["lr"] = 0.003 * (step + 1) / 20
            batch = torch.randint(len(images.x), (32,))
            loss = F.cross_entropy(noisy(images.x[batch]), images.y[batch])
            optimizer.zero_grad()
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        assert record.frame()["noisy_loss"].tolist() == losses
        for one, other in zip(record.noisy.parameters(), noisy.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_run_ends_where_its_loss_does(images):
    with np.errstate(over="ignore", invalid="ignore"):
        record = measure.follow(images, optimiser="SGD", sigma=1e4, seed=0, steps=200)
    assert record.phase().phase == "divergent" and len(record.frame()) < 201


@pytest.mark.slow
def test_every_run_is_judged_by_its_own_prediction(images, letters):
    cases = {"images": images, "letters": letters}
    runs, logs = measure.over_sigma(cases, sigmas=(0.1, 40.0), seeds=(0, 1), steps=60, ahead=1)
    assert len(runs) == 16 and not runs[["network", "optimiser", "sigma", "seed"]].duplicated().any()
    row = runs.query("network == 'images' and optimiser == 'SGD' and sigma == 40 and seed == 1").iloc[0]
    alone = measure.predict(images, optimiser="SGD", sigma=40.0, seed=1, steps=60, ahead=1)
    noisy = images.noisy(sigma=40.0, seed=1)
    own = nin.predict(noisy, images.x, images.y, loss=images.loss, lr=0.05, batch_size=32, steps=60,
                      generator=torch.Generator().manual_seed(1))  # fmt: skip
    assert row["predicted"] == own.phase and row["kappa_1"] == own.kappa == alone["kappa_1"]
    lam = nin.probes.curvature.top_mode(
        noisy.network, "head", images.x[:256], images.y[:256], loss=images.loss, at="input"
    ).lam  # by the running statistics, which are not those of the samples
    assert row["kappa_H"] != pytest.approx(0.05 * 40**2 * lam, rel=0.01)
    with statistics_of(noisy.network, images.x[:256]):
        lam = nin.probes.curvature.top_mode(
            noisy.network, "head", images.x[:256], images.y[:256], loss=images.loss, at="input"
        ).lam
    assert row["kappa_H"] == pytest.approx(0.05 * 40**2 * lam, rel=1e-4)
    assert row["by_kappa_H"] == nin.phases.of_kappa(row["kappa_H"]) == "divergent"
    log = logs[logs["run"] == row["run"]]
    assert nin.phases.classify(log) == row["found"] and set(log["sigma"]) == {40.0}
    shown = runs[["network", "optimiser", "sigma", "seed", "kappa_1", "kappa_H", "found"]]
    figure = figures.foretold(shown)
    points = [line for ax in figure.axes for line in ax.lines if line.get_marker() in ("o", "s")]
    assert sorted(line.get_ydata()[0] for line in points) == pytest.approx(sorted(runs["kappa_1"].clip(lower=1e-3)))


def test_scores_of_tables_that_are_known():
    runs = pd.DataFrame(
        [("a", "SGD", 1.0, 0, "decay", "decay"), ("b", "SGD", 1.0, 0, "catapult", "divergent"),
         ("a", "SGD", 9.0, 0, "divergent", "divergent"), ("b", "SGD", 9.0, 0, "divergent", "divergent"),
         ("a", "AdamW", 9.0, 0, "calm", "decoupled"), ("b", "AdamW", 9.0, 0, "calm", "catapult")],
        columns=["network", "optimiser", "sigma", "seed", "predicted", "found"],
    )  # fmt: skip
    assert measure.as_predicted(runs).tolist() == [True, False, True, True, True, False]
    assert measure.by_sigma_alone(runs) == 0.5 and np.isnan(measure.by_sigma_alone(runs[runs["network"] == "a"]))
    assert [nin.phases.of_kappa(kappa) in measure.SPIKES for kappa in (1.9, 2.0, 4.0)] == [False, True, True]


@pytest.mark.slow
def test_warm_up_and_other_layers(images):
    warm = measure.with_and_without_warm_up(images, rates=(0.3,), sigma=0.1, seeds=(0,), steps=60)
    assert warm["warm_up"].tolist() == [0, 20]
    assert warm["kappa_1"][0] == pytest.approx(20 * warm["kappa_1"][1])  # of the first step
    table = measure.at_other_layers(images, {"blocks.1.conv2": "input"}, sigma=30.0, seeds=(0,), steps=60, ahead=1)
    assert table["layer"].tolist() == ["blocks.1.conv2"] and (table["kappa_1"] < 2).all()


def test_swapped_neighbours():
    x = torch.randint(5, (200, 8), generator=torch.Generator().manual_seed(0))
    swapped = probes.swap(x, torch.Generator().manual_seed(1))
    assert torch.equal(swapped.sort(1).values, x.sort(1).values)
    assert ((swapped != x).sum(1) == 2).all()
    places = (swapped != x).nonzero()[:, 1].view(-1, 2)
    assert (places[:, 1] - places[:, 0] == 1).all() and len(places[:, 0].unique()) == 7
    constant = torch.ones(3, 8, dtype=torch.long)
    assert torch.equal(probes.swap(constant, torch.Generator()), constant)


@pytest.mark.slow
def test_the_probes_against_their_definitions(images, letters):
    """Kernel and response by autograd; eta lambda at the node by the matrix; R of characters by hand."""
    torch.manual_seed(0)
    network = letters.network().double().eval()
    reading = probes.of_characters("blocks", blank=ALPHABET.index(" "))
    x, y = TEXT[:96], FOLLOWING[:96]
    tables = {name: ask(name, probe, network, x, y, seed=0).set_index("quantity")
              for name, probe in probes.four_probes(letters, reading).items()}  # fmt: skip
    norms = []
    for i in range(probes.FEW):
        rows = [torch.autograd.grad(out, network.parameters(), retain_graph=True, allow_unused=True)
                for out in network(x[i : i + 1])[0, -1]]  # fmt: skip
        norms.append(sum(g.square().sum() for row in rows for g in row if g is not None).item())
    assert tables["response"].loc["self-kernel", "value"] == pytest.approx(np.mean(norms), rel=1e-8)
    h = network.norm(network.blocks(network.embed(x) + network.position)).detach()

    def loss_at(shift):  # the node's noise is the same for all places of a sample
        return mean_over_places(network.head(h + shift[:, None]), y) * len(x)

    hessian = torch.autograd.functional.hessian(loss_at, torch.zeros(96, 8, dtype=torch.float64))
    blocks = hessian.diagonal(dim1=0, dim2=2).mean(-1)  # (8, 8), over samples
    top = torch.linalg.eigvalsh(blocks)[-1].item()
    assert tables["curvature"].loc["eta lambda at the node", "value"] == pytest.approx(0.5 * top, rel=1e-6)
    assert tables["stability"].loc["R of the output", "control"] == pytest.approx(1, rel=1e-6)
    assert 0 <= tables["interactions"].loc["completeness", "value"] <= 1
    data = images.x[:128], images.y[:128]
    residual = probes.four_probes(images, probes.of_images("blocks", side=8))
    found = {name: ask(name, probe, images.network(), *data, seed=0) for name, probe in residual.items()}
    whole = pd.concat(found.values())
    assert whole["value"].notna().all() and len(whole) == 6
    both = [whole.assign(network="images", sigma=1.0, step=step) for step in (0, 10)]
    figure = figures.along_training(pd.concat(both))
    assert len([ax for ax in figure.axes if ax.get_visible()]) == 6
