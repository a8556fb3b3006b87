"""Scale detection: two active pixels on a ring, classified by their distance (arXiv 2210.01506)."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nin.probes.stability import matched_noise
from nin.support.arguments import check_count


class Changes(NamedTuple):
    """Images, and draws of them with moved pixels and with noise of the same mean square."""

    x: Float[Tensor, "count 1 *side"]
    deformed: Float[Tensor, "draws count 1 *side"]
    noisy: Float[Tensor, "draws count 1 *side"]


@dataclass(frozen=True, kw_only=True)
class ScaleTask:
    """Two active pixels p, q of value sqrt(L/2) on a ring of L, in one of two classes.

    number 1:  +1 if their circular distance d < xi - gap, -1 if d >= xi + gap; other pairs do not occur
    number 2:  +1 if both lie in one block of xi pixels, floor(p / xi) = floor(q / xi), else -1
    length, xi    128 and 32 in the paper (Task 2); the defaults are half of that and train in seconds
    gap           of Task 1; the paper's value is not known to us, the default is xi / 4
    Raises ValueError for an unknown number, a length that is not a multiple of xi, or a gap that leaves a class empty.
    """

    number: int = 2
    length: int = 64
    xi: int = 16
    gap: int | None = None

    def __post_init__(self) -> None:
        if self.number not in (1, 2):
            raise ValueError(f"number={self.number!r} must be 1 or 2: the tasks of arXiv 2210.01506.")
        check_count("xi", self.xi, minimum=2)
        check_count("length", self.length, minimum=2 * self.xi)
        if self.length % self.xi:
            raise ValueError(f"length={self.length} must be a multiple of xi={self.xi}.")
        object.__setattr__(self, "gap", self.xi // 4 if self.gap is None else self.gap)
        check_count("gap", self.gap, minimum=0)
        if self.gap >= self.xi - 1 or self.xi + self.gap > self.length // 2:
            raise ValueError(f"gap={self.gap} leaves a class of Task 1 empty: take gap < xi - 1 and xi + gap <= L / 2.")

    def labels(self, positions: Int[Tensor, "... 2"]) -> Float[Tensor, "..."]:
        """+1 or -1; 0 in the gap of Task 1."""
        p, q = positions.unbind(-1)
        if self.number == 2:
            return torch.where(self._block(p) == self._block(q), 1.0, -1.0)
        d = (p - q).abs()
        d = torch.minimum(d, self.length - d)
        return (d < self.xi - self.gap).float() - (d >= self.xi + self.gap).float()

    @cached_property
    def pairs(self) -> Int[Tensor, "count 2"]:
        """All pairs p < q that have a label."""
        pairs = torch.combinations(torch.arange(self.length))
        return pairs[self.labels(pairs) != 0]

    def images(self, positions: Int[Tensor, "... 2"]) -> Float[Tensor, "... 1 length"]:
        """The images of pairs of positions; |x|^2 = L."""
        return F.one_hot(positions, self.length).sum(-2, keepdim=True) * (self.length / 2) ** 0.5

    def split(
        self, n_train: int, n_test: int, *, seed: int
    ) -> tuple[Int[Tensor, "n_train 2"], Int[Tensor, "n_test 2"]]:
        """Balanced, disjoint pairs (n_train, 2) and (n_test, 2); ValueError if a class has too few."""
        for name, count in (("n_train", n_train), ("n_test", n_test)):
            check_count(name, count, minimum=2)
        generator = torch.Generator().manual_seed(seed)
        labels = self.labels(self.pairs)
        train, test = [], []
        for label, odd in ((1, 0), (-1, 1)):
            rows = self.pairs[labels == label]
            ours, others = (n_train + odd) // 2, (n_test + odd) // 2
            if ours + others > len(rows):
                raise ValueError(
                    f"n_train={n_train} and n_test={n_test} ask for {ours + others} pairs of class {label:+d}, but "
                    f"there are only {len(rows)}. Take fewer, or a longer ring."
                )
            rows = rows[torch.randperm(len(rows), generator=generator)]
            train.append(rows[:ours])
            test.append(rows[ours : ours + others])
        return torch.cat(train), torch.cat(test)

    def move(self, positions: Int[Tensor, "... 2"], *, generator: torch.Generator) -> Int[Tensor, "... 2"]:
        """Move every active pixel by +1 or -1, unless that would change the label.

        In Task 2 a pixel does not leave its block of xi; in Task 1 both pixels stay if their label would change.
        """
        steps = 2 * torch.randint(2, positions.shape, generator=generator) - 1
        moved = (positions + steps) % self.length
        if self.number == 2:
            return torch.where(self._block(moved) == self._block(positions), moved, positions)
        kept = self.labels(moved) == self.labels(positions)
        return torch.where(kept[..., None], moved, positions)

    def changes(self, positions: Int[Tensor, "count 2"], draws: int, *, generator: torch.Generator) -> Changes:
        """Images, deformed and noisy, as `nin.probes.stability.compare` takes them; E |eta|^2 = < |tau x - x|^2 >."""
        check_count("draws", draws)
        x = self.images(positions)
        deformed = self.images(self.move(positions.expand(draws, *positions.shape), generator=generator))
        change = deformed - x
        size = change.square().flatten(2).sum(2).mean().item()
        return Changes(x, deformed, x + matched_noise(change, generator=generator, mean_square=size))

    def _block(self, p: Tensor) -> Tensor:
        return p.div(self.xi, rounding_mode="floor")


def single_pixels(
    length: int, count: int, draws: int, *, dimensions: int = 1, amplitude: float = 1.0, generator: torch.Generator
) -> Changes:
    """Single active pixels on a ring or torus, moved by one, against Gaussian noise of E |eta|^2 = 2 amplitude^2.

    Draws move by +1, -1 along the first axis, then the second, in turn: averages over all positions are exact for any
    multiple of 2 * dimensions draws. Arrays (count, 1, length) in one dimension, (count, 1, length, length) in
    two, and (draws, ...); float64. The positions differ; ValueError if there are fewer than count.
    """
    check_count("count", count, minimum=2)
    check_count("draws", draws)
    shape = (length,) * dimensions
    if count > length**dimensions:
        raise ValueError(
            f"count={count} is more than the {length**dimensions} positions; take fewer, or a longer ring."
        )
    places = torch.randperm(length**dimensions, generator=generator)[:count]
    positions = torch.stack(torch.unravel_index(places, shape), -1)  # (count, dimensions)
    draw = torch.arange(draws)
    moves = F.one_hot(draw // 2 % dimensions, dimensions) * (1 - 2 * (draw % 2))[:, None]  # (draws, dimensions)

    def images(positions: Tensor) -> Tensor:
        flat = sum(positions[..., d] * length ** (dimensions - 1 - d) for d in range(dimensions))
        x = torch.zeros(*flat.shape, length**dimensions, dtype=torch.float64)
        return x.scatter_(-1, flat[..., None], amplitude).unflatten(-1, (1, *shape))

    x, deformed = images(positions), images((positions + moves[:, None]) % length)
    noise = matched_noise(deformed - x, generator=generator, mean_square=2 * amplitude**2)
    return Changes(x, deformed, x + noise)
