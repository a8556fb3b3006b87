"""Spatial stability of small networks of images, before and after training (arXiv 2210.01506)."""

from collections.abc import Sequence
from dataclasses import replace

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


def probe(network: nn.Module, x: Float[Tensor, "n 1 side side"], **columns: object) -> pd.DataFrame:
    """Sensitivities of a network's layers, with these columns before them, and place: depth / depth of the output."""
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
            tables.append(probe(network, x_test, **case, accuracy=accuracy))
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

    Recipes are trained on the first `size` images with the epochs that make equally many steps as all images do.
    Columns: architecture, noise, n_train, seed, accuracy, D, G, R.
    """
    x, x_test = as_images(data.x_train), as_images(data.x_test)
    for size in sizes:
        check_count("sizes", size, minimum=2)
        if size > len(x):
            raise ValueError(f"sizes={list(sizes)} asks for more than the {len(x)} training images there are.")
    rows = []
    cases = [(recipe, size, seed) for recipe in recipes for size in sizes for seed in seeds]
    for recipe, size, seed in ProgressBar(cases, progress=progress, desc="trained", unit="network"):
        longer = replace(recipe, epochs=round(recipe.epochs * len(x) / size))
        network = fit_images(longer, x[:size], data.y_train[:size], classes=data.classes, seed=seed)
        output = probe(network, x_test).iloc[-1]
        accuracy = score(network, x_test, data.y_test)
        rows.append((recipe.architecture, recipe.noise, size, seed, accuracy, output["D"], output["G"], output["R"]))
    return pd.DataFrame(rows, columns=["architecture", "noise", "n_train", "seed", "accuracy", "D", "G", "R"])


def claims(measured: pd.DataFrame, spectra: pd.DataFrame, output: pd.DataFrame) -> pd.DataFrame:
    """The claims of the paper, one row for each architecture: claim, architecture, ratio, low, high, verdict.

    measured, spectra    the tables of `before_and_after`; output: that of `at_the_output`, without noise
    ratio, with its 95 % interval over seeds (low, high): a claim says that it is above or below 1
    verdict: `studies.statistics.verdict`, without a control
    """
    rows = []
    for architecture, frame in measured.groupby("architecture", sort=False):
        last = frame[frame["place"] == 1].set_index(["state", "seed"])
        first = frame[frame["depth"] == 1].set_index(["state", "seed"])
        depth = {quantity: (last[quantity] / first[quantity]) for quantity in "DG"}
        found = {
            ("D falls with depth after training: D_K / D_1", -1): depth["D"]["trained"],
            ("D does not fall with depth at initialisation: D_K / D_1", 1): depth["D"]["initial"],
            ("G rises with depth after training: G_K / G_1", 1): depth["G"]["trained"],
            ("training lowers R of the output: R / R at initialisation", -1): last["R"]["trained"]
            / last["R"]["initial"],
        }
        if "shuffled" in last.index:
            shuffled = last["D"]["shuffled"] / last["D"]["trained"]
            found["channel pooling: shuffling raises D of the output, ratio", 1] = shuffled
            filters = spectra[(spectra["architecture"] == architecture) & (spectra["mode"] == 0)]
            share = filters.groupby(["state", "seed"])["share"].mean()
            found["spatial pooling: share of homogeneous filters, after / before", 1] = (
                share["trained"] / share["initial"]
            )
        rows += [(claim, architecture, side, ratios) for (claim, side), ratios in found.items()]
    for architecture, frame in output.groupby("architecture", sort=False):
        slopes = [loglog_slope(part["n_train"], part["R"]).value for _, part in frame.groupby("seed")]
        rows.append(
            ("R of the output falls with the training set: R at 2 n / R at n", architecture, -1, 2 ** np.array(slopes))
        )
    table = []
    for claim, architecture, side, ratios in rows:
        band = geometric_band(ratios)
        table.append((claim, architecture, band.mean, band.low, band.high, verdict(band, side=side)))
    return pd.DataFrame(table, columns=["claim", "architecture", "ratio", "low", "high", "verdict"]).sort_values(
        "claim", kind="stable", ignore_index=True
    )
