"""The four probes as functions (model, x, y) -> table, for `nin.sweep`: one reading of an image classifier."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from nin.model.data import as_images
from nin.model.losses import LOSSES, accuracy
from nin.model.sites import linear_layers
from nin.probes.asking import Probe
from nin.probes.curvature import sharpness, top_mode
from nin.probes.interactions import Noise, layerwise
from nin.probes.interactions.games import mean_order
from nin.probes.interactions.games_of_layers import image_patches
from nin.probes.response import Stepper
from nin.probes.response.features import effective_rank
from nin.probes.response.tangent_kernel import kernel
from nin.probes.stability import sensitivities
from nin.support.arguments import check_count, check_names, check_number
from nin.support.precision import widened
from nin.support.threads import threads

COLUMNS = ["quantity", "layer", "order", "value", "error"]
Rows = Float[Tensor, "n pixels"]
Labels = Int[Tensor, " n"]


def four_probes(
    *,
    node: str,
    lr: float,
    hidden: Sequence[str],
    size: int = 3,
    patches: int = 8,
    masked: int = 10,
    deformed: int = 100,
    delta: float = 1.0,
    responders: int = 8,
    kernel_samples: int = 24,
) -> dict[str, Probe]:
    """The probes by name: performance, curvature, response, interactions, stability.

    node      layer with the node of a run; <H> is the Hessian in its pre-activations
    lr        learning rate of the step that the response is measured for: that of the runs
    hidden    layers whose interactions and sensitivities are read, in addition to those of the output
    patches, size, masked    number of patches (variables of a game), their side in pixels, number of images masked
    deformed, delta    number of images deformed, and displacement in pixels: 1 as in the papers; on images smaller
              than 28 x 28 such fields fold
    responders, kernel_samples    number of samples for the response, and for the kernel
    Each table has the columns quantity, layer ("" if none applies), order (0: all), value, error (standard error; for
    an eigenvalue the residual).
    """
    check_number("lr", lr, exclusive=True)
    hidden = check_names("hidden", hidden)
    counts = {"size": size, "patches": patches, "masked": masked, "deformed": deformed, "responders": responders}
    for name, count in (counts | {"kernel_samples": kernel_samples}).items():
        check_count(name, count)
    check_number("delta", delta, exclusive=True)
    return {
        "performance": performance,
        "curvature": partial(curvature, layer=node),
        "response": partial(training_response, lr=lr, responders=responders, samples=kernel_samples),
        "interactions": partial(interactions, layers=hidden, patches=patches, size=size, images=masked),
        "stability": partial(stability, layers=hidden, images=deformed, delta=delta),
    }


def performance(model: nn.Module, x: Rows, y: Labels) -> pd.DataFrame:
    """loss (cross-entropy) and accuracy on the probe set."""
    with torch.no_grad():
        outputs = model(x)
    losses, right = F.cross_entropy(outputs, y, reduction="none"), accuracy(outputs, y)
    return _table([_mean("loss", losses), _mean("accuracy", right)])


def curvature(model: nn.Module, x: Rows, y: Labels, *, layer: str) -> pd.DataFrame:
    """lambda, the top eigenvalue of the local <H> at a layer, and sharpness, that of the Hessian in all parameters.

    Exact, over the probe set (`nin.probes.curvature`). Multiplied by eta, they determine stability.
    """
    loss = LOSSES["cross_entropy"]
    local = top_mode(model, layer, x, y, loss=loss)
    whole = sharpness(model, x, y, loss=loss)
    return _table([("lambda", layer, 0, local.lam, local.residual), ("sharpness", "", 0, whole.lam, whole.residual)])


def training_response(
    model: nn.Module, x: Rows, y: Labels, *, lr: float, responders: int = 8, samples: int = 24
) -> pd.DataFrame:
    """response, self_kernel, effective_rank, and the entries i <= j of the kernel, whose `order` is i samples + j.

    response        mean |f(x_i; theta+) - f(x_i; theta)| over the first samples, theta+ after one SGD step on x_i
    kernel          Theta(x_i, x_j), traced over outputs; self_kernel: the mean of its diagonal
    effective_rank  of the input of the last linear layer, over the probe set
    """
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=lr), F.cross_entropy)
    ones = [slice(i, i + 1) for i in range(responders)]
    answers = torch.stack([stepper.step(x[one], y[one], x[one]).exact.abs().mean() for one in ones])
    theta = widened(kernel(model, x[:samples]).detach())
    rows = [_mean("response", answers), _mean("self_kernel", theta.diagonal())]
    rows.append(("effective_rank", "", 0, effective_rank(_readout_features(model, x)), np.nan))
    upper = torch.triu_indices(len(theta), len(theta))
    numbers = (upper[0] * len(theta) + upper[1]).tolist()
    entries = theta[upper[0], upper[1]].tolist()
    rows += [("kernel", "", number, entry, np.nan) for number, entry in zip(numbers, entries, strict=True)]
    return _table(rows)


def interactions(
    model: nn.Module, x: Rows, y: Labels, *, layers: Sequence[str], patches: int = 8, size: int = 3, images: int = 10
) -> pd.DataFrame:
    """strength of each order at the output, and completeness, redundancy, mean_order of each layer (`layerwise`).

    Patches of the first images are masked by the mean of the probe set, to which the linear readouts of layers are
    fitted. Images whose patches do not change the output are left out; the table is empty if fewer than two remain.
    """
    baseline = x.mean(0)
    chosen = image_patches(x[:images], None, baseline, patches, size=size)
    with torch.no_grad():
        hidden = torch.where(chosen.any(1), baseline, x[:images])
        seen = (model(x[:images]) != model(hidden)).any(1)
    if seen.sum() < 2:
        return _table([])
    with threads(1):  # the games are too small for more
        found = layerwise(
            model, x[:images][seen], y[:images][seen], layers=layers, patches=chosen[seen], baseline=baseline,
            train=(x, y), untrained=False, noise=Noise(0), resamples=1,
        )  # fmt: skip
    found = found[(found["network"] == "model") & (found["kind"] == "both")]
    rows = []
    for layer, part in found.groupby("layer", sort=False):
        whole, by_order = part[part["order"] == 0].iloc[0], part[part["order"] > 0]
        rows.append(("mean_order", layer, 0, mean_order(by_order["strength"]), np.nan))
        rows += [(name, layer, 0, whole[name], np.nan) for name in ("completeness", "redundancy")]
    output = found[(found["layer"] == "output") & (found["order"] > 0)]
    rows += [("strength", "output", m, s, np.nan) for m, s in zip(output["order"], output["strength"], strict=True)]
    return _table(rows)


def stability(
    model: nn.Module,
    x: Rows,
    y: Labels,
    *,
    layers: Sequence[str],
    images: int = 100,
    delta: float = 1.0,
    draws: int = 2,
) -> pd.DataFrame:
    """D, G and R of the layers and the output (`sensitivities`, c = 3) on the first images."""
    names = [*(f"model.{name}" for name in layers), "model"]
    found = sensitivities(_OnImages(model), as_images(x[:images]), delta=delta, layers=names, draws=draws)
    names = found["layer"].str.removeprefix("model").str.removeprefix(".").replace("", "output")
    rows = [
        (quantity, layer, 0, row[quantity], row[f"{quantity}_stderr"])
        for layer, row in zip(names, found.to_dict("records"), strict=True)
        for quantity in "DGR"
        if layer != "input"
    ]
    return _table(rows)


class _OnImages(nn.Module):
    """A network that takes rows of pixels, applied to images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flatten(1))


def _readout_features(model: nn.Module, x: Rows) -> Tensor:
    """The input of the last linear layer."""
    seen = []
    last = model.get_submodule(linear_layers(model)[-1])
    handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return seen[0]


def _mean(quantity: str, values: Float[Tensor, " n"]) -> tuple[str, str, int, float, float]:
    values = widened(values.detach())
    return quantity, "", 0, values.mean().item(), (values.std() / len(values) ** 0.5).item()


def _table(rows: list[tuple]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"quantity": "str", "layer": "str", "order": int, "value": float, "error": float})
