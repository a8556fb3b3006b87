"""Spatial stability of small image networks before and after training, and the claims on it (arXiv 2210.01506)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.data import Dataset, as_images
from nin.model.losses import score
from nin.probes.stability import deform, filter_spectrum, sensitivities, shuffle_channels, temperature
from nin.probes.stability.deformations import draw_field
from nin.support.arguments import check_count
from nin.support.progress import ProgressBar
from studies.image_networks import ImageRecipe, build, fit_images
from studies.statistics import geometric_band, loglog_slope, verdict


def gallery(
    image: Float[Tensor, "side side"], deltas: Sequence[float], cutoffs: Sequence[float], seed: int
) -> pd.DataFrame:
    """One image under fields of several displacements and cut-offs, of one seed: delta, c, T, row, column, value."""
    side, tables = len(image), []
    for c in cutoffs:
        for delta in deltas:
            T = temperature(delta, side, c)
            generator = torch.Generator().manual_seed(seed)
            options = {"generator": generator, "modes": "published", "device": image.device, "dtype": image.dtype}
            field = draw_field(side, c, T, 1, **options)  # folds are shown, not warned of
            values = deform(image[None, None], field)[0, 0]
            places = np.indices((side, side)).reshape(2, -1)
            columns = {"delta": delta, "c": c, "T": T, "row": places[0], "column": places[1]}
            tables.append(pd.DataFrame(columns | {"value": values.flatten().numpy()}))
    return pd.concat(tables, ignore_index=True)


def layer_sensitivities(network: nn.Module, x: Float[Tensor, "n 1 side side"], **columns: object) -> pd.DataFrame:
    """Sensitivities of a network's layers, preceded by these columns, and place: depth / depth of the output."""
    layers = [name for name, _ in network.named_children()]
    frame = sensitivities(network, x, layers=layers, draws=2)
    frame = frame.assign(place=frame["depth"] / frame["depth"].max())
    for number, (name, value) in enumerate(columns.items()):
        frame.insert(number, name, value)
    return frame


def before_and_after(
    recipes: Sequence[ImageRecipe], data: Dataset, *, seeds: Sequence[int], progress: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sensitivities and filter spectra of networks at initialisation, trained, and trained with shuffled channels.

    First table: architecture, seed, state, accuracy (test), then those of `nin.probes.stability.sensitivities`, place.
    Second: architecture, seed, state, then those of `filter_spectrum`.
    """
    x, x_test = as_images(data.x_train), as_images(data.x_test)
    tables, spectra = [], []
    cases = [(recipe, seed) for recipe in recipes for seed in seeds]
    for recipe, seed in ProgressBar(cases, progress=progress, desc="before and after", unit="network"):
        trained = fit_images(recipe, x, data.y_train, classes=data.classes, seed=seed)
        networks = {"initial": build(recipe, x.shape[-1], data.classes, seed=seed), "trained": trained}
        if recipe.architecture != "fully_connected":
            networks["shuffled"] = shuffle_channels(trained, generator=torch.Generator().manual_seed(seed))
        for state, network in networks.items():
            case = {"architecture": recipe.architecture, "seed": seed, "state": state}
            accuracy = score(network, x_test, data.y_test)
            tables.append(layer_sensitivities(network, x_test, **case, accuracy=accuracy))
            if "shuffled" in networks and state != "shuffled":
                spectrum = filter_spectrum(network)
                spectra.append(spectrum.assign(**case)[[*case, *spectrum.columns]])
    return pd.concat(tables, ignore_index=True), pd.concat(spectra, ignore_index=True)


def at_the_output(
    recipes: Sequence[ImageRecipe],
    data: Dataset,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    progress: bool = False,
) -> pd.DataFrame:
    """D, G, R of the trained networks' outputs and their test accuracy, for several training-set sizes.

    Recipes are trained on the first `size` images, for as many steps as with all images.
    Columns: architecture, noise, n_train, seed, accuracy, D, G, R.
    """
    x, x_test = as_images(data.x_train), as_images(data.x_test)
    for size in sizes:
        check_count("sizes", size, minimum=2)
        if size > len(x):
            raise ValueError(f"sizes={list(sizes)} asks for more than the {len(x)} training images.")
    rows = []
    cases = [(recipe, size, seed) for recipe in recipes for size in sizes for seed in seeds]
    for recipe, size, seed in ProgressBar(cases, progress=progress, desc="trained", unit="network"):
        longer = replace(recipe, epochs=round(recipe.epochs * len(x) / size))
        network = fit_images(longer, x[:size], data.y_train[:size], classes=data.classes, seed=seed)
        output = layer_sensitivities(network, x_test).iloc[-1]
        accuracy = score(network, x_test, data.y_test)
        rows.append((recipe.architecture, recipe.noise, size, seed, accuracy, output["D"], output["G"], output["R"]))
    return pd.DataFrame(rows, columns=["architecture", "noise", "n_train", "seed", "accuracy", "D", "G", "R"])


@dataclass(frozen=True)
class Claim:
    """The claim that a ratio, with one value per seed, lies above 1 (side=1) or below 1 (side=-1)."""

    text: str
    architecture: str
    side: int
    ratios: pd.Series | np.ndarray

    def row(self) -> tuple:
        """Claim, architecture, ratio, low, high, verdict: the columns of `claims`."""
        band = geometric_band(self.ratios)
        return self.text, self.architecture, band.mean, band.low, band.high, verdict(band, side=self.side)


def claims(measured: pd.DataFrame, spectra: pd.DataFrame, output: pd.DataFrame) -> pd.DataFrame:
    """The claims of the paper, one row for each architecture: claim, architecture, ratio, low, high, verdict.

    measured, spectra    the tables of `before_and_after`; output: that of `at_the_output`, without noise
    ratio, with its 95 % interval over seeds (low, high): a claim says that it is above or below 1
    verdict: `studies.statistics.verdict`, without a control
    """
    found = []
    for architecture, frame in measured.groupby("architecture", sort=False):
        found += _about_layers(architecture, frame)
        if "shuffled" in set(frame["state"]):
            found += _about_pooling(architecture, frame, spectra[spectra["architecture"] == architecture])
    for architecture, frame in output.groupby("architecture", sort=False):
        slopes = np.array([loglog_slope(part["n_train"], part["R"]).value for _, part in frame.groupby("seed")])
        found.append(
            Claim("R of the output falls with the training set: R at 2 n / R at n", architecture, -1, 2**slopes)
        )
    columns = ["claim", "architecture", "ratio", "low", "high", "verdict"]
    table = pd.DataFrame([claim.row() for claim in found], columns=columns)
    return table.sort_values("claim", kind="stable", ignore_index=True)


def _about_layers(architecture: str, frame: pd.DataFrame) -> list[Claim]:
    """Last layer against first, and trained against initial."""
    last = frame[frame["place"] == 1].set_index(["state", "seed"])
    first = frame[frame["depth"] == 1].set_index(["state", "seed"])
    D, G, R = last["D"] / first["D"], last["G"] / first["G"], last["R"]
    return [
        Claim("D falls with depth after training: D_K / D_1", architecture, -1, D["trained"]),
        Claim("D does not fall with depth at initialisation: D_K / D_1", architecture, 1, D["initial"]),
        Claim("G rises with depth after training: G_K / G_1", architecture, 1, G["trained"]),
        Claim("training lowers R of the output: R / R at initialisation", architecture, -1,
              R["trained"] / R["initial"]),
    ]  # fmt: skip


def _about_pooling(architecture: str, frame: pd.DataFrame, spectra: pd.DataFrame) -> list[Claim]:
    """Shuffled against trained channels, and the homogeneous filters after training against before."""
    D = frame[frame["place"] == 1].set_index(["state", "seed"])["D"]
    share = spectra[spectra["mode"] == 0].groupby(["state", "seed"])["share"].mean()
    return [
        Claim("channel pooling: shuffling raises D of the output, ratio", architecture, 1,
              D["shuffled"] / D["trained"]),
        Claim("spatial pooling: share of homogeneous filters, after / before", architecture, 1,
              share["trained"] / share["initial"]),
    ]  # fmt: skip
