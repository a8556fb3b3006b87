"""Catches: an eigenvalue that is not the decay rate of plain noise injection weights."""

import pytest
import torch

from nin import RunConfig, load_data
from nin.probes.curvature.decay import from_decay
from studies.curvature_probe.measure import linear_net, trained_network


def decaying(hessian, *, eta=0.1, sigma=2.0, nodes=3, steps=40, noise=0.0):
    """W(t+1) = W(t) - eta sigma^2 W(t) H, and a random walk."""
    generator = torch.Generator().manual_seed(0)
    history = [torch.randn(nodes, len(hessian), dtype=torch.float64, generator=generator)]
    for _ in range(steps):
        step = history[-1] @ hessian
        step = step + noise * torch.randn(step.shape, dtype=torch.float64, generator=generator)
        history.append(history[-1] - eta * sigma**2 * step)
    return torch.stack(history)


def test_of_rank_one_it_is_exact():
    """One decaying mode, as in the linear net: the direction and the eigenvalue to rounding, single node or several."""
    v = torch.tensor([3.0, -4.0, 0.0, 12.0], dtype=torch.float64) / 13
    for nodes in (1, 3):
        found = from_decay(decaying(0.7 * torch.outer(v, v), nodes=nodes), eta=0.1, sigma=2.0)
        assert found.lam == pytest.approx(0.7, rel=1e-12)
        assert found.stderr < 1e-12
        torch.testing.assert_close(found.direction, v, rtol=1e-12, atol=1e-12)
    assert from_decay(decaying(0.7 * torch.outer(v, v), nodes=1)[:, 0], eta=0.1, sigma=2.0).lam == pytest.approx(0.7)


def test_several_modes_are_averaged_from_below():
    """Without a direction it stays below the largest eigenvalue; given the mode, it is exact."""
    hessian = torch.diag(torch.tensor([0.9, 0.5, 0.3, 0.1, 0.0], dtype=torch.float64))
    history = decaying(hessian, nodes=5)
    assert 0.5 < from_decay(history, eta=0.1, sigma=2.0).lam < 0.9
    top = torch.eye(5, dtype=torch.float64)[0]
    assert from_decay(history, eta=0.1, sigma=2.0, direction=-3 * top).lam == pytest.approx(0.9, rel=1e-12)


def test_error_bar_covers_the_noise():
    v = torch.eye(6, dtype=torch.float64)[2]
    found = from_decay(decaying(0.4 * torch.outer(v, v), noise=0.05), eta=0.1, sigma=2.0, direction=v)
    assert found.stderr == pytest.approx(0.05 / decaying(0.4 * torch.outer(v, v))[:-1, :, 2].norm().item(), rel=0.3)
    assert abs(found.lam - 0.4) < 3 * found.stderr


@pytest.mark.slow
def test_linear_net_within_two_percent():
    """<H> = v v^T / N in closed form, N = 2048, three seeds; the weights of the node small beside the readout."""
    table = linear_net(range(3))
    assert len(table) == 3
    assert table["read"].to_numpy() == pytest.approx(table["exact"].to_numpy(), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_smooth_network_within_a_quarter(activation):
    """On the digits, after 300 steps: the projection on the top mode decays with its eigenvalue."""
    (row,) = trained_network(RunConfig(activation=activation, lr=0.1), load_data("digits"), [0]).itertuples()
    assert row.read == pytest.approx(row.exact, rel=0.25)
    assert row.stderr < 0.25 * row.exact
    assert row.blind < 1.25 * row.exact


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (torch.ones(2, 1, 3), "3 steps or more"),
        (torch.ones(5), "must be"),
        (torch.ones(5, 1, 3), "never moves"),
        (torch.full((5, 1, 3), torch.nan), "not finite"),
    ],
)
def test_bad_history_is_named(history, message):
    with pytest.raises(ValueError, match=message):
        from_decay(history, eta=0.1, sigma=1.0)


@pytest.mark.parametrize("name", ["eta", "sigma"])
def test_rates_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        from_decay(torch.rand(5, 1, 3), **({"eta": 0.1, "sigma": 1.0} | {name: 0}))
