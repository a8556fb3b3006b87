"""Recurrent networks, with the samples on the first axis of their values or on the second."""

import torch
from kinds import Kind, seeded, values
from torch import Tensor, nn

X, Y = values(8, 4, 3), torch.arange(8) % 3


class Recurrent(nn.Module):
    """A linear layer on each time, LSTM or GRU, and a head on the last time. Inputs are (n, times, features)."""

    def __init__(self, cell: type[nn.RNNBase], batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.embed, self.cell, self.head = nn.Linear(3, 4), cell(4, 4, batch_first=batch_first), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.cell(self.embed(x if self.batch_first else x.transpose(0, 1)))
        return self.head(h[:, -1] if self.batch_first else h[-1])


def kind(cell: type[nn.RNNBase], batch_first: bool) -> Kind:
    name = f"{cell.__name__}, batch {'first' if batch_first else 'second'}"
    build = lambda: seeded(Recurrent(cell, batch_first))  # noqa: E731
    return Kind(name, build, X, Y, "embed", axis=0 if batch_first else 1, neurons="embed")


KINDS = [kind(cell, first) for cell in (nn.LSTM, nn.GRU) for first in (True, False)]
