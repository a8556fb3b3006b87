"""Catches: a record on one of two processes that waits for the other, or changes what they train."""

import numpy as np
import pytest
import torch
from ranks import RANKS, on_two_ranks
from torch import nn
from torch.nn import functional as F

import nin
from nin.training.nodes_of import the_noisy


def train(rank: int, *, recorded: bool) -> tuple[list, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    noisy = nin.inject(model, "0", sigma=1.0)
    trained = nn.parallel.DistributedDataParallel(noisy)
    optimizer, x, y = torch.optim.SGD(trained.parameters(), lr=0.1), torch.randn(32, 3), torch.arange(32) % 2
    record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy) if recorded and not rank else None
    for _ in range(60):
        mine = torch.randperm(32)[rank::RANKS]
        loss = F.cross_entropy(trained(x[mine]), y[mine])
        optimizer.zero_grad()
        loss.backward()
        if record is not None:
            record(loss)
        optimizer.step()
    rows = [] if record is None else record.frame()["expected_loss"].dropna().tolist()
    return [p.detach().tolist() for p in noisy.parameters()], rows


def with_and_without(rank: int) -> tuple:
    found = [train(rank, recorded=recorded) for recorded in (True, False)]
    refused = ""
    try:
        the_noisy(nin.inject(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)), "0", sigma=1.0))
    except ValueError as error:
        refused = str(error)
    return found, refused


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_one_of_two_processes_records(tmp_path):
    found = on_two_ranks(with_and_without, tmp_path)
    weights = [trained for runs, _ in found for trained, _ in runs]
    assert all(others == weights[0] for others in weights[1:])  # on both ranks, with the record and without
    rows = found[0][0][0][1]
    assert len(rows) > 20 and np.isfinite(rows).all()
    assert all("SyncBatchNorm" in refused for _, refused in found)
