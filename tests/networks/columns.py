"""The columns of docs/networks.md: each asks one probe and an independent computation, and gives the relative error."""

import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import naive
import torch
from kinds import Inputs, Kind, count_of, rows_of
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nin.model import injection
from nin.model.evaluating import evaluating
from nin.probes import memorisation, prediction
from nin.probes.curvature import averaged, critical, hessian, thermometer
from nin.probes.curvature.trials import Samples, Trials

ETA, SIGMA = 0.1, 0.5
STEPS = tuple(10 ** (0.25 * k) for k in range(-12, 33))  # learning rates, .001 to 1e8
AMPLITUDES = {
    1e-6: 1e-4,
    1e-3: 2e-4,
    5e-3: 0.03,
    5e-2: 0.1,
}  # by tolerance: the bias is their square, the rounding its inverse


@dataclass(frozen=True)
class Case:
    """A kind, its network, and the twin that the independent computation uses (float64, nothing around it).

    `ask` calls the probe, and keeps the seconds that it took.
    """

    kind: Kind
    network: nn.Module
    twin: nn.Module
    seconds: list[float] = field(default_factory=list)

    @property
    def x(self) -> Inputs:
        """The inputs of the twin."""
        return self.kind.exact

    def given(self, probe: Callable[..., Any]) -> dict[str, Any]:
        """The `forward` of the kind, for a probe that takes one."""
        takes = self.kind.forward is not None and "forward" in inspect.signature(probe).parameters
        return {"forward": self.kind.forward} if takes else {}

    def ask(self, probe: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a probe, and keep how long it took."""
        options |= self.given(probe)
        start = time.process_time()
        try:
            return probe(*args, **options)
        finally:
            self.seconds.append(time.process_time() - start)

    def noisy(self, nodes: int = 1) -> nn.Module:
        """The network with nodes in the layer of the kind."""
        kind = self.kind
        example = kind.x if kind.place(self.twin) == "input" else None
        return injection.inject(
            self.network, kind.layer, sigma=SIGMA, nodes=nodes, at=kind.at, example=example, calls=kind.calls,
            batch_axis=kind.axis or None, generator=seeded(3),
        )  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def apart(found: Any, expected: Any) -> float:
    """max |found - expected| / max |expected|; where all that is expected is 0, nothing would be compared."""
    found, expected = (
        part.detach().double() if isinstance(part, Tensor) else torch.tensor(part, dtype=torch.float64)
        for part in (found, expected)
    )
    if found.shape != expected.shape:
        raise AssertionError(f"found has shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    if not expected.any():
        raise AssertionError("all that is expected is 0, beside which there is no relative error")
    return float((found - expected).abs().max() / expected.abs().max())


def noisy_pass(kind: Kind, noisy: nn.Module) -> Tensor:
    """Outputs under noise, and a backward pass (not autograd.grad, which reentrant checkpoints refuse)."""
    outputs = kind.call(noisy, kind.x)
    kind.loss(outputs, kind.y).backward()
    return outputs


def inject(case: Case) -> float:
    """The outputs under the noise that is drawn, and the gradients in W_NI and in all parameters."""
    kind = case.kind
    noisy = case.noisy(nodes=2)
    trained = [noisy.niw, *(p for p in noisy.network.parameters() if p.requires_grad)]
    noisy.generator.manual_seed(5)
    with evaluating(noisy.network):  # no dropout; the wrapper itself is in training mode and draws
        outputs = case.ask(noisy_pass, kind, noisy)
        niw, *rest = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in trained]
        noisy.zero_grad()
        with torch.no_grad():
            kind.call(noisy, kind.x)  # where a checkpoint had needed it, a hook stays until the next call
    eps = SIGMA * torch.randn(count_of(kind.x), 2, dtype=torch.float64, generator=seeded(5))
    weights = noisy.niw.detach().double()
    shift = torch.einsum("nm,m...->n...", eps, weights)
    loss = naive.loss(kind, case.twin, case.x, kind.y, shift)
    errors = [
        apart(outputs, naive.outputs(kind, case.twin, case.x, shift)),
        apart(niw, naive.pull(kind, case.twin, case.x, kind.y, eps, weights)),
        apart(torch.cat([part.flatten() for part in rest]), naive.flat_gradient(loss, case.twin)),
    ]
    return max(errors)


def local_hessian(case: Case) -> float:
    """Against differences of the gradient in a shift, column by column."""
    kind = case.kind
    found = case.ask(
        hessian.local_hessian, case.network, kind.layer, kind.x, kind.y, loss=kind.loss, at=kind.place(case.twin)
    )
    return apart(found, naive.local_hessian(kind, case.twin, case.x, kind.y))


def extremes(case: Case) -> float:
    """Both ends of the spectrum of that matrix."""
    kind = case.kind
    top, bottom = case.ask(
        hessian.extremes, case.network, kind.layer, kind.x, kind.y, loss=kind.loss, at=kind.place(case.twin)
    )
    expected = torch.linalg.eigvalsh(naive.local_hessian(kind, case.twin, case.x, kind.y))[[-1, 0]]
    return apart([top[0].lam, bottom[0].lam], expected)


def sharpness(case: Case) -> float:
    """Against Lanczos on differences of the gradient in the parameters."""
    found = case.ask(hessian.sharpness, case.network, case.kind.x, case.kind.y, loss=case.kind.loss)
    if sum(p.numel() for p in naive.parameters(case.twin)) > naive.LARGE:
        return naive.eigenpair(case.kind, case.twin, found.lam, found.vector.double())
    return apart(found.lam, naive.sharpness(case.kind, case.twin))


def noise_averaged(case: Case) -> float:
    """Against the same draws, pair by pair."""
    kind, n, amplitude = case.kind, count_of(case.kind.x), 0.3
    shape = naive.site_shape(kind, case.twin)
    v = torch.randn(shape, dtype=torch.float64, generator=seeded(1))
    found, _ = case.ask(
        averaged.noise_averaged, case.network, kind.layer, kind.x, kind.y, loss=kind.loss,
        direction=v.flatten().to(next(case.network.parameters()).dtype), amplitude=amplitude, pairs=2,
        at=kind.place(case.twin), batch_axis=kind.axis or None,
    )  # fmt: skip
    v, generator, pulls = v[None] / v.norm(), seeded(0), []
    for _ in range(2):
        eps = amplitude * torch.randn(n, 1, dtype=torch.float64, generator=generator)
        pulls += [(naive.pull(kind, case.twin, case.x, kind.y, sign * eps, v) * v).sum() for sign in (1, -1)]
    return apart(found, torch.stack(pulls).mean() / amplitude**2)


def with_the_statistics_of_batches(twin: nn.Module, noisy: nn.Module) -> nn.Module:
    """The twin, a copy of it if batch norms of the network are in training mode: they use the statistics of a batch."""
    names = [name for name, m in noisy.network.named_modules() if isinstance(m, _BatchNorm) and m.training]
    twin = copy.deepcopy(twin) if names else twin
    for norm in map(twin.get_submodule, names):
        norm.running_mean = norm.running_var = None  # then it uses those of the batch, in eval mode too
    return twin


def critical_rate(case: Case) -> float:
    """eta_1 where our own steps, on the same samples and noise, leave the loss as it was; and the rate of decay."""
    kind, twin = case.kind, case.twin
    if kind.tolerance > 0.01:  # rounding to 8 bits moves the crossing itself by 10 %: ours rounds alike
        twin = copy.deepcopy(case.network)
    options = {"loss": kind.loss, "batch_size": 8, "trials": 2, "judges": 4}
    noisy = case.noisy()
    twin = with_the_statistics_of_batches(twin, noisy)
    found = case.ask(critical.critical_rate, noisy, kind.x, kind.y, generator=seeded(0), tolerance=1e-8, **options)
    foretold = case.ask(prediction.predict, noisy, kind.x, kind.y, generator=seeded(0), lr=ETA, steps=10, **options)
    samples = Trials(noisy, kind.x, kind.y, generator=seeded(0), **options, **case.given(Trials)).trials
    niw = noisy.niw.detach().double()

    def value(part: Samples, change: Tensor) -> float:
        """The loss at parameters and W_NI moved by a flat change, the last entries that of W_NI."""
        size = niw.numel()
        weights = niw + change[-size:].view_as(niw)
        shift = torch.einsum("nm,m...->n...", SIGMA * part.noise[0].double(), weights)
        with naive.moved(twin, change[:-size]), torch.no_grad():
            return naive.loss(kind, twin, of(part.x), part.y, shift).item()

    def of(x: Tensor) -> Inputs:
        if not isinstance(kind.x, Tensor):  # trials hold the numbers of its rows
            return rows_of(kind.x, x)
        return x.to(next(twin.parameters())) if kind.floating else x

    steps, decays = [], []
    for trial in samples:
        batch, judges = trial.batches[0], trial.judges
        eps = SIGMA * batch.noise[0].double()
        loss = naive.loss(kind, twin, of(batch.x), batch.y, torch.einsum("nm,m...->n...", eps, niw))
        pull = naive.pull(kind, twin, of(batch.x), batch.y, eps, niw)
        steps.append(torch.cat([naive.flat_gradient(loss, twin), pull.flatten()]))
        judged = naive.pull(kind, twin, of(judges.x), judges.y, SIGMA * judges.noise[0].double(), niw)
        decays.append((judged * niw).sum() / niw.square().sum())
    expected = torch.stack(decays).mean()

    at_start = [value(trial.judges, 0 * step) for trial, step in zip(samples, steps, strict=True)]

    def excess(eta: float) -> float:
        moved = [value(trial.judges, -eta * step) for trial, step in zip(samples, steps, strict=True)]
        return sum(moved) - sum(at_start)

    decay = max(apart(found.decay, expected), apart(foretold.decay, ETA * expected))
    if found.rate == float("inf"):  # norms bound the loss of some networks, whatever the step
        return float("inf") if any(excess(eta) > 0 for eta in STEPS) else decay
    low, high = found.rate * 0.95, found.rate * 1.05
    if not excess(low) < 0 < excess(high):
        return float("inf")
    rate = brentq(excess, low, high, xtol=1e-10 * low)
    return max(apart(found.rate, rate), decay)


def thermometer_column(case: Case) -> float:
    """On copies of one sample, where a reading has no noise: every eigenvalue, after a few readings."""
    kind = case.kind
    shape = naive.site_shape(kind, case.twin)
    d = int(torch.tensor(shape).prod())
    count = 2 * 2 ** (d - 1).bit_length()
    pick = torch.ones(max(count, 4), dtype=torch.long)
    x, y = rows_of(kind.x, pick), kind.y[pick]
    amplitude = next(a for tolerance, a in AMPLITUDES.items() if kind.tolerance <= tolerance)
    meter = thermometer.Thermometer(
        case.network, kind.layer, nodes=d, amplitude=amplitude, memory=1,
        at=kind.place(case.twin), batch_axis=kind.axis or None, **case.given(thermometer.Thermometer),
    )  # fmt: skip
    for _ in range(4):
        reading = case.ask(meter.read, x, y, loss=kind.loss)
    one = slice(1, 2)
    hessian = naive.local_hessian(kind, case.twin, rows_of(case.x, one), kind.y[one])
    expected = torch.linalg.eigvalsh(hessian).flip(0)
    return apart(reading.eigenvalues, expected)


def memorisation_column(case: Case) -> float:
    """|W_NI| after two steps with fixed noise, which we take by hand."""
    kind, n = case.kind, count_of(case.kind.x)
    noisy = copy.deepcopy(case.noisy(nodes=2)).train()
    noisy.network.eval()
    niw = noisy.niw.detach().double().clone()
    noisy.generator.manual_seed(7)
    noise, meter = memorisation.FixedNoise(noisy, n), memorisation.MemorisationMeter()
    optimizer = torch.optim.SGD([p for p in noisy.parameters() if p.requires_grad], lr=ETA)
    order = torch.arange(n).flip(0)
    x = rows_of(kind.x, order)

    def step() -> None:
        optimizer.zero_grad()
        with noisy.using(noise(order)):
            kind.loss(kind.call(noisy, x), kind.y[order]).backward()
        optimizer.step()

    for _ in range(2):
        case.ask(step)
    found = meter.read(0, noisy).norm
    eps = SIGMA * torch.randn(n, 2, dtype=torch.float64, generator=seeded(7))
    change = torch.zeros(sum(p.numel() for p in naive.parameters(case.twin)), dtype=torch.float64)
    for _ in range(2):
        with naive.moved(case.twin, change):
            shift = torch.einsum("nm,m...->n...", eps, niw)
            step = naive.flat_gradient(naive.loss(kind, case.twin, case.x, kind.y, shift), case.twin)
            pull = naive.pull(kind, case.twin, case.x, kind.y, eps, niw)
        change, niw = change - ETA * step, niw - ETA * pull
    return apart(found, niw.flatten(1).norm(dim=1).log().mean().exp())
