"""Catches: a schedule that compounds its factors, forgets where it was, or changes the layers unlike."""

import pytest
import torch
from torch import nn

from nin import inject
from nin.model.schedule import SigmaSchedule


def noisy_network(layers="0", sigma=2.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return inject(model, layers, sigma=sigma, generator=torch.Generator().manual_seed(1))


def decay(t):
    return 0.5**t


def test_sigma_is_the_factor_times_the_first_sigma():
    noisy = noisy_network()
    schedule = SigmaSchedule(noisy, lambda t: 1 / (1 + t))
    found = [noisy.sigma]
    for _ in range(3):
        schedule.step()
        found.append(noisy.sigma)
    assert found == pytest.approx([2, 1, 2 / 3, 0.5], rel=1e-15)
    assert noisy.draw(10_000).std().item() == pytest.approx(0.5, rel=0.05)
    SigmaSchedule(quiet := noisy_network(), lambda t: float(t > 0))
    assert quiet.sigma == 0  # from the start, as of a learning rate


def test_layers_are_scaled_alike():
    noisy = noisy_network(["0", "2"], {"0": 2.0, "2": 0.5})
    schedule = SigmaSchedule(noisy, decay)
    schedule.step()
    assert noisy.sigma == {"0": 1.0, "2": 0.25}


def losses(noisy, schedule, steps):
    x = torch.ones(4, 3, dtype=torch.float64)
    found = []
    for _ in range(steps):
        found.append(noisy(x).square().mean().item())
        schedule.step()
    return found


def test_a_run_that_is_saved_and_loaded_continues_exactly():
    noisy = noisy_network()
    schedule = SigmaSchedule(noisy, decay)
    losses(noisy, schedule, 3)
    saved = {"noisy": noisy.state_dict(), "schedule": schedule.state_dict()}
    saved = {name: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in s.items()}
             for name, s in saved.items()}  # fmt: skip
    expected = losses(noisy, schedule, 3)
    other = noisy_network(sigma=7.0)
    resumed = SigmaSchedule(other, decay)
    other.load_state_dict(saved["noisy"])
    resumed.load_state_dict(saved["schedule"])
    assert other.sigma == 2.0 / 8 and losses(other, resumed, 3) == expected


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"factor\(0\)=-1.0 must be a finite number >= 0"):
        SigmaSchedule(noisy_network(), lambda t: -1.0)
    schedule = SigmaSchedule(noisy_network(), lambda t: float("nan") if t else 1.0)
    with pytest.raises(ValueError, match=r"factor\(1\)=nan"):
        schedule.step()
    state = SigmaSchedule(noisy_network(["0", "2"]), decay).state_dict()
    with pytest.raises(ValueError, match="sigma.0. of 2 layers, and the network has nodes at 0; inject"):
        SigmaSchedule(noisy_network(), decay).load_state_dict(state)
