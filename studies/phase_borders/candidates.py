"""Control numbers that claim to predict where catapults begin, each as a learning rate found before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from nin.model.evaluating import evaluating
from nin.model.functional import call_with
from nin.model.nodes import NoisyNetwork
from nin.probes.curvature import critical_rate, noise_averaged, top_mode
from nin.probes.curvature.critical import JUDGES, TRIALS, Descent, Factory
from nin.probes.curvature.crossing import TOLERANCE, first_crossing
from nin.probes.curvature.hessian import Loss
from nin.probes.curvature.lanczos import lanczos
from nin.probes.curvature.trials import Trials
from nin.support.arguments import check_count
from nin.support.randomness import kept_randomness

AHEAD = (1, 2, 5, 10)


@dataclass(frozen=True)
class Onset:
    """The learning rate at which a candidate sees the catapult begin, and its standard error (0 if it has none)."""

    eta: float
    stderr: float = 0.0


def local_curvature(noisy: NoisyNetwork, x: Tensor, y: Tensor, *, loss: Loss) -> Onset:
    """kappa_H = 2: eta = 2 / (sigma^2 lambda_max(<H>)), with autograd's local Hessian without noise.

    Raises ValueError for nodes in several layers or at a place that is not the default one.
    """
    lam = top_mode(noisy.network, _only_layer(noisy), x, y, loss=loss).lam
    return Onset(2 / (noisy.sigma**2 * lam) if lam > 0 else float("inf"))


def averaged_curvature(
    noisy: NoisyNetwork,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    batch_size: int,
    generator: torch.Generator,
    **options: int,
) -> Onset:
    """kappa_avg = 2: eta = 2 / d, with d the rate at which |W_NI| begins to decay per unit of learning rate."""
    found = critical_rate(noisy, x, y, loss=loss, batch_size=batch_size, generator=generator, **options)
    if not found.decay > 0:
        return Onset(float("inf"), float("nan"))
    return Onset(2 / found.decay, 2 * found.decay_stderr / found.decay**2)


def look_aheads(
    noisy: NoisyNetwork,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss,
    batch_size: int,
    generator: torch.Generator,
    asked: Sequence[tuple[int, float]],
    optimizer: Factory | None = None,
    trials: int = TRIALS,
    judges: int = JUDGES,
    tolerance: float = TOLERANCE,
) -> dict[tuple[int, float], Onset]:
    """The smallest eta at which the expected noisy loss reaches its start after any of k steps, for several k.

    All on the same batches and noise, from one set of passes; `critical_rate(steps=k)` finds one of them.

    asked  pairs (k, rise): the expected noisy loss counts as risen from `rise` times its start; 1.05 makes a spike
    Returns the onset for each pair.
    """
    drawn = Trials(
        noisy, x, y, loss=loss, batch_size=batch_size, generator=generator,
        trials=trials, judges=judges, steps=max(count for count, _ in asked),
    )  # fmt: skip
    with kept_randomness():
        descent = Descent(drawn, drawn.sigmas(None), optimizer=optimizer)

        def excess(eta: float, count: int, rise: float) -> np.ndarray:
            ahead = descent.losses(eta)[:, :count]  # (K, count)
            with np.errstate(over="ignore", invalid="ignore"):
                return ahead[:, ahead.mean(0).argmax()] - rise * descent.initial

        curves = {(count, rise): partial(excess, count=count, rise=rise) for count, rise in asked}
        found = {key: first_crossing(curve, descent.scale(), tolerance=tolerance) for key, curve in curves.items()}
    return {key: Onset(crossing.at, crossing.stderr) for key, crossing in found.items()}


def noisy_sharpness(
    noisy: NoisyNetwork, x: Tensor, y: Tensor, *, loss: Loss, generator: torch.Generator, samples: int = 256
) -> Onset:
    """2 / lambda_max of the Gauss-Newton matrix J^T (d^2 ell / df^2) J of L~ in all weights, W_NI among them.

    samples  drawn from x, each with +eps and -eps; Lanczos on exact products
    """
    check_count("samples", samples)
    index = torch.randperm(len(x), generator=generator)[:samples].repeat(2)
    twin = NoisyNetwork(
        noisy.network, noisy.sites, niw=[w.detach() for w in noisy.weights.values()], sigma=noisy.sigmas,
        law=noisy.laws, generator=generator,
    )  # fmt: skip
    eps = twin.draw(len(index) // 2)
    eps = {layer: torch.cat([e, -e]) for layer, e in ({noisy.layer: eps} if isinstance(eps, Tensor) else eps).items()}
    parameters = {name: p.detach() for name, p in noisy.named_parameters()}
    like = torch.cat([p.flatten() for p in parameters.values()])
    sizes = [p.numel() for p in parameters.values()]
    inputs, targets = x[index.to(x.device)], y[index.to(y.device)]

    def outputs(values: dict[str, Tensor]) -> Tensor:
        with noisy.using(eps):
            return call_with(noisy, values, (inputs,))

    with evaluating(noisy), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        f, pull_back = vjp(outputs, parameters)
        _, push = vjp(lambda u: pull_back(u)[0], torch.zeros_like(f))  # J, the transpose of J^T, in reverse mode
        _, bend = vjp(grad(lambda f: loss(f, targets).mean()), f)  # d^2 ell / df^2, symmetric

        def product(v: Tensor) -> Tensor:
            parts = zip(parameters.items(), v.split(sizes), strict=True)
            (forward,) = push({name: part.view_as(p) for (name, p), part in parts})
            (column,) = pull_back(*bend(forward))
            return torch.cat([part.flatten() for part in column.values()])

        return Onset(2 / lanczos(product, len(like), like=like)[0].lam)


def self_consistent(
    noisy: NoisyNetwork, x: Tensor, y: Tensor, *, loss: Loss, generator: torch.Generator, pairs: int = 32
) -> Onset:
    """eta = 2 / (sigma^2 lambda_avg(A)) at the node's own amplitude A = sigma |W_NI|.

    lambda_avg is the curvature along the top mode of <H>, averaged over `pairs` draws of noise +-eps for every sample.
    """
    layer = _only_layer(noisy)
    mode = top_mode(noisy.network, layer, x, y, loss=loss)
    amplitude = noisy.sigma * noisy.niw.detach().norm().item()
    averaged = partial(noise_averaged, noisy.network, layer, x, y, loss=loss, pairs=pairs, generator=generator)
    lam, error = averaged(direction=mode.vector, amplitude=amplitude)
    eta = 2 / (noisy.sigma**2 * lam) if lam > 0 else float("inf")
    return Onset(eta, eta * error / lam if lam > 0 else float("nan"))


def _only_layer(noisy: NoisyNetwork) -> str:
    if len(noisy.sites) > 1:
        raise ValueError(f"noisy has nodes in {', '.join(noisy.layers)}; this number is defined for one layer.")
    return noisy.layer
