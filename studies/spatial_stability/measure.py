"""Spatial stability of small image networks before and after training (arXiv 2210.01506)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.data import as_images
from nin.model.dataset import Dataset
from nin.model.losses import score
from nin.probes.stability import (
    deform,
    displacement_field,
    filter_spectrum,
    sensitivities,
    shuffle_channels,
    temperature,
)
from nin.probes.stability.deformations import draw_field
from nin.support.arguments import check_count
from nin.support.progress import ProgressBar
from studies.image_networks import ImageRecipe, build, fit_images


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
    """Sensitivities of a network's layers, preceded by these columns, then place and at.

    place: depth / depth of the output. at: "first", "middle" or "last hidden" layer, "output", or "" for the others.
    """
    layers = [name for name, _ in network.named_children()]
    frame = sensitivities(network, x, layers=layers, draws=2)
    depths = frame["depth"].max()
    named = {1: "first", depths // 2: "middle", depths - 1: "last hidden", depths: "output"}
    frame = frame.assign(place=frame["depth"] / depths, at=frame["depth"].map(named).fillna(""))
    for number, (name, value) in enumerate(columns.items()):
        frame.insert(number, name, value)
    return frame


def before_and_after(
    recipes: Sequence[ImageRecipe], data: Dataset, *, seeds: Sequence[int], progress: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sensitivities and filter spectra of networks at initialisation and trained, each also with shuffled channels.

    First table: architecture, seed, state ("initial", "trained", "shuffled": trained, then shuffled, "shuffled
    initial"), accuracy (test), then those of `layer_sensitivities`. Second: architecture, seed, state, then those of
    `filter_spectrum`.
    """
    x, x_test = as_images(data.x_train), as_images(data.x_test)
    tables, spectra = [], []
    cases = [(recipe, seed) for recipe in recipes for seed in seeds]
    for recipe, seed in ProgressBar(cases, progress=progress, desc="before and after", unit="network"):
        trained = fit_images(recipe, x, data.y_train, classes=data.classes, seed=seed)
        initial = build(recipe, x.shape[-1], data.classes, seed=seed)
        networks = {"initial": initial, "trained": trained}
        if recipe.architecture != "fully_connected":
            for state, network in (("shuffled", trained), ("shuffled initial", initial)):
                networks[state] = shuffle_channels(network, generator=torch.Generator().manual_seed(seed))
        for state, network in networks.items():
            case = {"architecture": recipe.architecture, "seed": seed, "state": state}
            accuracy = score(network, x_test, data.y_test)
            tables.append(layer_sensitivities(network, x_test, **case, accuracy=accuracy))
            if "shuffled" in networks and not state.startswith("shuffled"):
                spectrum = filter_spectrum(network)
                spectra.append(spectrum.assign(**case)[[*case, *spectrum.columns]])
    return pd.concat(tables, ignore_index=True), pd.concat(spectra, ignore_index=True)


def deformation_size(x: Float[Tensor, "n 1 side side"], *, samples: int = 500, seed: int = 0) -> float:
    """Standard deviation per pixel of noise as large as a deformation: its square is <|tau x - x|^2> / pixels.

    The average runs over the first `samples` images, one deformation each, delta = 1 and c = 3 as in the papers.
    """
    x = x[:samples]
    field = displacement_field(
        x.shape[-1], 3, temperature(1, x.shape[-1], 3), len(x), generator=torch.Generator().manual_seed(seed)
    )
    return (deform(x, field) - x).square().mean().sqrt().item()


def after_training(
    recipes: Sequence[ImageRecipe],
    data: Dataset,
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    progress: bool = False,
) -> pd.DataFrame:
    """Sensitivities of trained networks, for several training-set sizes and the noise of each recipe.

    Recipes are trained on the first `size` images, for as many steps as with all images.
    Columns: architecture, noise, n_train, seed, state ("trained"), accuracy, then those of `layer_sensitivities`.
    """
    x, x_test = as_images(data.x_train), as_images(data.x_test)
    for size in sizes:
        check_count("sizes", size, minimum=2)
        if size > len(x):
            raise ValueError(f"sizes={list(sizes)} asks for more than the {len(x)} training images.")
    tables = []
    cases = [(recipe, size, seed) for recipe in recipes for size in sizes for seed in seeds]
    for recipe, size, seed in ProgressBar(cases, progress=progress, desc="trained", unit="network"):
        longer = replace(recipe, epochs=round(recipe.epochs * len(x) / size))
        network = fit_images(longer, x[:size], data.y_train[:size], classes=data.classes, seed=seed)
        case = {"architecture": recipe.architecture, "noise": recipe.noise, "n_train": size, "seed": seed}
        accuracy = score(network, x_test, data.y_test)
        tables.append(layer_sensitivities(network, x_test, **case, state="trained", accuracy=accuracy))
    return pd.concat(tables, ignore_index=True)


def over_initial(trained: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """D, G, R of trained networks over those of the same network and layer at initialisation.

    trained     a table of `after_training`; measured: that of `before_and_after` for the same seeds
    Columns: architecture, noise, n_train, seed, at, D, G, R; only the layers that `layer_sensitivities` names.
    """
    keys = ["architecture", "seed", "at"]
    start = measured[(measured["state"] == "initial") & (measured["at"] != "")]
    both = trained.merge(start[[*keys, "D", "G", "R"]], on=keys, suffixes=("", "_initial"))
    ratios = {name: both[name] / both[f"{name}_initial"] for name in "DGR"}
    return both[["architecture", "noise", "n_train", "seed", "at"]].assign(**ratios)
