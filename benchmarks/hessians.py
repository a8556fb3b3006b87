"""How long does the exact local Hessian <H> of an MLP take: in closed form, by products, and as one would write it?"""

from functools import partial

import torch
from torch.nn import functional as F

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.model.networks import MLP
from nin.probes.curvature.hessian import LocalHessian
from nin.probes.curvature.perceptron import perceptron_hessian

SAMPLES, INPUTS, CLASSES, ROUNDS = 1437, 64, 10, 5
CASES = [(kind, width, layer) for kind in ("relu", "softplus") for width in (64, 128, 256) for layer in (0, 2)]
HEAD = f"""Three hidden layers, {CLASSES} classes, {SAMPLES} samples, float32, one thread; the node before the first or
the last activation. By products: <H> v for all unit vectors v, eight at once, as for any network. torch.func.hessian:
of the mean loss in the shift. Median of {ROUNDS} rounds (smallest-largest).

"""


def run() -> str:
    """One table: seconds of the closed form, and the others over it."""
    rows = []
    for kind, width, layer in CASES:
        work = _work(kind, width, f"layers.{layer}")
        taken = in_turn({name: partial(seconds, part, on=1) for name, part in work.items()}, ROUNDS)
        written, products, naive = (taken[name] for name in work)
        rows.append((kind, width, layer, spread(written, 3), spread(products / written, 1), spread(naive / written, 1)))
    columns = ("activation", "width", "layer", "closed form (s)", "by products / it", "torch.func.hessian / it")
    return HEAD + table(columns, rows)


def _work(kind: str, width: int, layer: str) -> dict:
    generator = torch.Generator().manual_seed(0)
    model = MLP(INPUTS, (width,) * 3, CLASSES, activation=kind, generator=generator).requires_grad_(False)
    x = torch.randn(SAMPLES, INPUTS, generator=generator)
    y = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    number, curvature = int(layer[-1]), LocalHessian(model, layer, x, y, loss=F.cross_entropy)
    activation = {"relu": F.relu, "softplus": F.softplus}[kind]

    def shifted(delta: torch.Tensor) -> torch.Tensor:
        h = x
        for index, part in enumerate(model.layers):
            z = part(h) + delta if index == number else part(h)
            h = activation(z)
        return F.cross_entropy(z, y)

    return {
        "closed form": partial(perceptron_hessian, model, layer, x, y, loss=F.cross_entropy),
        "by products": lambda: curvature @ torch.eye(width),
        "torch.func.hessian": lambda: torch.func.hessian(shifted)(torch.zeros(width)),
    }
