"""A function on both of two processes that form a group."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RANKS = 2


def on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What work(rank) returns on each of two processes joined by gloo; work is a function of a module."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    arguments = (work, folder / "group", results)
    processes = [context.Process(target=_join, args=(rank, *arguments), daemon=True) for rank in range(RANKS)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=240) for _ in processes)
    for process in processes:
        process.join(60)
    return [found[rank] for rank in range(RANKS)]


def _join(rank: int, work: Callable[[int], Any], file: Path, results: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=RANKS)
    results.put((rank, work(rank)))
    torch.distributed.destroy_process_group()
