"""float64 beside devices without it (Apple's MPS): tensors move before they widen, and narrow before they move."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = {"mps"}  # types of devices


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float64: on its device, or on the CPU if its device has no float64."""
    return (tensor.cpu() if tensor.device.type in WITHOUT_FLOAT64 else tensor).double()


def widest(tensor: Tensor) -> torch.dtype:
    """The dtype for sums on the tensor's device: float64 if it has that, else float32."""
    return torch.float32 if tensor.device.type in WITHOUT_FLOAT64 else torch.float64


def matching(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the dtype and on the device of another one; the device never sees the wider of two dtypes."""
    if tensor.element_size() < like.element_size():
        return tensor.to(like.device).to(like.dtype)
    return tensor.to(like.dtype).to(like.device)
