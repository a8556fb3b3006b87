"""Catches: a way of training that depends on how many runs there are, on their order or on a clock; a stack where torch
warns of its slowness; a count that changes a network or says something on the screen."""

import warnings

import numpy as np
import pytest
import torch
from curves import largest_difference
from torch import nn

from nin import RunConfig, train
from nin.model.dataset import Dataset
from nin.training import together
from nin.training.operations import largest_product, operations
from nin.training.together import why_alone

CONFIG = RunConfig(
    layer="0", sigma=0.5, steps=3, batch_size=16, eval_points=2, eval_samples=16, lr=0.01, curvature_pairs=0
)


def images():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(32, 2, 8, 8, generator=draws)
    return Dataset(x, torch.arange(32) % 4, x[:16], torch.arange(16) % 4, classes=4, source="noise")


def convolutional():
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))


ONE_SAMPLE = 8 * 36 * 2 * 9 + 8 * 36 * 4  # multiply-adds, by hand


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        h = self.into(x.flatten(1, 2)).unflatten(2, (2, 8)).transpose(1, 2)
        return self.out(nn.functional.scaled_dot_product_attention(h, h, h).transpose(1, 2).flatten(2).mean(1))


def why(network, config=CONFIG, **options):
    return why_alone(config, network, images().x_train, **options)


def test_the_count_of_multiply_adds_is_that_by_hand_and_decides(monkeypatch):
    network = convolutional()
    assert why(network) is None
    monkeypatch.setattr(together, "SLOWER_FROM", 16 * ONE_SAMPLE)
    assert why(network) is None
    assert why(network, CONFIG.replace(batch_size=17)).startswith("its 1.1e+05 multiply-adds for a batch")
    assert why(network, CONFIG.replace(batch_size=17), device=torch.device("cuda")) is None
    monkeypatch.setattr(together, "SLOWER_FROM", 16 * ONE_SAMPLE - 1)
    assert why(network) is not None


def test_a_network_of_a_large_count_is_trained_one_by_one_and_a_small_one_in_a_stack():
    small, large = convolutional(), nn.Sequential(nn.Conv2d(2, 512, 3), nn.Conv2d(512, 100, 3), nn.Flatten())
    assert why(small) is None
    assert "1.2e+08 multiply-adds" in why(large)


def test_attention_which_torch_takes_apart_is_trained_one_by_one_without_a_word(recwarn):
    warnings.simplefilter("always")
    before = list(warnings.filters)
    assert "no rule for its operation aten::_scaled_dot_product" in why(Attending())
    assert list(warnings.filters) == before
    train(CONFIG.replace(layer="into"), data=images(), network=Attending, device="cpu")
    assert not [found for found in recwarn if "performance" in str(found.message)]


@pytest.mark.usefixtures("unchecked")
def test_both_ways_agree_and_the_choice_is_that_of_a_run_alone(monkeypatch):
    configs = [CONFIG.replace(sigma=sigma, seed=seed) for sigma in (0.5, 4.0) for seed in (0, 1)]
    stacked = train(configs, data=images(), network=convolutional, device="cpu")
    assert stacked.alone is None
    monkeypatch.setattr(together, "SLOWER_FROM", 10)
    apart = train(configs, data=images(), network=convolutional, device="cpu")
    assert max(largest_difference(stacked, run, apart, run) for run in range(4)) < 1e-5
    for order in ([2], [3, 2], [2, 0, 1]):
        found = train([configs[run] for run in order], data=images(), network=convolutional, device="cpu")
        assert found.alone == apart.alone
        assert largest_difference(found, order.index(2), apart, 2) == 0


def test_asking_leaves_network_generators_and_hooks_as_they_were():
    network = convolutional()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    why(network)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not nn.modules.module._global_forward_hooks
    assert all(parameter.grad is None for parameter in network.parameters())


def test_operations_are_counted_by_hand_and_change_nothing():
    """Two convolutions of 3 x 3 on 8 x 8 pixels and a readout; batch norm and generators are left as they were."""
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 6, 3, padding=1))
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(384, 10)).train()
    before, drawn = {name: b.clone() for name, b in network.named_buffers()}, torch.get_rng_state()
    found = operations(network, torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    by_hand = [5 * 64 * 4 * 9, 5 * 64 * 6 * 4 * 9, 5 * 3840]
    assert (found.total, found.largest) == (sum(by_hand), max(by_hand))
    assert all(module.training for module in network.modules()) and torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(b, before[name]) for name, b in network.named_buffers())


def test_the_largest_product_is_known_where_torch_counts_none():
    """A convolution is more than its weights, once at each place; a recurrent layer, fused, at least as many."""
    recurrent = nn.LSTM(4, 50, batch_first=True)
    assert operations(recurrent, torch.zeros(2, 5, 4)).total == 0
    assert largest_product(recurrent, torch.zeros(2, 5, 4)) == 4 * 50 * 50
    assert largest_product(nn.Conv2d(1, 4, 3), torch.zeros(2, 1, 10, 10)) == 64 * 4 * 9
    assert largest_product(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7)), torch.zeros(2, 3)) == 35
    assert largest_product(nn.Flatten(), torch.zeros(2, 3)) == 0
