"""Interactions in small image networks: by layer and order, with controls, other probes and other definitions."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.dataset import Dataset
from nin.model.losses import accuracy, score
from nin.probes.interactions.by_layer import Noise, reinitialised, under_noise
from nin.probes.interactions.comparison import Ratio, changes, salient
from nin.probes.interactions.games import by_order, mean_order, moebius
from nin.probes.interactions.games_of_layers import (
    LayerInteractions,
    default_layers,
    image_patches,
    layer_games,
    layer_interactions,
)
from nin.probes.interactions.layer_table import compared, resampled, steady, table
from nin.probes.interactions.ledger import residual_ledger
from nin.probes.interactions.readouts import Readout, fit_readouts, head_readout
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from studies.image_networks import ImageRecipe, fit_images
from studies.images import images_of
from studies.statistics import geometric_band

FITTED = 1000  # training images that readouts are fitted to
ONE_THREAD = 8  # patches; up to this number a second thread brings nothing
THRESHOLD = 0.05  # of salient interactions, as in the paper
RESAMPLES = 200  # of the images, for the 95 % intervals of one network
ITERATIONS = 150  # of the splits: more change completeness and redundancy by less than .01 (figure of the choices)
L2_OF_LOGITS = 1e-6  # of the readouts of logits: as small as float64 allows, for the head itself is the optimum at 0
RATIOS = ("completeness", "redundancy")


def classified_correctly(networks: Sequence[nn.Module], count: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The first `count` images that all these networks classify correctly, and their labels."""
    with torch.no_grad():
        right = torch.stack([accuracy(network(x), y) for network in networks]).all(0).nonzero()[:, 0][:count]
    return x[right], y[right]


@dataclass(frozen=True)
class Reading:
    """What `Reader` found in one network: interactions, the readouts of its layers, and their accuracies."""

    found: LayerInteractions
    readouts: dict[str, Readout]
    accuracies: list[float]


@dataclass(frozen=True)
class Reader:
    """Reads networks with readouts that are fitted to x and y; absent patches take the baseline."""

    x: Tensor
    y: Tensor
    baseline: Tensor
    patches: int

    def __call__(self, network: nn.Module, these: Tensor, labels: Tensor) -> Reading:
        """The interactions of all layers for these images."""
        readouts = fit_readouts(network, self.x, self.y, default_layers(network))
        accuracies = [*(readout.accuracy for readout in readouts.values()), score(network, self.x, self.y)]
        found = self.games(network, these, labels, self.patches_of(these), readouts=readouts)
        return Reading(found, readouts, accuracies)

    def patches_of(self, these: Tensor) -> Tensor:
        return image_patches(these, None, self.baseline, self.patches)

    def games(
        self, network: nn.Module, these: Tensor, labels: Tensor, patches: Tensor, *, readouts: dict[str, Readout]
    ) -> LayerInteractions:
        """The interactions for images with given patches and readouts."""
        games = layer_games(network, these, labels, readouts=readouts, patches=patches, baseline=self.baseline)
        return layer_interactions(games, iterations=ITERATIONS)


def by_layer(
    recipes: Mapping[str, ImageRecipe],
    data: Dataset,
    *,
    seeds: Sequence[int],
    patches: int,
    images: int,
    untrained_images: int,
    noise: Noise,
    progress: bool = False,
) -> tuple[pd.DataFrame, dict[tuple[str, int], nn.Module]]:
    """The table of `layerwise` for each architecture and seed, with the next seed as `second`; and the networks.

    All seeds of an architecture, trained and untrained, are read once, on the first images that all trained ones
    classify correctly: the untrained ones on the first `untrained_images` of these. The generalisation of "untrained"
    is the IoU with the next untrained network, its stability that of its own layers; "untrained, permuted" has the
    stability alone. Columns: architecture, seed, test_accuracy, then those of `layerwise`.
    """
    x, x_test = images_of(data)
    networks, tables = {}, []
    with threads(1 if patches <= ONE_THREAD else None):
        for name in ProgressBar(list(recipes), progress=progress, desc="by layer", unit="architecture"):
            ours = {seed: fit_images(recipes[name], x, data.y_train, classes=data.classes, seed=seed) for seed in seeds}
            networks |= {(name, seed): network for seed, network in ours.items()}
            these, labels = classified_correctly(list(ours.values()), images, x_test, data.y_test)
            read = Reader(x[:FITTED], data.y_train[:FITTED], x.mean(0), patches)
            trained = {seed: read(network, these, labels) for seed, network in ours.items()}
            few = slice(untrained_images)
            fresh = {seed: reinitialised(network, seed=seed) for seed, network in ours.items()}
            initial = {seed: read(network, these[few], labels[few]) for seed, network in fresh.items()}
            for seed, after in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
                found = {"model": trained[seed], "untrained": initial[seed], "second": trained[after]}
                found |= {"untrained second": initial[after]} if len(ours) > 1 else {}
                generator = torch.Generator().manual_seed(seed)
                ratios = compared({key: one.found for key, one in found.items()}, THRESHOLD, "layer", generator)
                shaken = under_noise(these, labels, read.patches_of(these), noise, generator)
                for key, ends in (("model", "permuted"), ("untrained", "untrained, permuted")):
                    network = (ours if key == "model" else fresh)[seed]
                    draws = read.games(network, *shaken, readouts=found[key].readouts)
                    count = (noise.draws, len(these), THRESHOLD, "layer", generator, (key, ends))
                    ratios |= steady(found[key].found, draws, *count)
                weights = resampled(len(these), RESAMPLES, seed)
                rows = [("model", "model"), ("permuted", "model"), ("untrained", "untrained"), ("second", "second"),
                        ("untrained, permuted", "untrained")]  # fmt: skip
                layers = trained[seed].found.layers
                parts = [table(row, layers, found[of].accuracies, ratios, weights) for row, of in rows]
                score_of = score(ours[seed], x_test, data.y_test)
                tables.append(pd.concat(parts).assign(architecture=name, seed=seed, test_accuracy=score_of))
    frame = pd.concat(tables, ignore_index=True)
    first = ["architecture", "seed", "test_accuracy"]
    return frame[[*first, *frame.columns.drop(first)]], networks


def probes(networks: Mapping[tuple[str, int], nn.Module], data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """Completeness and redundancy of the hidden layers by several probes, in float64 on the same images.

    probe   "labels": a classifier of the labels, as in the paper; "logits": ridge regression of the network's own
            logits on the same samples; "head": the network's own head, of the last hidden layer alone, whose values
            must be 1 and 0; "untrained": the trained network's logits from the features of an untrained one, the
            control of "logits". The distance of "labels" and "logits" from 1 and 0 at that layer is their floor
    Columns: architecture, seed, probe, layer, depth, completeness, redundancy.
    """
    x, x_test = images_of(data)
    rows, outputs = [], {}
    with threads(1 if patches <= ONE_THREAD else None):
        for (name, seed), network in networks.items():
            these, labels = classified_correctly([network], images, x_test, data.y_test)
            exact, these = copy.deepcopy(network).double(), these.double()
            known, y, layers = x[:FITTED].double(), data.y_train[:FITTED], default_layers(network)
            with torch.no_grad():
                logits = exact(known)
            readouts = {
                "labels": fit_readouts(exact, known, y, layers),
                "logits": fit_readouts(exact, known, y, layers, logits=logits, l2=L2_OF_LOGITS),
                "head": {layers[-1]: head_readout(exact, layers[-1], "head", known, y)},
            }
            fresh = reinitialised(exact, seed=seed)
            readouts["untrained"] = fit_readouts(fresh, known, y, layers, logits=logits, l2=L2_OF_LOGITS)
            options = {"baseline": x.double().mean(0), "patches": image_patches(these, None, x.mean(0), patches)}
            for probe, fitted in readouts.items():
                read = fresh if probe == "untrained" else exact
                games = layer_games(read, these, labels, readouts=fitted, **options)
                games["output"] = outputs.setdefault((name, seed), games["output"])  # that of the trained network
                found = layer_interactions(games, iterations=ITERATIONS)
                strong = salient(found.scaled)
                ratios = changes(strong, strong[-1:])
                for number, layer in enumerate(found.layers[:-1]):
                    values = [_total(ratios[quantity], number) for quantity in RATIOS]
                    rows.append((name, seed, probe, layer, layers.index(layer) + 1, *values))
    return pd.DataFrame(rows, columns=["architecture", "seed", "probe", "layer", "depth", *RATIOS])


LINEAR = {"residual": "block3"}  # the first layer from which the output is linear; in the others, the last hidden one


def inner_rise(table: pd.DataFrame) -> pd.DataFrame:
    """Completeness of the last layer from which the output is not linear over the first layer, by readouts of logits.

    table: that of `probes`. Columns: architecture, first, last (layers), ratio, low, high (geometric mean over seeds,
    95 %), control, control_low, control_high (untrained).
    """
    rows = []
    for name, part in table.groupby("architecture", sort=False):
        layers = list(dict.fromkeys(part.sort_values("depth")["layer"]))
        ends = layers[0], layers[layers.index(LINEAR.get(name, layers[-1])) - 1]
        bands = []
        for probe in ("logits", "untrained"):
            found = part[part["probe"] == probe].pivot(index="seed", columns="layer", values="completeness")
            bands.append(geometric_band(found[ends[1]] / found[ends[0]]))
        rows.append((name, *ends, *(value for band in bands for value in (band.mean, band.low, band.high))))
    columns = ["architecture", "first", "last", "ratio", "low", "high", "control", "control_low", "control_high"]
    return pd.DataFrame(rows, columns=columns)


def _total(ratio: Ratio, layer: int) -> float:
    """The ratio of one layer: both kinds, all orders, all images."""
    return ratio.interval(np.ones((1, len(ratio.above))))[0][layer, 2, 0]


def ledgers(networks: Sequence[nn.Module], data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """`residual_ledger` of residual networks (see `ImageRecipe`) in float64; `seed` is the network's place in the list.

    Further column: mismatch, max |stem + blocks - output| / max |output| of the AND interactions.
    """
    x, x_test = images_of(data)
    tables = []
    for seed, network in enumerate(networks):
        these, labels = classified_correctly([network], images, x_test, data.y_test)
        exact = copy.deepcopy(network).double()
        ledger = residual_ledger(
            exact, these.double(), labels, blocks=["block1", "block2", "block3"], baseline=x.mean(0),
            readout=lambda h, exact=exact: exact.head(exact.pool(h)),
            patches=image_patches(these, None, x.mean(0), patches),
        )  # fmt: skip
        entries, output = ledger.interactions()
        off = (entries[:-1].sum(0) - output).abs().max() / output.abs().max()
        tables.append(ledger.frame().assign(seed=seed, mismatch=off.item()))
    return pd.concat(tables, ignore_index=True)


def artefact(network: nn.Module, data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """Shares of the AND strength by order, for log-odds and margin of the network and of a linear readout of pixels.

    Columns: readout ("pixels", "output"), value, order, share. No split: AND interactions express the whole game.
    """
    x, x_test = images_of(data)
    these, labels = classified_correctly([network], images, x_test, data.y_test)
    wrapped = _Pixels(network)
    readouts = fit_readouts(wrapped, x[:FITTED], data.y_train[:FITTED], ["pixels"])
    chosen = image_patches(these, None, x.mean(0), patches)
    rows = []
    for value in ("log_odds", "margin"):
        games = layer_games(wrapped, these, labels, readouts=readouts, patches=chosen, baseline=x.mean(0), value=value)
        for readout, game in games.items():
            strength = _strength(moebius(game)[:, None])
            rows += [(readout, value, m, part) for m, part in enumerate(strength / strength.sum(), 1)]
    return pd.DataFrame(rows, columns=["readout", "value", "order", "share"])


class _Pixels(nn.Module):
    """A network whose input is a layer as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.pixels, self.network = nn.Identity(), network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.pixels(x))


def choices(network: nn.Module, data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """Completeness, redundancy and mean order by layer, for several choices that the paper leaves open.

    Columns: choice, layer, depth, completeness, redundancy, mean_order. All choices use the same images.
    """
    x, x_test = images_of(data)
    these, labels = classified_correctly([network], images, x_test, data.y_test)
    readouts = fit_readouts(network, x[:FITTED], data.y_train[:FITTED], default_layers(network))
    options = {"readouts": readouts, "baseline": x.mean(0), "patches": image_patches(these, None, x.mean(0), patches)}
    odds, margins = (layer_games(network, these, labels, value=value, **options) for value in ("log_odds", "margin"))
    paper = layer_interactions(odds, iterations=ITERATIONS)
    cases = {
        "as in the paper": (paper, "layer"),
        "splits to 0.5 %": (layer_interactions(odds, accuracy=0.005), "layer"),
        "threshold by image": (paper, "image"),
        "no delta": (layer_interactions(odds, kappa=0.0, iterations=ITERATIONS), "layer"),
        "ties to low orders": (layer_interactions(odds, tie_break=0.01, iterations=ITERATIONS), "layer"),
        "AND alone": (_and_alone(paper), "layer"),
        "margin": (layer_interactions(margins, iterations=ITERATIONS), "layer"),
    }
    rows = []
    for choice, (found, per) in cases.items():
        strong = salient(found.scaled, per=per)
        ratios = changes(strong, strong[-1:])
        for number, layer in enumerate(found.layers):
            order = mean_order(_strength(strong[number]))
            totals = [_total(ratios[name], number) for name in RATIOS]
            rows.append((choice, layer, number + 1, *totals, order))
    return pd.DataFrame(rows, columns=["choice", "layer", "depth", *RATIOS, "mean_order"])


def _and_alone(found: LayerInteractions) -> LayerInteractions:
    values = torch.zeros_like(found.values)
    values[..., 0, 1:] = moebius(found.games)[..., 1:]
    return replace(found, values=values)


def _strength(values: Float[Tensor, "images kinds coalitions"]) -> np.ndarray:
    """E_x sum |I| of each order from 1 to n, both kinds."""
    return by_order(values.abs().sum(1)).mean(0).numpy()
