"""Catches: noise that all ranks of a process group draw alike, or that a resumed run does not continue."""

import pytest
import torch
from ranks import on_two_ranks
from torch import nn

from nin import inject


def draws(rank: int) -> tuple:
    torch.manual_seed(0)  # the same on every rank
    noisy = inject(nn.Sequential(nn.Linear(3, 2)), "0", sigma=1.0)
    state, first = noisy.state_dict(), noisy.draw(4)
    second = noisy.draw(4)
    noisy.load_state_dict(state)
    again = noisy.draw(4)
    trained = nn.parallel.DistributedDataParallel(noisy)
    trained(torch.ones(4, 3)).sum().backward()
    return first.tolist(), second.tolist(), again.tolist(), noisy.niw.grad.tolist()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_ranks_draw_their_own_noise_and_resume_it(tmp_path):
    rows = on_two_ranks(draws, tmp_path)
    assert rows[0][0] != rows[1][0] and rows[0][1] != rows[1][1] and rows[0][0] != rows[0][1]
    assert all(row[0] == row[2] for row in rows)
    assert rows[0][3] == rows[1][3]  # the gradient is averaged over ranks
