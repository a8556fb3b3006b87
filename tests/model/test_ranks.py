"""Catches: noise that all ranks of a process group draw alike, or that a resumed run does not continue."""

import multiprocessing
import os

import pytest
import torch
from torch import nn

from nin import inject


def _rank(rank: int, world: int, file: str, results) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    torch.manual_seed(0)  # the same on every rank
    noisy = inject(nn.Sequential(nn.Linear(3, 2)), "0", sigma=1.0)
    state, first = noisy.state_dict(), noisy.draw(4)
    second = noisy.draw(4)
    noisy.load_state_dict(state)
    again = noisy.draw(4)
    trained = nn.parallel.DistributedDataParallel(noisy)
    trained(torch.ones(4, 3)).sum().backward()
    results.put((rank, first.tolist(), second.tolist(), again.tolist(), noisy.niw.grad.tolist()))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_ranks_draw_their_own_noise_and_resume_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ranks = [context.Process(target=_rank, args=(k, 2, tmp_path / "group", results), daemon=True) for k in range(2)]
    for process in ranks:
        process.start()
    rows = dict((row[0], row[1:]) for row in (results.get(timeout=240) for _ in ranks))
    for process in ranks:
        process.join(60)
    assert rows[0][0] != rows[1][0] and rows[0][1] != rows[1][1] and rows[0][0] != rows[0][1]
    assert all(rows[rank][0] == rows[rank][2] for rank in rows)
    assert rows[0][3] == rows[1][3]  # the gradient is averaged over ranks
