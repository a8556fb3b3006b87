"""Interactions in small networks of images: layers, orders, controls, and what they owe to their definition."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nin.model.data import Dataset
from nin.model.losses import accuracy, score
from nin.probes.interactions.by_layer import Noise, layerwise
from nin.probes.interactions.comparison import changes, salient
from nin.probes.interactions.games import by_order, mean_order, moebius
from nin.probes.interactions.games_of_layers import (
    LayerInteractions,
    default_layers,
    image_patches,
    layer_games,
    layer_interactions,
)
from nin.probes.interactions.ledger import residual_ledger
from nin.probes.interactions.readouts import fit_readouts
from nin.support.progress import ProgressBar
from nin.support.threads import threads
from studies.image_networks import ImageRecipe, fit_images
from studies.images import images_of
from studies.statistics import geometric_band, verdict

FITTED = 1000  # training images that probes are fitted to
ONE_THREAD = 8  # patches up to which a second thread only waits
RATIOS = ("completeness", "redundancy")
CLAIMS = (
    "low orders are stronger (m <= n/2 over m > n/2)",
    "completeness rises with depth (last over first)",
    "redundancy rises at first (largest over first)",
    "redundancy falls in the end (last over largest)",
    "IoU of seeds falls with order (1, 2 over 3, 4)",
    "stability falls with order (1, 2 over 3, 4)",
)


def probed(network: nn.Module, count: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The first `count` of these images that the network classifies rightly."""
    with torch.no_grad():
        right = accuracy(network(x), y).nonzero()[:, 0][:count]
    return x[right], y[right]


def by_layer(
    recipes: Mapping[str, ImageRecipe],
    data: Dataset,
    *,
    seeds: Sequence[int],
    patches: int,
    images: int,
    noise: Noise,
    progress: bool = False,
) -> tuple[pd.DataFrame, dict[tuple[str, int], nn.Module]]:
    """`layerwise` for networks of each architecture and seed, the next seed's network as the second; and the networks.

    Columns: architecture, seed, test_accuracy, then those of `layerwise`.
    """
    x, x_test = images_of(data)
    cases = [(name, seed) for name in recipes for seed in seeds]
    networks, tables, few = {}, [], slice(FITTED)
    with threads(1 if patches <= ONE_THREAD else None):
        for name, seed in ProgressBar(cases, progress=progress, desc="trained", unit="network"):
            networks[name, seed] = fit_images(recipes[name], x, data.y_train, classes=data.classes, seed=seed)
        for name, seed in ProgressBar(cases, progress=progress, desc="layerwise", unit="network"):
            network = networks[name, seed]
            other = networks[name, seeds[(list(seeds).index(seed) + 1) % len(seeds)]]
            these, labels = probed(network, images, x_test, data.y_test)
            chosen = image_patches(these, None, x.mean(0), patches)
            table = layerwise(
                network, these, labels, patches=chosen, second=other, noise=noise,
                train=(x[few], data.y_train[few]), baseline=x.mean(0), seed=seed,
            )  # fmt: skip
            accuracy = score(network, x_test, data.y_test)
            tables.append(table.assign(architecture=name, seed=seed, test_accuracy=accuracy))
    frame = pd.concat(tables, ignore_index=True)
    first = ["architecture", "seed", "test_accuracy"]
    return frame[[*first, *frame.columns.drop(first)]], networks


def ledgers(networks: Sequence[nn.Module], data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """`residual_ledger` of residual networks (see `ImageRecipe`) in float64, with the number of the network as seed.

    Beside the ledger's columns: mismatch, the largest difference of stem and blocks from the output, as a fraction.
    """
    x, x_test = images_of(data)
    tables = []
    for seed, network in enumerate(networks):
        these, labels = probed(network, images, x_test, data.y_test)
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
    """Shares of the AND strength by order, of log-odds and margin, read from pixels linearly and from the network.

    Columns: readout ("pixels", "output"), value, order, share. No split: the whole game as AND interactions.
    """
    x, x_test = images_of(data)
    these, labels = probed(network, images, x_test, data.y_test)
    wrapped = _Pixels(network)
    probes = fit_readouts(wrapped, x[:FITTED], data.y_train[:FITTED], ["pixels"])
    chosen = image_patches(these, None, x.mean(0), patches)
    rows = []
    for value in ("log_odds", "margin"):
        games = layer_games(wrapped, these, labels, probes=probes, patches=chosen, baseline=x.mean(0), value=value)
        for readout, game in games.items():
            strength = _strength(moebius(game)[:, None])
            rows += [(readout, value, m, part) for m, part in enumerate(strength / strength.sum(), 1)]
    return pd.DataFrame(rows, columns=["readout", "value", "order", "share"])


class _Pixels(nn.Module):
    """A network whose input is a layer too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.pixels, self.network = nn.Identity(), network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.pixels(x))


def choices(network: nn.Module, data: Dataset, *, patches: int, images: int) -> pd.DataFrame:
    """Completeness, redundancy and mean order by layer under several ways to decide what the paper leaves open.

    Columns: choice, layer, depth, completeness, redundancy, mean_order. The images are the same in all.
    """
    x, x_test = images_of(data)
    these, labels = probed(network, images, x_test, data.y_test)
    probes = fit_readouts(network, x[:FITTED], data.y_train[:FITTED], default_layers(network))
    options = {"probes": probes, "baseline": x.mean(0), "patches": image_patches(these, None, x.mean(0), patches)}
    odds, margins = (layer_games(network, these, labels, value=value, **options) for value in ("log_odds", "margin"))
    paper = layer_interactions(odds)
    cases = {
        "as in the paper": (paper, "layer"),
        "threshold by image": (paper, "image"),
        "no delta": (layer_interactions(odds, kappa=0.0), "layer"),
        "ties to low orders": (layer_interactions(odds, tie_break=0.01), "layer"),
        "AND alone": (_and_alone(paper), "layer"),
        "margin": (layer_interactions(margins), "layer"),
    }
    rows = []
    for choice, (found, per) in cases.items():
        strong = salient(found.scaled, per=per)
        ratios = changes(strong, strong[-1:])
        for number, layer in enumerate(found.layers):
            order = mean_order(_strength(strong[number]))
            totals = [ratios[name].interval(np.ones((1, len(these))))[0][number, 2, 0] for name in RATIOS]
            rows.append((choice, layer, number + 1, *totals, order))
    return pd.DataFrame(rows, columns=["choice", "layer", "depth", *RATIOS, "mean_order"])


def _and_alone(found: LayerInteractions) -> LayerInteractions:
    values = torch.zeros_like(found.values)
    values[..., 0, 1:] = moebius(found.games)[..., 1:]
    return replace(found, values=values)


def _strength(values: Float[Tensor, "images kinds 2**n"]) -> np.ndarray:
    """E_x sum |I| of each order from 1 to n, both kinds."""
    return by_order(values.abs().sum(1)).mean(0).numpy()


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims, one row for each architecture: claim, architecture, ratio, low, high, control, verdict.

    frame      the table of `by_layer`
    ratio      of which the claim says that it is above 1 (below 1 for "redundancy falls"), geometric mean over seeds
               with its 95 % interval; control: the same ratio of the control, permuted within order where this moves
               it, else the untrained network
    verdict    as `studies.statistics.verdict`
    """
    rows = []
    for architecture, part in frame[frame["kind"] == "both"].groupby("architecture", sort=False):
        for claim in CLAIMS:
            name = "untrained" if claim.startswith(("low", "redundancy")) else "permuted"
            with np.errstate(invalid="ignore", divide="ignore"):
                ours, control = (
                    geometric_band([_measure(claim, run[run["network"] == network]) for _, run in part.groupby("seed")])
                    for network in ("model", name)
                )
            said = verdict(ours, side=-1 if "falls in the end" in claim else 1, control=control.mean)
            rows.append((claim, architecture, ours.mean, ours.low, ours.high, control.mean, said))
    table = pd.DataFrame(rows, columns=["claim", "architecture", "ratio", "low", "high", "control", "verdict"])
    return table.sort_values("claim", key=lambda claim: claim.map(CLAIMS.index), kind="stable", ignore_index=True)


def _measure(claim: str, rows: pd.DataFrame) -> float:
    last = rows["layer"].iloc[-1]
    final, total = rows[rows["layer"] == last].set_index("order"), rows[rows["order"] == 0]
    hidden = total[total["layer"] != last]
    n = rows["order"].max()
    if claim.startswith("low"):
        strength = final["strength"].loc[1:]
        return strength.loc[: n // 2].sum() / max(strength.loc[n // 2 + 1 :].sum(), 1e-3 * strength.sum())
    if claim.startswith("completeness"):
        return hidden["completeness"].iloc[-1] / hidden["completeness"].iloc[0]
    if claim.startswith("redundancy"):
        redundancy = hidden["redundancy"].to_numpy()
        falls = "falls" in claim
        return redundancy[-1] / redundancy[:-1].max() if falls else redundancy.max() / redundancy[0]
    values = final["generalisation" if claim.startswith("IoU") else "stability"]
    return values.loc[1:2].mean() / values.loc[3:4].mean()
