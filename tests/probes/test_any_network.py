"""Catches: a number that cannot be known, because samples see each other, passes differ, or a loss is not a mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin.model.losses import cross_entropy
from nin.probes.curvature import extremes, local_hessian, sharpness
from nin.probes.response import kernel, kernel_trace, response
from nin.probes.response.fragility import worst_neuron


def values(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(network):
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return network.double()


class Restless(nn.Module):
    """Draws in eval mode, in a module or between modules."""

    def __init__(self, where):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 8), AlwaysDropout(), nn.Linear(8, 2)
        self.where = where

    def forward(self, x):
        h = self.first(x)
        h = self.drop(h) if self.where == "module" else h + torch.randn_like(h)
        return self.last(h)


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


@pytest.mark.parametrize(("where", "named"), [("module", "its module 'drop'"), ("between", "model draws")])
def test_a_network_that_draws_in_eval_mode_is_refused(where, named):
    model, x, y = seeded(Restless(where)), values(6, 3), torch.arange(6) % 2
    state = torch.get_rng_state()
    for probe in (
        lambda: kernel(model, x),
        lambda: kernel_trace(model, x),
        lambda: local_hessian(model, "first", x, y, loss=cross_entropy),
        lambda: sharpness(model, x, y, loss=cross_entropy),
    ):
        with pytest.raises(ValueError, match=f"{named}.*draws random numbers in eval mode|{named} random numbers"):
            probe()
    assert torch.equal(state, torch.get_rng_state())


def test_samples_that_see_each_other_are_refused():
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    model = seeded(nn.Sequential(nn.Linear(3, 8), norm, nn.ReLU(), nn.Linear(8, 2)))
    x, y = values(6, 3), torch.arange(6) % 2
    for probe in (
        lambda: kernel(model, x),
        lambda: local_hessian(model, "0", x, y, loss=cross_entropy, batch_size=3),
    ):
        with pytest.raises(ValueError, match=r"its module '1' \(BatchNorm1d\) mixes the samples of a batch"):
            probe()
    whole = local_hessian(model, "3", x, y, loss=cross_entropy)  # the mean over one batch is defined
    assert whole.isfinite().all()


def flat_hessian(model, x, y, parameters):
    """The Hessian of the mean loss by autograd, row by row."""
    gradient = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    rows = [torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in flat]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_sharpness_with_batch_norm_is_that_of_evaluation_or_of_training(mode):
    model = seeded(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2)))
    x, y = values(12, 3), torch.arange(12) % 2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sharpness(model, x, y, loss=cross_entropy, batch_norm=mode).lam
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    twin = model.train(mode == "batch")
    expected = torch.linalg.eigvalsh(flat_hessian(twin, x, y, list(twin.parameters())))[-1].item()
    assert found == pytest.approx(expected, rel=1e-8)


def test_sharpness_counts_trainable_parameters_and_takes_batches():
    model = seeded(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)))
    x, y = values(10, 3), torch.arange(10) % 2
    everything = sharpness(model, x, y, loss=cross_entropy)
    assert sharpness(model, x, y, loss=cross_entropy, batch_size=3).lam == pytest.approx(everything.lam, rel=1e-10)
    model[0].requires_grad_(False)
    last = sharpness(model, x, y, loss=cross_entropy)
    expected = torch.linalg.eigvalsh(flat_hessian(model, x, y, list(model[2].parameters())))[-1].item()
    assert last.lam == pytest.approx(expected, rel=1e-8) and len(last.vector) == 12
    assert sharpness(model, x, y, loss=cross_entropy, frozen=True).lam == pytest.approx(everything.lam, rel=1e-10)


def test_sharpness_of_a_network_with_two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x, gate):
            return self.linear(x * gate)

    model, x, gate, y = seeded(Two()), values(8, 3), values(8, 3, seed=1), torch.arange(8) % 2
    expected = sharpness(model.linear, x * gate, y, loss=cross_entropy).lam
    for batch_size in (None, 3):
        found = sharpness(model, x, y, gate, loss=cross_entropy, batch_size=batch_size).lam
        assert found == pytest.approx(expected, rel=1e-10)


def test_sharpness_through_an_lstm():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    model, x, y = seeded(Last()).float(), values(6, 4, 2).float(), torch.arange(6) % 2
    enabled = torch.backends.mkldnn.enabled
    found = sharpness(model, x, y, loss=cross_entropy).lam
    twin = seeded(Last())
    expected = torch.linalg.eigvalsh(flat_hessian(twin, x.double(), y, list(twin.parameters())))[-1].item()
    assert found == pytest.approx(expected, rel=1e-4) and torch.backends.mkldnn.enabled is enabled


def test_batches_of_a_loss_that_ignores_targets_are_refused_and_losses_by_sample_are_not():
    model, x = seeded(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))), values(8, 3)
    y = torch.tensor([0, 1, -100, -100, 0, 1, 1, 0])
    for probe in (
        lambda loss: local_hessian(model, "0", x, y, loss=loss, batch_size=3),
        lambda loss: torch.tensor(sharpness(model, x, y, loss=loss, batch_size=3).lam),
    ):
        with pytest.raises(ValueError, match="it is not a mean over samples"):
            probe(F.cross_entropy)
    weighted = lambda f, y: F.cross_entropy(f, y, reduction="none") * len(x) / 6  # noqa: E731 - of 8, 6 count
    expected = local_hessian(model, "0", x, y, loss=F.cross_entropy)
    torch.testing.assert_close(local_hessian(model, "0", x, y, loss=weighted, batch_size=3), expected)


def test_what_has_no_curvature_is_named():
    model, x, y = seeded(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))), values(6, 3), torch.arange(6) % 2
    with pytest.raises(ValueError, match="x has 0 and y has 0 samples"):
        sharpness(model, x[:0], y[:0], loss=cross_entropy)
    with pytest.raises(ValueError, match="torch.bfloat16, too coarse for eigenvalues"):
        sharpness(seeded(nn.Sequential(nn.Linear(3, 2))).bfloat16(), x.bfloat16(), y, loss=cross_entropy)
    one = seeded(nn.Sequential(nn.Linear(1, 1, bias=False)))
    square = lambda f, y: f.square().mean()  # noqa: E731
    assert sharpness(one, x[:, :1], y, loss=square).lam == pytest.approx(2 * x[:, 0].square().mean().item())
    flat = lambda f, y: f.mean()  # noqa: E731
    assert sharpness(nn.Sequential(nn.Linear(3, 2)).double(), x, y, loss=flat).lam == 0
    model[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"parameter '1.weight' is not finite: the network has diverged"):
        sharpness(model, x, y, loss=cross_entropy)
    with pytest.raises(ValueError, match=r"parameter '1.weight' is not finite"):
        local_hessian(model, "0", x, y, loss=cross_entropy)


def test_extremes_where_the_bottom_is_exactly_zero():
    model, x, y = (
        seeded(nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 2))),
        values(4, 3),
        torch.arange(4) % 2,
    )
    hessian = torch.linalg.eigvalsh(local_hessian(model, "0", x, y, loss=cross_entropy))
    top, bottom = extremes(model, "0", x, y, loss=cross_entropy, count=2)
    assert [mode.lam for mode in top] == pytest.approx(hessian[[-1, -2]].tolist(), rel=1e-9)
    assert [mode.lam for mode in bottom] == pytest.approx(hessian[:2].tolist(), abs=1e-9 * hessian[-1].item())


def test_old_weight_norm_is_named():
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2))).double()
    model(values(2, 3))
    with pytest.raises(ValueError, match="its module '0' computes a weight in a hook"):
        response(model, values(1, 3), torch.zeros(1, 2).double(), values(1, 3), loss=F.mse_loss,
                 optimizer=torch.optim.SGD(model.parameters(), lr=0.1))  # fmt: skip


def test_worst_neuron_of_tokens_is_a_neuron():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.act, self.head = nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.act(self.embed(x)).mean(1))

    model, x = seeded(Tokens()), values(30, 4, 2)
    with torch.no_grad():
        y = model(x).argmax(1)
        expected = []
        for neuron in range(3):
            h = torch.tanh(model.embed(x))
            kept = h * (torch.arange(3) != neuron)
            expected.append((model.head(kept.mean(1)).argmax(1) != y).double().mean().item())
    assert worst_neuron(model, x, y, layer="act", axis=2) == pytest.approx(max(expected))
    with pytest.raises(ValueError, match=r"layer='act' gives \(1, 4, 3\), whose neurons could be"):
        worst_neuron(model, x, y, layer="act")
