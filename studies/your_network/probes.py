"""The four probes on networks of images and of characters, as functions (model, x, y) -> table for `nin.Record`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from nin.model.data import as_images
from nin.model.independence import statistics_of
from nin.probes.asking import Probe
from nin.probes.curvature import sharpness, top_mode
from nin.probes.interactions import Noise, foreground_patches, layerwise
from nin.probes.response import Stepper, kernel
from nin.probes.stability import compare, sensitivities
from studies.your_network.measure import Case

SAMPLES, FEW, MASKED = 96, 12, 8  # samples for curvature and stability, for the response, for the interactions
VARIABLES = 6  # patches of an image, or places of a text, that are masked
LARGE = 28  # pixels to a side from which deformations and patches are as large as in the papers
DRAWS = 2


@dataclass(frozen=True)
class Reading:
    """How the probes see the samples of a network.

    layer      whose interactions are compared with those of the output
    masks      samples x -> patches of the first MASKED and the baseline (`nin.probes.interactions.layerwise`)
    stability  (model, x) -> the table of D, G, R
    forward    (model, x) -> (samples, classes); target: y -> the class of each sample. By default model(x) and y
    """

    layer: str
    masks: Callable[[Tensor], tuple[Tensor, Tensor]]
    stability: Callable[[nn.Module, Tensor], pd.DataFrame]
    forward: Callable[[nn.Module, Tensor], Tensor] = lambda model, x: model(x)
    target: Callable[[Tensor], Tensor] = lambda y: y


def four_probes(case: Case, reading: Reading) -> Mapping[str, Probe]:
    """The probes by name: curvature, response, interactions, stability. Columns: quantity, value, error, control.

    curvature     eta lambda, the top of <H> where the node is and that of all weights; error: the solver's residual
    response      self-kernel, the mean of Theta(x, x), and the mean |response| of a sample to a step of SGD on itself
    interactions  completeness of a layer; control: the same with its interactions permuted within each order
    stability     R = D / G of the output; control: that of the input, 1 if both changes have one size

    Batch norms use the statistics of the samples that the probe is given. eta is the learning rate of SGD.
    """
    eta, loss = case.lr["SGD"], case.loss

    def curvature(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
        x, y = x[:SAMPLES], y[:SAMPLES]
        node = top_mode(model, case.layer, x, y, loss=loss, at=case.at)
        whole = sharpness(model, x, y, loss=loss, batch_norm="batch")
        return _table(
            ("eta lambda at the node", eta * node.lam, eta * node.residual),
            ("eta lambda of all weights", eta * whole.lam, eta * whole.residual),
        )

    def response(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
        theta = kernel(model, x[:FEW], forward=reading.forward).diagonal()
        stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=eta), loss)
        ones = [slice(i, i + 1) for i in range(FEW)]
        moved = torch.stack([stepper.step(x[one], y[one], x[one]).exact.abs().mean() for one in ones])
        return _table(_mean("self-kernel", theta), _mean("response to itself", moved))

    def interactions(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
        patches, baseline = reading.masks(x)
        found = layerwise(
            model, x[:MASKED], reading.target(y[:MASKED]), layers=[reading.layer], patches=patches, baseline=baseline,
            train=(x, reading.target(y)), untrained=False, noise=Noise(0), resamples=50, forward=reading.forward,
        )  # fmt: skip
        here = (found["layer"] == reading.layer) & (found["kind"] == "both") & (found["order"] == 0)
        own, chance = (found[here & (found["network"] == name)].iloc[0] for name in ("model", "permuted"))
        error = (own["completeness_high"] - own["completeness_low"]) / 4  # an interval of 95 % is 4 errors wide
        return _table(("completeness", own["completeness"], error, chance["completeness"]))

    def stability(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
        layers = reading.stability(model, x[:SAMPLES])
        output = layers.iloc[-1]
        return _table(("R of the output", output["R"], output["R_stderr"], layers["R"].iloc[0]))

    def with_statistics(probe: Probe) -> Probe:
        def asked(model: nn.Module, x: Tensor, y: Tensor) -> pd.DataFrame:
            with statistics_of(model, x):
                return probe(model, x, y)

        return asked

    own = {"curvature": curvature, "response": response, "interactions": interactions, "stability": stability}
    return {name: with_statistics(probe) for name, probe in own.items()}


def of_images(layer: str, side: int) -> Reading:
    """A reading of networks that take images of side x side pixels as rows: patches, and deformations against noise.

    From 28 pixels on patches have 3 x 3 pixels and displacements are 1 pixel, as in the papers; below, 2 x 2 and 0.3,
    because larger ones would fold the image.
    """
    size, delta = (3, 1.0) if side >= LARGE else (2, 0.3)

    def masks(x: Float[Tensor, "n pixels"]) -> tuple[Bool[Tensor, "m v pixels"], Float[Tensor, " pixels"]]:
        baseline = x.mean(0)
        images = x[:MASKED]
        return torch.stack([foreground_patches(i, VARIABLES, size=size, baseline=baseline) for i in images]), baseline

    def stability(model: nn.Module, x: Float[Tensor, "n pixels"]) -> pd.DataFrame:
        return sensitivities(
            model, as_images(x), delta=delta, draws=DRAWS, batch_norm="running",
            forward=lambda model, x: model(x.flatten(1)),
        )  # fmt: skip

    return Reading(layer, masks, stability)


def of_characters(layer: str, blank: int) -> Reading:
    """A reading of `Transformer` at its last place: two neighbouring characters swapped, against noise of that size.

    blank  the number of the character that masks
    """

    def masks(x: Int[Tensor, "n t"]) -> tuple[Bool[Tensor, "v t"], Int[Tensor, " t"]]:
        places = torch.eye(x.shape[1], dtype=torch.bool)[-VARIABLES:]
        return places, torch.full((x.shape[1],), blank)

    def stability(model: nn.Module, x: Int[Tensor, "n t"]) -> pd.DataFrame:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            e = model.embed(x)
            swapped = torch.stack([model.embed(swap(x, generator)) for _ in range(DRAWS)])
        noise = torch.randn(swapped.shape, generator=generator)
        size = (swapped - e).flatten(2).norm(dim=2) / noise.flatten(2).norm(dim=2)
        noisy = e + size[..., None, None] * noise
        return compare(model, e, deformed=swapped, noisy=noisy, forward=lambda model, e: model.read(e)[:, -1])

    return Reading(layer, masks, stability, lambda model, x: model(x)[:, -1], lambda y: y[:, -1])


def swap(x: Int[Tensor, "n t"], generator: torch.Generator) -> Int[Tensor, "n t"]:
    """The samples with one pair of neighbours swapped, drawn among the pairs that differ; unchanged if none does."""
    differs = (x[:, 1:] != x[:, :-1]).double()
    first = torch.multinomial(differs + 1e-12, 1, generator=generator)
    places = torch.cat([first, first + 1], 1)
    return x.scatter(1, places, x.gather(1, places.flip(1)))


def _mean(quantity: str, values: Tensor) -> tuple[str, float, float]:
    values = values.detach().double()
    return quantity, values.mean().item(), (values.std() / len(values) ** 0.5).item()


def _table(*rows: tuple) -> pd.DataFrame:
    padded = [(*row, *[np.nan] * (4 - len(row))) for row in rows]
    return pd.DataFrame(padded, columns=["quantity", "value", "error", "control"]).astype({"quantity": "str"})
