"""What theory expects of the linear net's node along a whole run: the exact map of its order parameters."""

import numpy as np
from jaxtyping import Float

from nin import theory
from nin.model.nodes import NoisyNetwork
from nin.training.config import RunConfig

DRAWS = 64  # sequences of batches, whose median has an error of some 16 % of their scatter


def typical_output(config: RunConfig, noisy: NoisyNetwork) -> Float[np.ndarray, " steps"]:
    """Median over batches of |n| / |n_0| at each step of a run, n = w.v / sqrt N the noise output (NIN, equation (11)).

    Each step is `theory.linear_map`, exact for any width, with the moments <x^2>, <eps^2>, <x eps> of |B| samples: so
    the growth and the fall of a catapult, and the floor that the scatter of batches leaves, are in it. The moments are
    drawn from gamma and normal laws of their mean and variance.
    """
    u, v = (layer.weight.detach().flatten().numpy() for layer in noisy.network.layers)
    w, root = noisy.niw.detach().flatten().numpy(), len(v) ** 0.5
    parts = {"a": u @ v / root, "n": w @ v / root, "V": v @ v / len(v)}
    parts |= {"U": u @ u / len(v), "W": w @ w / len(v), "k": u @ w / len(v)}
    state = theory.LinearState(**{name: np.full(DRAWS, value) for name, value in parts.items()})
    generator, batch = np.random.default_rng(config.seed), config.batch_size
    excess = theory.KURTOSIS[config.law] - 1
    sizes = [np.abs(state.n)]
    for _ in range(config.steps):
        p = generator.gamma(batch / 2, 2 / batch, DRAWS)
        q = generator.gamma(batch / excess, excess / batch, DRAWS) if excess else np.ones(DRAWS)
        c = generator.normal(0, batch**-0.5, DRAWS)
        state = theory.linear_map(
            state, eta=config.lr, width=len(v), target=1.0, p=p, q=config.sigma**2 * q, c=config.sigma * c
        )
        sizes.append(np.nan_to_num(np.abs(state.n), nan=np.inf))
    with np.errstate(over="ignore"):
        return np.median(np.stack(sizes), axis=1) / sizes[0][0]
