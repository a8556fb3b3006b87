"""Interactions in small image networks: by layer and order, with controls; other definitions; the claims."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from studies.statistics import Band, geometric_band, verdict

FITTED = 1000  # training images that readouts are fitted to
ONE_THREAD = 8  # patches; up to this number a second thread brings nothing
RATIOS = ("completeness", "redundancy")


def classified_correctly(network: nn.Module, count: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The first `count` images that the network classifies correctly, and their labels."""
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
    """`layerwise` for each architecture and seed, with the next seed's network as `second`; and the networks.

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
            these, labels = classified_correctly(network, images, x_test, data.y_test)
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
    """`residual_ledger` of residual networks (see `ImageRecipe`) in float64; `seed` is the network's place in the list.

    Further column: mismatch, max |stem + blocks - output| / max |output| of the AND interactions.
    """
    x, x_test = images_of(data)
    tables = []
    for seed, network in enumerate(networks):
        these, labels = classified_correctly(network, images, x_test, data.y_test)
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
    these, labels = classified_correctly(network, images, x_test, data.y_test)
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
    these, labels = classified_correctly(network, images, x_test, data.y_test)
    readouts = fit_readouts(network, x[:FITTED], data.y_train[:FITTED], default_layers(network))
    options = {"readouts": readouts, "baseline": x.mean(0), "patches": image_patches(these, None, x.mean(0), patches)}
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


def _strength(values: Float[Tensor, "images kinds coalitions"]) -> np.ndarray:
    """E_x sum |I| of each order from 1 to n, both kinds."""
    return by_order(values.abs().sum(1)).mean(0).numpy()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: that a ratio is above 1 (side 1) or below 1 (side -1).

    control    the network whose ratio shows what to expect if the claim does not hold: "untrained" or "permuted"
    ratio      from the rows of one network of one run (kind "both", all layers and orders), see `by_layer`
    """

    text: str
    control: str
    side: int
    ratio: Callable[[pd.DataFrame], float]


def _at_output(rows: pd.DataFrame, quantity: str) -> pd.Series:
    """A quantity of the last layer by order, from 1 on."""
    last = rows[rows["layer"] == rows["layer"].iloc[-1]]
    return last.set_index("order")[quantity].loc[1:]


def _hidden(rows: pd.DataFrame, quantity: str) -> np.ndarray:
    """A quantity of all orders together, layer by layer, without the last one."""
    return rows[rows["order"] == 0][quantity].to_numpy()[:-1]


def _low_over_high_strength(rows: pd.DataFrame) -> float:
    strength = _at_output(rows, "strength")
    half = strength.index.max() // 2
    low, high = strength.loc[:half].sum(), strength.loc[half + 1 :].sum()
    return low / max(high, 1e-3 * strength.sum())


def _last_over_first(values: np.ndarray) -> float:
    return values[-1] / values[0]


def _largest_over_first(values: np.ndarray) -> float:
    return values.max() / values[0]


def _last_over_largest(values: np.ndarray) -> float:
    return values[-1] / values[:-1].max()


def _low_over_middle(values: pd.Series) -> float:
    """The mean of orders 1 and 2 over that of orders 3 and 4."""
    return values.loc[1:2].mean() / values.loc[3:4].mean()


CLAIMS = (
    Claim("low orders are stronger (m <= n/2 over m > n/2)", "untrained", 1, _low_over_high_strength),
    Claim("completeness rises with depth (last over first)", "permuted", 1,
          lambda rows: _last_over_first(_hidden(rows, "completeness"))),
    Claim("redundancy rises at first (largest over first)", "untrained", 1,
          lambda rows: _largest_over_first(_hidden(rows, "redundancy"))),
    Claim("redundancy falls in the end (last over largest)", "untrained", -1,
          lambda rows: _last_over_largest(_hidden(rows, "redundancy"))),
    Claim("IoU of seeds falls with order (1, 2 over 3, 4)", "permuted", 1,
          lambda rows: _low_over_middle(_at_output(rows, "generalisation"))),
    Claim("stability falls with order (1, 2 over 3, 4)", "permuted", 1,
          lambda rows: _low_over_middle(_at_output(rows, "stability"))),
)  # fmt: skip


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """The paper's claims, one row for each architecture: claim, architecture, ratio, low, high, control, verdict.

    frame      the table of `by_layer`
    ratio      see CLAIMS; geometric mean over seeds with its 95 % interval
    control    the same ratio of the control: interactions permuted within order if that changes the ratio, else the
               untrained network
    verdict    see `studies.statistics.verdict`
    """
    both = frame[frame["kind"] == "both"]
    rows = []
    for claim in CLAIMS:
        for architecture, runs in both.groupby("architecture", sort=False):
            ours, control = (_over_seeds(claim, runs[runs["network"] == name]) for name in ("model", claim.control))
            said = verdict(ours, side=claim.side, control=control.mean)
            rows.append((claim.text, architecture, ours.mean, ours.low, ours.high, control.mean, said))
    return pd.DataFrame(rows, columns=["claim", "architecture", "ratio", "low", "high", "control", "verdict"])


def _over_seeds(claim: Claim, runs: pd.DataFrame) -> Band:
    with np.errstate(invalid="ignore", divide="ignore"):
        return geometric_band([claim.ratio(run) for _, run in runs.groupby("seed")])
