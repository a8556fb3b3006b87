"""Catches a kernel that is not J J^T, a response that is not that of a step, and a probe that leaves traces."""

import copy
import math
import time
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin.probes.response import kernel, kernel_by_layer, kernel_sketch, kernel_trace, response
from nin.probes.response.along_a_run import COLUMNS, ResponseLaw, _distances
from nin.probes.response.features import effective_rank, live_units, participation
from nin.probes.response.fragility import error_rate, flips, margin, predictions, weight_noise, worst_neuron
from nin.theory.response import EXPONENTS, constant_kernel, relu_kernel, summed_response_gain
from nin.training.schedule import log_spaced
from studies.statistics import loglog_slope


def mlp(*sizes, activation=nn.Tanh, seed=0):
    torch.manual_seed(seed)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1]).double()


def convolutional():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(48, 2)
    ).double()


def mse(outputs, y):
    return 0.5 * (outputs - y).square().mean()


def brute_jacobian(model, x):
    """(n, C, P), one backward pass per output."""
    model = copy.deepcopy(model).eval()
    rows = []
    for sample in x:
        outputs = model(sample[None]).flatten()
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = [torch.autograd.grad(o, parameters, retain_graph=True) for o in outputs]
        rows.append(torch.stack([torch.cat([g.flatten() for g in part]) for part in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize(
    ("model", "shape"), [(mlp(4, 5, 1), (4,)), (mlp(3, 6, 4, 3), (3,)), (convolutional(), (1, 6, 6))]
)
def test_kernel_is_that_of_the_jacobian(model, shape, chunk):
    x, x2 = torch.randn(7, *shape, dtype=torch.float64), torch.randn(4, *shape, dtype=torch.float64)
    J, J2 = brute_jacobian(model, x), brute_jacobian(model, x2)
    torch.testing.assert_close(kernel(model, x, chunk=chunk), torch.einsum("icp,jcp->ij", J, J), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        kernel(model, x, x2, chunk=chunk), torch.einsum("icp,jcp->ij", J, J2), rtol=1e-12, atol=1e-12
    )
    full = kernel(model, x, x2, outputs="full", chunk=chunk)
    torch.testing.assert_close(full, torch.einsum("icp,jdp->icjd", J, J2), rtol=1e-12, atol=1e-12)
    layers = kernel_by_layer(model, x, chunk=chunk)
    torch.testing.assert_close(sum(layers.values()), kernel(model, x), rtol=1e-12, atol=1e-12)
    assert list(layers) == [n for n, m in model.named_modules() if n and list(m.parameters(recurse=False))]
    whole = kernel(model, x)
    assert torch.linalg.eigvalsh(whole).min() > -1e-10 * whole.trace()
    torch.testing.assert_close(whole, whole.T, rtol=1e-12, atol=1e-12)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


@pytest.mark.parametrize(("kind", "features"), [(Recurrent, 5), (Attending, 8)])
def test_networks_that_are_hard_to_batch(kind, features):
    torch.manual_seed(0)
    model, x = kind().double(), torch.randn(3, 6, features, dtype=torch.float64)
    J = brute_jacobian(model, x)
    torch.testing.assert_close(kernel(model, x), torch.einsum("icp,jcp->ij", J, J), rtol=1e-10, atol=1e-12)
    if kind is Attending:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        y = torch.zeros(1, 2, dtype=torch.float64)
        found = response(model, x[:1], y, x, loss=mse, optimizer=optimizer)
        assert found.nonlinearity < 1e-4
        assert kernel_trace(model, x, probes=4).value > 0


def test_frozen_parameters_do_not_count():
    model = mlp(4, 5, 1)
    layers = kernel_by_layer(model, torch.randn(3, 4, dtype=torch.float64))
    model[0].requires_grad_(False)
    torch.testing.assert_close(
        kernel(model, x := torch.ones(3, 4, dtype=torch.float64)), kernel_by_layer(model, x)["2"]
    )
    assert list(layers) == ["0", "2"]


@pytest.mark.slow
def test_estimates_cover_the_kernel():
    model, x = mlp(5, 32, 1), torch.randn(6, 5, dtype=torch.float64)
    exact = kernel(model, x)
    trace = kernel_trace(model, x, probes=400)
    assert abs(trace.value - exact.trace()) < 4 * trace.stderr < 0.4 * exact.trace()
    sketch = kernel_sketch(model, x, probes=2000)
    assert ((sketch.value - exact).abs() < 4.5 * sketch.stderr).all()
    diagonal = math.sqrt(2 / 2000)
    assert (sketch.stderr.diagonal() / exact.diagonal()).mean().item() == pytest.approx(diagonal, rel=0.3)


@pytest.mark.parametrize(
    ("angle", "tolerance"), [(0, 0.05), (0.3, 0.05), (math.pi / 2, 0.05), (2.5, 0.05), (math.pi, 0.05)]
)
def test_wide_relu_has_the_infinite_kernel(angle, tolerance):
    """Prediction 3: H = 4096, weights N(0, 1) scaled by 1 / sqrt(fan-in), no biases."""
    x = torch.zeros(2, 8, dtype=torch.float64)
    x[0, 0], x[1, 0], x[1, 1] = 1, math.cos(angle), math.sin(angle)
    x *= math.sqrt(8)

    def theta(width, seed):
        generator = torch.Generator().manual_seed(seed)
        w, v = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((8, width), (width, 1)))

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.w, self.v = nn.Parameter(w), nn.Parameter(v)

            def forward(self, x):
                return (x @ self.w / math.sqrt(8)).relu() @ self.v / math.sqrt(width)

        return kernel(Net(), x)[0, 1].item()

    assert theta(4096, 0) == pytest.approx(relu_kernel(angle).item(), abs=tolerance)


def test_one_step_law():
    """Prediction 1: linear = -eta Theta l', to 1e-12; |exact - linear| / |linear| ~ eta."""
    model = mlp(4, 16, 1)
    x, probe = torch.randn(1, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    y = torch.ones(1, 1, dtype=torch.float64)
    etas, off = [1e-3, 1e-2, 1e-1], []
    for eta in etas:
        found = response(model, x, y, probe, loss=mse, optimizer=torch.optim.SGD(model.parameters(), lr=eta))
        predicted = -eta * kernel(model, probe, x) * (model(x) - y).detach()
        torch.testing.assert_close(found.linear, predicted, rtol=1e-12, atol=1e-14)
        off.append(found.nonlinearity)
    assert loglog_slope(np.array(etas), np.array(off)).value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
        lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    ],
)
def test_response_is_that_of_the_next_step_and_leaves_no_trace(make):
    model, x, y = mlp(4, 6, 2), torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    model.train()
    model[1].eval()
    optimizer = make(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = mse(model(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    gradients = [p.grad.clone() for p in model.parameters()]
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    random, modes = torch.random.get_rng_state(), [m.training for m in model.modules()]
    found = response(model, x[:1], y[:1], x, loss=mse, optimizer=optimizer)
    after = model.state_dict(), optimizer.state_dict()
    assert str(before) == str(after)
    assert torch.equal(random, torch.random.get_rng_state()) and modes == [m.training for m in model.modules()]
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))
    quiet = model(x).detach()

    def one():
        optimizer.zero_grad()
        loss = mse(model(x[:1]), y[:1])
        loss.backward()
        return loss

    optimizer.step(one)
    torch.testing.assert_close(found.exact, model(x).detach() - quiet, rtol=1e-12, atol=1e-14)


def test_adams_first_step_is_the_sign_of_the_gradient():
    """Prediction 10: R(x' | x') = -lr sign(l') |grad f|_1, to first order."""
    model, x, y = mlp(4, 6, 1), torch.randn(1, 4, dtype=torch.float64), torch.full((1, 1), 5.0, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=1e-15)
    found = response(model, x, y, x, loss=mse, optimizer=optimizer)
    size = brute_jacobian(model, x).abs().sum().item()
    assert found.linear.item() == pytest.approx(1e-4 * size, rel=1e-6)


def test_momentums_summed_response():
    """Prediction 10: one gradient, then none: the summed linear response is 1 / (1 - beta) times the first."""
    model = mlp(3, 5, 1)
    x, y = torch.randn(1, 3, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    J = brute_jacobian(model, x)[0, 0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    first = response(model, x, y, x, loss=mse, optimizer=optimizer).linear.item()
    start = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    mse(model(x), y).backward()
    for _ in range(400):
        optimizer.step()
        for p in model.parameters():
            p.grad.zero_()
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - start
    assert (J @ moved).item() / first == pytest.approx(summed_response_gain(0.9), rel=1e-3)


def test_batch_norm_and_dropout_are_in_eval_mode():
    model, x = convolutional(), torch.randn(4, 1, 6, 6, dtype=torch.float64)
    model.train()
    state = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first, second = (
        response(model, x[:1], torch.zeros(1, 2, dtype=torch.float64), x, loss=mse, optimizer=optimizer)
        for _ in range(2)
    )
    assert torch.equal(first.exact, second.exact) and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": lambda f, y: (f - y) ** 2}, "loss returned .1, 1.; it must return a scalar"),
        (
            {"probe": torch.zeros(2, 5, dtype=torch.float64)},
            r"probe of shape \(2, 5\) must have samples like x, \(4,\)",
        ),
        (
            {"optimizer": torch.optim.SGD(mlp(4, 3, 1).parameters(), lr=0.1)},
            "holds 4 parameters, of which 4 are not the model's",
        ),
        ({"x": torch.full((1, 4), torch.inf, dtype=torch.float64)}, "gradient of '0.weight' is not finite"),
    ],
)
def test_bad_input(change, message):
    model, x = mlp(4, 3, 1), torch.ones(1, 4, dtype=torch.float64)
    arguments = {
        "x": x,
        "y": x[:, :1],
        "probe": x,
        "loss": mse,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    arguments |= change
    with pytest.raises(ValueError, match=message):
        response(model, arguments.pop("x"), arguments.pop("y"), arguments.pop("probe"), **arguments)


def test_kernels_bad_input():
    model, x = mlp(4, 3, 1), torch.ones(2, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="outputs='diagonal' is unknown"):
        kernel(model, x, outputs="diagonal")
    with pytest.raises(ValueError, match="x2 of shape"):
        kernel(model, x, x[:, :3])
    with pytest.raises(ValueError, match="chunk=0 must be"):
        kernel(model, x, chunk=0)
    with pytest.raises(ValueError, match="no trainable parameters"):
        kernel(nn.Flatten(), x)
    with pytest.raises(ValueError, match="model returned tuple, not a tensor"):
        kernel(nn.LSTM(4, 2, batch_first=True, dtype=torch.float64), x[:, None])


@pytest.mark.parametrize("loss", ["ce", "sigmoid_mse"])
def test_constant_kernel_ages(loss):
    """Prediction 5: slopes over the last two decades."""
    found = constant_kernel(loss, K=1.0, eta=0.5, steps=200_000)
    late = slice(2000, None, 100)
    for quantity, values in (("logit", found.logit), ("p", found.p), ("error", found.error)):
        slope = loglog_slope(found.step[late], values[late]).value
        assert slope == pytest.approx(EXPONENTS[loss][quantity], abs=0.03), quantity


def test_constant_kernel_of_mse_is_exponential():
    found = constant_kernel("mse", K=2.0, eta=0.01, steps=500)
    rate = np.polyfit(found.step, np.log(found.logit), 1)[0]
    assert rate == pytest.approx(math.log(1 - 0.02), abs=1e-4)


@pytest.mark.parametrize("angle", [-0.1, 3.2, float("nan")])
def test_angles_are_checked(angle):
    with pytest.raises(ValueError, match="must lie between 0 and pi"):
        relu_kernel(angle)


def test_effective_rank_and_its_kin():
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(50, 1, generator=generator) * torch.ones(1, 8)
    assert effective_rank(line + 3) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.cat([torch.eye(8), -torch.eye(8)])) == pytest.approx(8, rel=1e-12)
    assert effective_rank(torch.ones(5, 3)) == 0 == participation(torch.ones(5, 3)) == live_units(torch.ones(5, 3))
    assert participation(line) == pytest.approx(1, rel=1e-6)
    one = torch.zeros(50, 8)
    one[:, 3] = line[:, 0]
    assert participation(one) == pytest.approx(1 / 8) and live_units(one) == 1 / 8


def test_fragility():
    """A linear classifier: flips by the normal distribution, the margin in closed form, one decisive neuron."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[1].weight.copy_(torch.tensor([[2.0, 0.1]]))
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0])
    assert error_rate(model(x), y) == 0
    generator = torch.Generator().manual_seed(0)
    size = math.sqrt(4.01)
    expected = np.mean([0.5 * math.erfc(f / (size * 1.5 * math.sqrt(2))) for f in (2.1, 1.9)])
    assert flips(model, x, noise=1.5, draws=4000, generator=generator) == pytest.approx(expected, abs=0.02)
    assert margin(model, x) == pytest.approx(1.9 / 2.1)  # the lower median
    assert worst_neuron(model, x, y, layer="0") == 0.5
    assert weight_noise(model, x, y, strength=0, draws=2, generator=generator) == 0
    assert 0.1 < weight_noise(model, x, y, strength=3, draws=200, generator=generator) < 0.6
    assert predictions(torch.tensor([[1.0, 3.0], [2.0, 0.0]])).tolist() == [1, 0]
    with pytest.raises(ValueError, match="layer='9' is not in the model"):
        worst_neuron(model, x, y, layer="9")


def test_response_law_on_a_users_loop():
    torch.manual_seed(0)
    model = mlp(6, 12, 1)
    x = 2.0 * torch.randint(2, (16, 6)).double() - 1
    y = x[:, :1].clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    law = ResponseLaw(model, x, y, loss=mse, optimizer=optimizer, features=["1"])
    due = log_spaced(200, 5)
    assert due[0] == 0 and due[-1] == 200
    for step in range(201):
        if step in due:
            law.read(step)
        optimizer.zero_grad()
        mse(model(x), y).backward()
        optimizer.step()
    frame = law.frame()
    assert list(frame.columns) == COLUMNS and frame["step"].unique().tolist() == due
    values = frame[frame["distance"].isna()].pivot_table(index="step", columns=["quantity", "layer"], values="value")
    assert values.loc[0, ("drift", "")] == 0 < values.loc[200, ("drift", "")]
    assert values["share"].sum(axis=1).to_numpy() == pytest.approx(1, rel=1e-12)
    assert values.loc[200, ("response", "")] < values.loc[0, ("response", "")]
    start = frame[(frame["step"] == 0) & (frame["quantity"] == "kernel_at")]
    assert set(start["distance"]) <= set(range(7)) and start["value"].iloc[0] > start["value"].iloc[-1]
    now = ResponseLaw(model, x, y, loss=mse, optimizer=optimizer).read(0).set_index(["quantity", "layer"])["value"]
    assert now["self_kernel", ""] == pytest.approx(kernel(model, x).diagonal().mean().item())
    assert now["stability", ""] == pytest.approx(0.05 * now["self_kernel", ""])
    with pytest.raises(ValueError, match="give the same number, at least two"):
        ResponseLaw(model, x, y[:3], loss=mse, optimizer=optimizer)


def test_response_law_of_a_classifier():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(20, 5), torch.arange(20) % 3
    optimizer = torch.optim.Adam(model.parameters())
    frame = ResponseLaw(model, x, y, loss=F.cross_entropy, optimizer=optimizer, responders=4).read(0)
    assert frame.loc[frame["quantity"] == "kernel_at", "distance"].nunique() == 8
    assert frame["value"].notna().all()


def test_distances_of_large_inputs_take_no_time_and_no_memory():
    """Of 16 images of 224 x 224 all differences together take 290 MB; the numbers are those of all differences."""
    x = torch.randn(16, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(1).double()
    i, j = torch.triu_indices(16, 16, 1)
    assert np.array_equal(_distances(flat), (flat[i] - flat[j]).norm(dim=1).numpy())
    begin = time.process_time()
    _distances(flat)
    assert time.process_time() - begin < 2.0


class Branching(nn.Module):
    """Saves a product where nothing is masked, as attention does: torch.vmap cannot ask for that."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        mask = x > -0.7
        return self.head(self.first(x if bool(mask.all()) else x * mask).tanh())


def test_the_kernel_of_a_network_that_branches_on_values():
    torch.manual_seed(0)
    network, x = Branching().double(), torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    parameters = list(network.parameters())
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(output, parameters, materialize_grads=True, retain_graph=True)]
        )
        for sample in x
        for output in network(sample[None])[0]
    ]
    expected = (torch.stack(rows) @ torch.stack(rows).T).view(2, 2, 2, 2)
    torch.testing.assert_close(kernel(network, x, outputs="full"), expected, rtol=1e-12, atol=0)


class Outdated(nn.Linear):
    """Warns as libraries do of what they will change."""

    def forward(self, x):
        warnings.warn("this will change", FutureWarning, stacklevel=2)
        return super().forward(x)


def test_the_kernel_of_a_network_that_warns():
    torch.manual_seed(0)
    network, x = Outdated(3, 2).double(), torch.randn(4, 3, dtype=torch.float64)
    expected = 2 * (x @ x.T + 1)
    with pytest.warns(FutureWarning):
        torch.testing.assert_close(kernel(network, x), expected, rtol=1e-12, atol=0)
