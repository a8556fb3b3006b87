"""The Jacobian of a network in blocks of samples and outputs, cut so that memory is bounded and few rows come twice."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap

from nin.support.memory import kept

Function = Callable[[Mapping[str, Tensor], Tensor], Tensor]  # (parameters, x) -> (n, C)

WHOLE = 2**28  # bytes of a Jacobian that is computed at once
PIECE = 2**25  # bytes at once of a larger one: the fastest of 4 to 256 MiB, because malloc uses such pieces again
MOST = 2**30  # bytes of the rows that must be in memory together
BACK = 4  # times the largest value that the forward pass keeps, for each row of a backward pass: measured


@dataclass(frozen=True)
class Jacobian:
    """df(x_i)_c / dtheta of a network f(parameters, x) -> (n, C), computed block by block.

    outputs     C
    entries     bytes of one row, that is of one output of one sample
    row         bytes that a row takes while it is computed, with the values on their way back
    graph       bytes that the forward pass of one sample keeps
    vectorised  False for networks that torch cannot vmap: one backward pass after another
    """

    f: Function
    parameters: Mapping[str, Tensor]
    outputs: int
    entries: int
    row: int
    graph: int
    vectorised: bool

    @classmethod
    def of(
        cls,
        f: Function,
        parameters: Mapping[str, Tensor],
        one: Tensor,
        *,
        present: Iterable[Tensor],
        vectorised: bool,
    ) -> "Jacobian":
        """The Jacobian of f; one: a batch of a single sample; present: tensors that are in memory anyway."""
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        outputs, sizes = kept(lambda: f(leaves, one), present)
        entries = sum(p.numel() * p.element_size() for p in parameters.values())
        row = entries + (BACK * max(sizes, default=0) if vectorised else 0)
        return cls(f, parameters, outputs.shape[1], entries, row, sum(sizes), vectorised)

    def tried(self, one: Tensor) -> "Jacobian":
        """The same, not vectorised if torch cannot vmap the network: it branches on values, for one."""
        possible = self.vectorised and _can_be_vectorised(self.f, self.parameters, one)
        return self if possible == self.vectorised else replace(self, vectorised=possible)

    @property
    def like(self) -> Tensor:
        """A tensor with the dtype and the device of the Jacobian."""
        values = list(self.parameters.values())
        return values[0].new_empty((), dtype=reduce(torch.promote_types, [value.dtype for value in values]))

    def rows(self, x: Tensor, outputs: slice) -> dict[str, Float[Tensor, "n outputs _"]]:
        """The Jacobian of some outputs for all samples of x, by the name of the parameter."""
        if not self.vectorised:
            return self._one_by_one(x, outputs)
        found = _vectorised(self.f, self.parameters, x, outputs)
        return {name: value.reshape(*value.shape[:2], -1) for name, value in found.items()}

    @torch.enable_grad()
    def _one_by_one(self, x: Tensor, chosen: slice) -> dict[str, Tensor]:
        leaves = {name: value.clone().requires_grad_() for name, value in self.parameters.items()}
        rows = []
        for sample in x:
            outputs = self.f(leaves, sample[None])[0, chosen]
            options = {"retain_graph": True, "materialize_grads": True}
            rows.append([torch.autograd.grad(output, list(leaves.values()), **options) for output in outputs])
        return {
            name: torch.stack([torch.stack([gradient[place].flatten() for gradient in row]) for row in rows])
            for place, name in enumerate(leaves)
        }

    def cut(self, count: int, chunk: int | None, *, alone: bool) -> tuple[int, int]:
        """The samples and the outputs of a block, for `count` samples in all.

        chunk   samples, if they are given
        alone   whether each output only meets itself, so that all samples of one output are wanted together
        """
        if chunk is None and count * (self.outputs * self.row + self.graph) <= WHOLE:
            return count, self.outputs
        if alone:
            samples = chunk or max(min(count, MOST // (self.row + self.graph)), 1)
            if samples * self.outputs * self.row <= WHOLE:
                return samples, self.outputs
            fast, most = PIECE // (samples * self.entries), WHOLE // (samples * self.row)
            return samples, max(min(self.outputs, fast, most), 1)
        outputs = max(min(self.outputs, MOST // 2 // self.row // (chunk or 1)), 1)
        return chunk or max(min(count, MOST // 2 // (outputs * self.row + self.graph)), 1), outputs

    def memory(self, samples: int, outputs: int, *, blocks: int) -> float:
        """The bytes that blocks of this size take together, while one of them is computed."""
        return samples * (outputs * (self.row + (blocks - 1) * self.entries) + self.graph)


def _vectorised(f: Function, parameters: Mapping[str, Tensor], x: Tensor, outputs: slice) -> dict[str, Tensor]:
    one = jacrev(lambda p, sample: f(p, sample[None])[0, outputs])
    return vmap(one, in_dims=(None, 0))(parameters, x)


def _can_be_vectorised(f: Function, parameters: Mapping[str, Tensor], one: Tensor) -> bool:
    """Whether torch can vmap the network without a warning that it does so one by one, tried on one sample."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "There is a performance drop", UserWarning)
            _vectorised(f, parameters, one, slice(0, 1))
    except (RuntimeError, UserWarning):  # if the network is at fault otherwise, the slow way says how
        return False
    return True


def cuts(length: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover a length."""
    for begin in range(0, length, size):
        yield slice(begin, min(begin + size, length))
