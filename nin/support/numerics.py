"""The numerical settings of torch under which runs are computed, whatever those of the caller are."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_lock = threading.Lock()  # default dtype and precision are shared by the threads of a process
_inside = 0
_before = (torch.float32, "highest")


@contextmanager
def own_numerics() -> Iterator[None]:
    """With gradients, without inference mode and autocast, in float32 by default and with full products, as imported.

    Otherwise the settings of a caller would change the numbers of a run without a change of its config. They are as
    they were afterwards; those that all threads of a process share, once the last of the runs in them has ended.
    """
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            settings.enter_context(torch.autocast(device, enabled=False))
        _enter()
        settings.callback(_leave)
        yield


def _enter() -> None:
    global _inside, _before
    with _lock:
        _inside += 1
        if _inside == 1:
            _before = torch.get_default_dtype(), torch.get_float32_matmul_precision()
            _set(torch.float32, "highest")


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if not _inside:
            _set(*_before)


def _set(dtype: torch.dtype, precision: str) -> None:
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
    if torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)
