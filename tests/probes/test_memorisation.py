"""Catches: noise that does not follow its sample through shuffling, a turn that is seen too early, too late or by
chance, and printed lines for a DataLoader that do not run."""

import inspect
import json
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import nin
from nin.probes import memorisation
from nin.probes.memorisation import FixedNoise, Indexed, MemorisationMeter, node_norms
from nin.support import paths

LINES = textwrap.dedent(memorisation.__doc__.split("augmentation:\n\n")[1].split("\n\nChoose")[0])


class Augmented(torch.utils.data.Dataset):
    """Points with labels that say nothing about them; each look at a point adds other noise to it."""

    def __init__(self, samples, wrong):
        draw = torch.Generator().manual_seed(1)
        self.x = torch.randn(samples, 20, generator=draw)
        self.y = (self.x[:, 0] > 0).long()
        flipped = torch.rand(samples, generator=draw) < wrong
        self.y[flipped] = 1 - self.y[flipped]
        self.looks = torch.Generator().manual_seed(2)
        self.seen = []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        self.seen.append(index)
        return self.x[index] + 0.05 * torch.randn(20, generator=self.looks), self.y[index]


def noisy_network(layer="0", **given):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    return nin.inject(model, layer, generator=torch.Generator().manual_seed(3), **{"sigma": 1.0, "nodes": 4} | given)


def run_lines(wrong, epochs):
    """The lines of the docstring, as they stand."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    scope = {
        "nin": nin, "torch": torch, "DataLoader": DataLoader, "cross_entropy": cross_entropy, "FixedNoise": FixedNoise,
        "Indexed": Indexed, "MemorisationMeter": MemorisationMeter, "model": model, "layer": "0", "epochs": epochs,
        "dataset": Augmented(100, wrong), "generator": torch.Generator().manual_seed(4),
    }  # fmt: skip
    exec(LINES, scope)
    return scope


@pytest.mark.slow
def test_the_lines_for_a_dataloader_run_and_stop_when_the_network_memorises():
    memorises, learns = run_lines(wrong=0.4, epochs=400), run_lines(wrong=0.0, epochs=60)
    assert memorises["epoch"] < 399 and memorises["meter"].turn == memorises["epoch"]
    assert learns["meter"].turn is None and learns["epoch"] == 59
    assert learns["dataset"].seen[:100] != sorted(learns["dataset"].seen[:100])


def test_the_notebook_shows_the_same_lines():
    book = json.loads((paths.notebooks() / "11_memorisation.ipynb").read_text())
    assert any(LINES.strip() in "".join(cell["source"]) for cell in book["cells"])


def test_the_noise_of_a_sample_follows_it_through_the_loader():
    noisy, data = noisy_network(), Augmented(10, 0.0)
    noise = FixedNoise(noisy, len(data))
    seen = []
    for _ in range(2):
        epoch = [(index, x, noise(index)) for index, x, _ in DataLoader(Indexed(data), batch_size=3, shuffle=True)]
        index, x, eps = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        seen.append((index, x[index.argsort()], eps[index.argsort()]))
    assert not torch.equal(seen[0][0], seen[1][0]) and not torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[0][2], seen[1][2]) and len(seen[0][2].unique(dim=0)) == 10


def test_the_noise_has_the_law_and_size_of_the_node():
    noise = FixedNoise(noisy_network(sigma=3.0, law="rademacher"), 50)
    assert set(noise(torch.arange(50)).unique().tolist()) == {-3.0, 3.0}
    assert noise(torch.tensor([4, 4])).shape == (2, 4)


def test_a_resumed_run_has_the_same_noise():
    first, second = (FixedNoise(noisy_network(), 5) for _ in range(2))
    second.eps0.zero_()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(torch.arange(5)), second(torch.arange(5)))
    assert first.double()(torch.tensor([1])).dtype == torch.float64


def test_several_layers_have_their_own_noise_and_are_read_together():
    noisy = noisy_network(("0", "2"), nodes=2)
    noise = FixedNoise(noisy, 6)(torch.tensor([5, 0]))
    assert set(noise) == {"0", "2"} and all(eps.shape == (2, 2) for eps in noise.values())
    noisy(torch.randn(2, 20), noise)
    norms = node_norms(noisy)
    expected = [noisy.niw[layer][node].norm().item() for layer in ("0", "2") for node in (0, 1)]
    assert norms == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("index", [torch.tensor([5]), torch.tensor([-1]), torch.tensor([0.0]), torch.tensor([True])])
def test_a_wrong_index_is_refused(index):
    with pytest.raises(ValueError, match="must be integers from 0 to 4"):
        FixedNoise(noisy_network(), 5)(index)


def read_all(norms, **given):
    meter = MemorisationMeter(**given)
    for step, values in enumerate(np.asarray(norms, dtype=float).reshape(len(norms), -1)):
        meter.enter(10 * step, values)
    return meter


def test_the_turn_is_the_first_step_above_the_tolerance():
    meter = read_all([1.0, 0.8, 0.7, 0.72, 0.74, 0.70])
    assert meter.turn == 40 and meter.readings[-1].turned and meter.readings[-1].lowest == 20
    assert meter.readings[4].rise == pytest.approx(np.log(0.74 / 0.7)) and np.isnan(meter.readings[4].stderr)
    assert read_all([1.0, 0.8, 0.7, 0.72]).turn is None
    assert read_all([1.0, 0.8, 0.7, 0.72], tolerance=0.0).turn == 30


def test_a_rise_that_the_nodes_do_not_share_is_not_a_turn():
    agree, differ = [[1, 1, 1, 1], [1.1, 1.12, 1.08, 1.1]], [[1, 1, 1, 1], [1.6, 0.9, 1.0, 1.0]]
    assert read_all(agree).turn == 10
    assert read_all(differ).readings[-1].rise > 0.05 and read_all(differ).turn is None
    rises = np.log(differ[1])
    assert read_all(differ).readings[-1].stderr == pytest.approx(rises.std(ddof=1) / 2)


def test_wrong_norms_and_limits_are_refused():
    with pytest.raises(ValueError, match="did the run diverge"):
        MemorisationMeter().enter(0, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="tolerance=-1"):
        MemorisationMeter(tolerance=-1)


def test_reading_does_not_change_the_network():
    noisy = noisy_network()
    before = {name: value.clone() for name, value in noisy.state_dict().items()}
    assert MemorisationMeter().read(0, noisy).norm == pytest.approx(np.exp(np.log(node_norms(noisy)).mean()))
    assert all(torch.equal(value, before[name]) for name, value in noisy.state_dict().items())
    assert noisy.training and "read" in dict(inspect.getmembers(MemorisationMeter))


def test_a_meter_reads_the_same_nodes_in_order():
    meter = MemorisationMeter()
    meter.enter(3, np.ones(4))
    with pytest.raises(ValueError, match=r"norms has shape \(1,\), and had \(4,\); read the same nodes"):
        meter.enter(4, np.ones(1))
    with pytest.raises(ValueError, match=r"step=3 must be above 3, the last one"):
        meter.enter(3, np.ones(4))
