"""What do interactions cost: the transform against shapiq, the split against a linear program, layers of a network?"""

import time
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks.report import table
from benchmarks.timing import in_turn, seconds, spread
from nin.model.data import as_images
from nin.probes.interactions import layerwise, moebius, split
from nin.probes.interactions.games import members
from studies.images import first_at_hand
from studies.layerwise_interactions.identities import linear_program

IMAGES, LAYERS = 100, 8


def run() -> str:
    """Three tables: Moebius transform at n = 10 and 12; AND / OR split; layerwise analysis of 100 images."""
    return "\n\n".join([_transform(), _split(), _layerwise()])


def _transform() -> str:
    try:
        from shapiq import ExactComputer
    except ImportError:
        return "shapiq is not installed (pip install shapiq): the transform was not compared."
    rows = []
    for n in (10, 12):
        v = torch.randn(2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        computer = ExactComputer(partial(_look_up, v.numpy()), n_players=n)
        theirs = computer("Moebius")
        found = np.array([theirs[tuple(np.flatnonzero(row))] for row in members(2**n).numpy()[1:]])
        off = np.abs(found - moebius(v).numpy()[1:]).max()
        taken = in_turn(
            {
                "ours": lambda v=v: seconds(lambda: [moebius(v) for _ in range(200)], on=1) / 200,
                "shapiq": lambda v=v, n=n: seconds(
                    lambda: ExactComputer(partial(_look_up, v.numpy()), n_players=n)("Moebius")
                ),
            },
            3,
        )
        ratio = spread(taken["shapiq"] / taken["ours"], 0)
        rows.append((f"n = {n}", f"{1e6 * np.median(taken['ours']):.0f} us", f"{off:.0e}", ratio))
    return table(("Moebius transform of one game", "ours", "largest difference", "shapiq / ours (goal 1000)"), rows)


def _look_up(values: np.ndarray, coalitions: np.ndarray) -> np.ndarray:
    return values[np.atleast_2d(coalitions) @ (1 << np.arange(coalitions.shape[-1]))]


def _split() -> str:
    rows = []
    for n, count, programs in ((8, 100, 8), (10, 100, 3)):
        games = _games(n, count)
        start = time.perf_counter()
        found = split(games)
        taken = time.perf_counter() - start
        start = time.perf_counter()
        best = np.array([linear_program(v.numpy()).fun for v in games[:programs]])
        program = (time.perf_counter() - start) / programs
        excess = found.objective[:programs].numpy() / best
        bounded = (found.objective / found.bound).numpy()
        rows.append(
            (
                f"{count} games, n = {n}",
                f"{taken:.1f}",
                f"{np.median(excess):.4f}, {excess.max():.4f} of {programs}",
                f"{np.median(bounded):.4f}, {bounded.max():.4f} of {count}",
                f"{program / (taken / count):.0f}",
            )
        )
    columns = (
        "AND / OR split",
        "seconds (goal 8)",
        "objective / HiGHS: median, worst",
        "objective / bound: median, worst",
        "HiGHS / ours, a game",
    )
    return table(columns, rows)


def _games(n: int, count: int) -> torch.Tensor:
    """Random networks of one hidden layer as games."""
    generator = torch.Generator().manual_seed(n)
    options = {"dtype": torch.float64, "generator": generator}
    x = members(2**n).double()
    hidden = [torch.tanh(x @ torch.randn(n, 16, **options) / 1.5 + 0.3) for _ in range(count)]
    return torch.stack([h @ torch.randn(16, **options) for h in hidden])


def _layerwise() -> str:
    name, data = first_at_hand(["fashion_mnist", "mnist", "scale_detection"], n_train=2000, n_test=IMAGES)
    x = as_images(data.x_train)
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.LazyLinear(128), nn.ReLU()) for _ in range(LAYERS)]
    model = nn.Sequential(nn.Flatten(), *hidden, nn.LazyLinear(data.classes))
    model(x[:2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(10):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), data.y_train[batch]).backward()
            optimizer.step()
    images = as_images(data.x_test), data.y_test
    taken = seconds(lambda: layerwise(model, *images, train=(x, data.y_train)))
    what = f"{IMAGES} images ({name}), n = 10, {LAYERS} layers, with untrained and permuted controls, noise, intervals"
    return table(("layerwise analysis", "seconds (goal 180)"), [(what, f"{taken:.0f}")])
