"""Devices by name, as far as this machine has them."""

import torch


def find_device(device: torch.device | str | object) -> torch.device:
    """The device with this name; "auto": cuda if available, else cpu.

    Raises ValueError for a name that is not one, and for a device that this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device) if isinstance(device, (str, torch.device)) else None
    except RuntimeError:
        found = None
    if found is None:
        raise ValueError(f"device={device!r} is unknown; choose auto, {', '.join(_there())}.")
    if found.type == "cpu":
        return found
    if found.type not in _there() or (found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device={str(device)!r} is not on this machine; choose auto, {', '.join(_there())}.")
    return found


def _there() -> list[str]:
    """The types of the devices that this machine has."""
    others = [torch.accelerator.current_accelerator()] if torch.accelerator.is_available() else []
    return ["cpu", *(device.type for device in others)]
