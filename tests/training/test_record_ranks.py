"""Catches: a record on one of two processes that waits for the other, or changes what they train."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nin
from nin.training.nodes_of import the_noisy


def _train(rank: int, world: int, *, recorded: bool) -> tuple[list, list[float]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    noisy = nin.inject(model, "0", sigma=1.0)
    trained = nn.parallel.DistributedDataParallel(noisy)
    optimizer, x, y = torch.optim.SGD(trained.parameters(), lr=0.1), torch.randn(32, 3), torch.arange(32) % 2
    record = nin.Record(noisy, optimizer, x, y, loss=F.cross_entropy) if recorded and not rank else None
    for _ in range(60):
        mine = torch.randperm(32)[rank::world]
        loss = F.cross_entropy(trained(x[mine]), y[mine])
        optimizer.zero_grad()
        loss.backward()
        if record is not None:
            record(loss)
        optimizer.step()
    rows = [] if record is None else record.frame()["expected_loss"].dropna().tolist()
    return [p.detach().tolist() for p in noisy.parameters()], rows


def _rank(rank: int, world: int, file: str, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    found = [_train(rank, world, recorded=recorded) for recorded in (True, False)]
    refused = ""
    try:
        the_noisy(nin.inject(nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)), "0", sigma=1.0))
    except ValueError as error:
        refused = str(error)
    results.put((rank, found, refused))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_one_of_two_processes_records(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ranks = [context.Process(target=_rank, args=(k, 2, tmp_path / "group", results), daemon=True) for k in range(2)]
    for process in ranks:
        process.start()
    found = dict((row[0], row[1:]) for row in (results.get(timeout=240) for _ in ranks))
    for process in ranks:
        process.join(60)
    weights = [found[rank][0][place][0] for rank in range(2) for place in range(2)]
    assert all(others == weights[0] for others in weights[1:])  # on both ranks, with the record and without
    rows = found[0][0][0][1]
    assert len(rows) > 20 and np.isfinite(rows).all()
    assert all("SyncBatchNorm" in found[rank][1] for rank in range(2))
