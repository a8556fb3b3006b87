"""The linear test case: SGD of the two-layer linear net with a node, against the closed map of its order parameters."""

from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import nn

from nin import theory
from nin.model.data import linear_teacher
from nin.model.dataset import Dataset
from nin.model.losses import LOSSES
from nin.model.nodes import NoisyNetwork
from nin.model.noise import draw_noise
from nin.phases import DecayFit, fit_decay
from nin.probes.curvature import critical_rate
from nin.theory import LinearState
from nin.training.batches import batches
from nin.training.config import RunConfig
from nin.training.loop import train


def order_parameters(noisy: NoisyNetwork) -> LinearState:
    """a = u.v/sqrt N, n = w.v/sqrt N, V = |v|^2/N, U = |u|^2/N, W = |w|^2/N, k = u.w/N of a linear net and its node."""
    first, readout = noisy.network.layers
    u, v, w = (t.detach().double() for t in (first.weight[:, 0], readout.weight[0], noisy.niw[0]))
    N = len(v)
    a, n = u @ v / N**0.5, w @ v / N**0.5
    return LinearState(*(float(value) for value in (a, n, v @ v / N, u @ u / N, w @ w / N, u @ w / N)))


def batch_statistics(config: RunConfig, data: Dataset, *, target: float = 1.0) -> dict[str, np.ndarray]:
    """p = <x^2>, q = <eps^2>, c = <x eps>, and <xi x>, <xi eps> of the label noise xi = y - target x, each (steps,).

    Computed from the same batches and noise that `nin.train` uses for this config.
    """
    x, y = data.x_train[:, 0].double(), data.y_train[:, 0].double()
    rows = []
    for index, eps in islice(batches(config, len(x)), config.steps):
        xi, eps = y[index] - target * x[index], config.sigma * eps[:, 0]
        rows.append([torch.mean(v).item() for v in (x[index] ** 2, eps**2, x[index] * eps, xi * x[index], xi * eps)])
    return dict(zip(("p", "q", "c", "label_x", "label_eps"), np.array(rows).reshape(-1, 5).T, strict=True))


def run_map(state: LinearState, statistics: dict, *, eta: float, width: int, target: float = 1.0) -> LinearState:
    """The closed map, equation (11), of batch statistics, arrays (steps, ...) -> order parameters (steps + 1, ...)."""
    states = [state]
    for step in range(len(statistics["p"])):
        now = {name: values[step] for name, values in statistics.items()}
        states.append(theory.linear_map(states[-1], eta=eta, width=width, target=target, **now))
    return LinearState(*(np.array(values) for values in zip(*states, strict=True)))


def averaged(sigma: float | np.ndarray, steps: int, *, x_std: float = 1.0) -> dict[str, np.ndarray]:
    """Statistics of the noise average: p = x_std^2, q = sigma^2, c = 0 at every step, each (steps, *sigma.shape)."""
    sigma = np.asarray(sigma, dtype=float)
    q = np.broadcast_to(sigma**2, (steps, *sigma.shape))
    return {"p": np.full(q.shape, x_std**2), "q": q, "c": np.zeros(q.shape)}


def start_state(width: int, seed: int) -> LinearState:
    """Order parameters at the start of an SGD run with this width and seed."""
    config = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(width,), seed=seed, steps=0,
                       batch_size=1, eval_points=2, eval_samples=1, curvature_pairs=1, dtype="float64")  # fmt: skip
    return order_parameters(train(config, data=linear_teacher(n_train=2, n_test=2)).model(0))


def own_sigma(kappa0: float, state: LinearState, eta: float) -> float:
    """The sigma for which eta sigma^2 (V + W) of this initial state equals kappa0."""
    return float(np.sqrt(kappa0 / (eta * (state.V + state.W))))


def simulate(
    kappas: list[float],
    *,
    width: int,
    eta: float,
    steps: int,
    samples: int,
    seeds: int,
    law: str = "gaussian",
    x_std: float = 1.0,
) -> pd.DataFrame:
    """SGD on full batches of `samples` with noise re-drawn each step, and the closed map on the same draws.

    Each seed has its own sigma, for which kappa0 = eta sigma^2 (V + W) has the given value. One row per run and step:
    kappa0, seed, sigma, step, n (SGD), n_map, E_map, kappa_map, n_averaged (the map of the noise average) and n_wide =
    n(0) (1 - kappa0)^t. With x_std = 0 there is no signal: the noise-only sector.
    """
    data = linear_teacher(n_train=samples, n_test=2, x_std=x_std)
    base = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(width,), lr=eta, steps=steps,
                     batch_size=samples, record_every=1, eval_points=2, eval_samples=samples, curvature_pairs=1,
                     law=law, dtype="float64")  # fmt: skip
    starts = [start_state(width, seed) for seed in range(seeds)]
    configs = [base.replace(seed=k, sigma=own_sigma(q, starts[k], eta)) for q in kappas for k in range(seeds)]
    runs = train(configs, data=data)
    frames = []
    for run, config in enumerate(configs):
        state, kappa0 = starts[config.seed], kappas[run // seeds]
        mapped = run_map(state, batch_statistics(config, data), eta=eta, width=width)
        mean = run_map(state, averaged(config.sigma, steps, x_std=x_std), eta=eta, width=width)
        kappa = theory.kappa(eta, config.sigma, mapped.V + mapped.W)
        columns = {"kappa0": kappa0, "seed": config.seed, "sigma": config.sigma, "step": runs.steps}
        columns |= {"n": runs.curves["noise_output"][:, run], "n_map": mapped.n, "E_map": mapped.a - 1}
        columns |= {"kappa_map": kappa, "n_averaged": mean.n, "n_wide": state.n * (1 - kappa0) ** runs.steps}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def noise_decay(run: pd.DataFrame, *, samples: int, x_std: float = 1.0, margin: float = 3.0) -> DecayFit:
    """`fit_decay` of the noise output of one run of `simulate`, up to the step at which |n| reaches the signal's scale.

    The cross term <x eps> ~ sigma_x sigma / sqrt(B) of a batch of B samples drives n by -eta (V + W) E <x eps> per
    step (equation (11)), and n contracts by 1 - kappa, so that it fluctuates by |E| (sigma_x / sigma) sqrt(kappa /
    (2 - kappa) / B) (derived); from there on n follows the signal's residual E instead of its own decay.
    margin: |n| over this scale at which the window ends; 3, where a ninth of n^2 may be the signal's. Without signal it
    ends at 1e-13 of the start, where rounding dominates. tau = inf if fewer than 5 steps remain, as for kappa near 1.
    """
    n, kappa = run["n"].abs().to_numpy(), run["kappa_map"].clip(upper=1.99).to_numpy()
    scale = run["E_map"].abs().to_numpy() * x_std / run["sigma"].to_numpy() * np.sqrt(kappa / (2 - kappa) / samples)
    reached = n < np.maximum(margin * scale, 1e-13 * n[0])
    end = max(1, int(np.argmax(reached))) if reached.any() else len(n)
    return fit_decay(run["step"].to_numpy()[:end], n[:end])


def equal_decay(
    *, width: int, steps: int, ratios: tuple[float, ...], seeds: int, eta: float = 0.004, samples: int = 128
) -> pd.DataFrame:
    """|n| and |E| of SGD over their initial values, for sigma = ratio sigma_x: columns ratio, seed, step, n, E.

    The residual follows from the clean loss, E^2 = 2 L / <x^2>. For the noise, Rademacher, <eps^2> does not fluctuate.
    """
    data = linear_teacher(n_train=samples, n_test=2, target=3.0)  # far from a(0) ~ N(0, 1): E starts large
    x_std = data.x_train.double().square().mean().sqrt().item()
    base = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(width,), lr=eta, steps=steps,
                     batch_size=samples, record_every=1, eval_points=40, eval_samples=samples, law="rademacher",
                     curvature_pairs=1, dtype="float64")  # fmt: skip
    configs = [base.replace(sigma=ratio * x_std, seed=seed) for ratio in ratios for seed in range(seeds)]
    frame = train(configs, data=data).frame().dropna(subset=["train_loss"])
    first = frame.groupby("run")[["noise_output", "train_loss"]].transform("first")
    n = (frame["noise_output"] / first["noise_output"]).abs()
    E = np.sqrt(frame["train_loss"] / first["train_loss"])
    ratio = (frame["sigma"] / x_std).round(9)
    return pd.DataFrame({"ratio": ratio, "seed": frame["seed"], "step": frame["step"], "n": n, "E": E})


def decay_ratio(table: pd.DataFrame, *, width: int, floor: float = 0.05) -> pd.DataFrame:
    """(log-decay of n) / (log-decay of E) of each run of `equal_decay`: columns ratio, seed, measured, predicted.

    Measured as the slope of a line through the start, over the steps at which both exceed `floor` times their initial
    values; below, the cross term <x eps> of finite batches dominates. Predicted: sigma^2 (V + W) / (sigma_x^2 (U + V))
    at the start of the same seed (derived).
    """
    rows = []
    for (ratio, seed), run in table.groupby(["ratio", "seed"]):
        run = run[(run["n"] > floor) & (run["E"] > floor)]
        n, E, start = np.log(run["n"]), np.log(run["E"]), start_state(width, seed)
        predicted = ratio**2 * (start.V + start.W) / (start.U + start.V)
        rows.append({"ratio": ratio, "seed": seed, "measured": float(n @ E / (E @ E)), "predicted": predicted})
    return pd.DataFrame(rows)


def one_step_control(kappas: list[float], *, width: int, eta: float, seeds: int, samples: int = 256) -> pd.DataFrame:
    """kappa_1 = 2 eta / eta_1 (`critical_rate`) of linear nets without signal, against kappa = eta sigma^2 (V + W).

    One row per kappa and seed, each with its own sigma: kappa0, seed, kappa_1, kappa_loc = eta sigma^2 V. Rademacher
    noise, whose <eps^2> does not fluctuate, makes kappa_1 exact up to n^2 / 2N.
    """
    config = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(width,), steps=0, batch_size=1,
                       eval_points=2, curvature_pairs=1, law="rademacher", dtype="float64")  # fmt: skip
    data, x = linear_teacher(n_train=2, n_test=2), torch.zeros(samples, 1, dtype=torch.float64)
    rows = []
    for seed in range(seeds):
        noisy = train(config.replace(seed=seed), data=data).model(0)
        state = order_parameters(noisy)
        for kappa0 in kappas:
            sigma = own_sigma(kappa0, state, eta)
            found = critical_rate(noisy, x, x, loss=LOSSES["mse"], batch_size=samples // 4, sigma=sigma,
                                  generator=torch.Generator().manual_seed(seed), tolerance=1e-6)  # fmt: skip
            local = float(theory.kappa(eta, sigma, state.V))
            rows.append({"kappa0": kappa0, "seed": seed, "kappa_1": found.kappa(eta), "kappa_loc": local})
    return pd.DataFrame(rows)


def random_walk(
    batch: int, *, width: int, draws: int, sigma: float, eta: float, seed: int = 0, samples: int = 1024
) -> tuple[float, float]:
    """(measured, predicted) E|dW_NI|^2 of one SGD step from W_NI = 0: eta^2 sigma^2 tr G / |B|, G = <g g^T> (eq. (6)).

    Measured over `draws` batches (thousands) drawn from the samples with replacement, g_i = d ell_i / dz_i by autograd.
    """
    data = linear_teacher(n_train=samples, n_test=2, seed=seed)
    config = RunConfig(dataset="linear_teacher", network="linear", loss="mse", widths=(width,), seed=seed,
                       dtype="float64", batch_size=1, steps=0, eval_points=2, curvature_pairs=1)  # fmt: skip
    network: nn.Module = train(config, data=data).model(0).network
    z = network.layers[0](data.x_train.double()).detach().requires_grad_()
    (g,) = torch.autograd.grad(0.5 * (network.layers[1](z) - data.y_train.double()).square().sum(), z)  # (samples, N)
    generator = torch.Generator().manual_seed(seed)
    total, drawn = 0.0, draws // 1000 * 1000
    weights, change = g.new_empty(1000, samples), g.new_empty(1000, width)  # written over: new ones fragment the heap
    for _ in range(draws // 1000):
        index = torch.randint(samples, (1000, batch), generator=generator)
        eps = sigma * torch.randn(1000, batch, dtype=torch.float64, generator=generator)
        torch.mm(weights.zero_().scatter_add_(1, index, eps), g, out=change)  # sum_i eps_i g_i of each draw
        total += (eta / batch * change).square().sum().item()
    predicted = theory.random_walk(eta, sigma, float(g.square().sum(1).mean()), batch)
    return total / drawn, float(predicted)


def random_states(width: int, count: int, *, seed: int = 0) -> LinearState:
    """Order parameters of `count` random nets, entries of u, v, w drawn from N(0, 1): arrays (count,)."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        u, v, w = random.normal(size=(3, width))
        rows.append(
            [u @ v / width**0.5, w @ v / width**0.5, v @ v / width, u @ u / width, w @ w / width, u @ w / width]
        )
    return LinearState(*np.array(rows).T)


def measured_stationary_variance(
    batch: int, *, kappa0: float, eta: float, label_noise: float, width: int = 10**6, steps: int = 400, seed: int = 0
) -> tuple[float, float]:
    """(measured, predicted) stationary Var(n) with label noise, from chains of the closed map on random batches.

    Predicted: `theory.stationary_noise_output` times 1 + sigma_x^2 Var E / sigma_xi^2 with the measured Var E.
    """
    chains, random = max(64, 8192 // batch), np.random.default_rng(seed)
    sigma = np.sqrt(kappa0 / (2 * eta))
    state = LinearState(*(np.full(chains, value) for value in (1.0, 0.0, 1.0, 1.0, 1.0, 0.0)))
    burn = int(6 / min(kappa0, 2 * eta))
    n, E = [], []
    for step in range(burn + steps):
        x, xi, eps = (s * random.normal(size=(batch, chains)) for s in (1.0, label_noise, sigma))
        moments = {"p": x * x, "q": eps * eps, "c": x * eps, "label_x": xi * x, "label_eps": xi * eps}
        means = {name: values.mean(0) for name, values in moments.items()}
        state = theory.linear_map(state, eta=eta, width=width, target=1.0, **means)
        if step >= burn:
            n.append(np.mean(np.square(state.n)))
            E.append(np.mean(np.square(state.a - 1)))
    V, W = state.V.mean(), state.W.mean()
    predicted = theory.stationary_noise_output(
        eta=eta, V=V, W=W, label_noise=label_noise, kappa=eta * sigma**2 * (V + W), batch=batch
    )
    return float(np.mean(n)), float(predicted * (1 + np.mean(E) / label_noise**2))


def one_step_multipliers(kappas: np.ndarray, *, batch: int, law: str, draws: int, seed: int = 0) -> pd.DataFrame:
    """<(n'/n)^2> of one step of the closed map without signal, over random batches: kappa0, multiplier, stderr."""
    generator = torch.Generator().manual_seed(seed)
    unit = draw_noise(draws, batch, law=law, generator=generator).square().mean(1).numpy()  # <eps^2> / sigma^2
    start = LinearState(0.0, 1.0, 1.0, 1.0, 1.0, 0.0)
    rows = []
    for kappa0 in kappas:
        after = theory.linear_map(start, eta=0.5, width=1e9, target=0.0, p=0.0, q=kappa0 * unit, c=0.0)
        square = np.square(after.n)
        stderr = square.std() / draws**0.5
        rows.append({"law": law, "batch": batch, "kappa0": kappa0, "multiplier": square.mean(), "stderr": stderr})
    return pd.DataFrame(rows)


def dead_input_variance(noisy: NoisyNetwork, *, probes: int, seed: int = 0) -> float:
    """Variance of the response N^(-1/2) v.u' to an input unseen in training, over untrained weights u' ~ N(0, 1)."""
    v = noisy.network.layers[1].weight.detach()[0].double()
    untrained = torch.randn(probes, len(v), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return float((untrained @ v).square().mean() / len(v))
