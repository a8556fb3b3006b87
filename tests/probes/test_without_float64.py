"""Catches: a probe that asks a device without float64 (Apple's MPS) for float64.

A stand-in for such a device: all that is computed from the network's tensors counts as being on it, until `.cpu()`
brings it back, and an operation there that gives float64 fails, as it does on MPS.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nin import inject
from nin.probes import interactions, response
from nin.probes.curvature import Thermometer, critical_rate, extremes, local_hessian, sharpness, top_mode
from nin.probes.curvature.averaged import noise_averaged
from nin.probes.curvature.decay import from_decay
from nin.probes.interactions.readouts import fit_readouts
from nin.probes.stability import sensitivities
from nin.support import precision


class WithoutFloat64(TorchDispatchMode):
    """Follows tensors from operation to operation by their storages, which are kept, so that no address returns."""

    def __init__(self):
        super().__init__()
        self.storages, self.leaving = {}, False

    def put(self, *tensors):
        for tensor in tensors:
            self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()

    def has(self, tensor):
        return tensor.numel() > 0 and tensor.untyped_storage().data_ptr() in self.storages

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        given = [t for t in tree_leaves((arguments, keywords)) if isinstance(t, torch.Tensor)]
        here = any(self.has(t) for t in given) and not self.leaving
        result = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result) if here else ():
            if isinstance(tensor, torch.Tensor):
                if tensor.dtype == torch.float64:
                    raise RuntimeError(f"{function} gives float64 on a device without it")
                self.put(tensor)
        return result


@pytest.fixture
def device(monkeypatch):
    mode = WithoutFloat64()

    def cpu(self, *_, **__):
        mode.leaving = True
        try:
            return self.clone()
        finally:
            mode.leaving = False

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", {"cpu"})
    return mode


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 8),
        nn.Tanh(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


X, Y = torch.randn(12, 36, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
LOSS = F.cross_entropy
PATCHES = torch.eye(36, dtype=torch.bool)[[7, 14, 21]]


def seed():
    return torch.Generator().manual_seed(0)


def noisy(model):
    return inject(model, "5", sigma=0.3, niw_std=0.5, generator=seed())


def law(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return response.ResponseLaw(model, x, y, loss=LOSS, optimizer=optimizer, responders=2, features=["5"]).read(0)


def ridge(model, x, y):
    with torch.no_grad():
        return fit_readouts(model, x, y, ["4", "6"], logits=model(x))["4"].weight


def ledger(model, x, y):
    return interactions.residual_ledger(
        model, x, y, blocks=["6"], stem="5", adds="output", readout=model[7], patches=PATCHES
    ).games


PROBES = {
    "kernel": lambda m, x, y: response.kernel(m, x),
    "kernel in full": lambda m, x, y: response.kernel(m, x[:4], outputs="full"),
    "kernel trace": lambda m, x, y: response.kernel_trace(m, x, probes=3).value,
    "kernel sketch": lambda m, x, y: response.kernel_sketch(m, x, probes=3).value,
    "response law": law,
    "sharpness": lambda m, x, y: sharpness(m, x, y, loss=LOSS).vector,
    "local Hessian": lambda m, x, y: local_hessian(m, "5", x, y, loss=LOSS),
    "extremes": lambda m, x, y: extremes(m, "5", x, y, loss=LOSS)[0][0].vector,
    "top mode": lambda m, x, y: top_mode(m, "5", x, y, loss=LOSS).vector,
    "thermometer": lambda m, x, y: Thermometer(m, "5", nodes=2).read(x, y, loss=LOSS).eigenvalues,
    "critical rate": lambda m, x, y: critical_rate(
        noisy(m), x, y, loss=LOSS, batch_size=4, generator=seed(), trials=2, judges=4
    ).decay,
    "averaged curvature": lambda m, x, y: noise_averaged(
        m, "5", x, y, loss=LOSS, direction=m[5].bias.detach(), amplitude=0.1, pairs=3
    ),
    "decay": lambda m, x, y: from_decay(m[5].weight.detach()[:, None, :8], eta=0.1, sigma=1.0).lam,
    "layerwise": lambda m, x, y: interactions.layerwise(
        m, x[:4], y[:4], layers=["4", "6"], patches=PATCHES, resamples=2, kappa=0.0,
        noise=interactions.Noise(2, images=2),
    ).drop(columns=["network", "layer", "kind"]),
    "ledger": ledger,
    "ridge": ridge,
    "stability": lambda m, x, y: sensitivities(
        m[1:], x.view(12, 1, 6, 6), delta=0.1, layers=["4"], draws=1
    ).drop(columns="layer"),
    "noise": lambda m, x, y: noisy(m).train()(x),
}  # fmt: skip


def numbers(result):
    if hasattr(result, "select_dtypes"):
        result = result.select_dtypes("number").to_numpy()
    return torch.as_tensor(np.asarray(result.detach() if isinstance(result, torch.Tensor) else result)).double()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_probes_ask_no_device_for_float64(name, device):
    """With the same numbers as where there is float64, to the rounding of float32."""
    model, x = network(), X.clone()
    device.put(*model.parameters(), *(b for b in model.buffers() if b.is_floating_point()), x)
    with device:
        found = PROBES[name](model, x, Y)
    precision.WITHOUT_FLOAT64.clear()
    torch.testing.assert_close(
        numbers(found), numbers(PROBES[name](network(), X, Y)), rtol=2e-3, atol=1e-4, equal_nan=True
    )


def test_the_stand_in_refuses_float64_until_the_tensor_has_moved(device):
    x = torch.randn(3)
    device.put(x)
    with device:
        with pytest.raises(RuntimeError, match="gives float64 on a device without it"):
            (2 * x).double()
        with pytest.raises(RuntimeError, match="gives float64"):
            torch.zeros(3, dtype=torch.float64) + x
        assert precision.widened(2 * x).dtype == torch.float64
        assert precision.widest(x) == torch.float32
        assert precision.matching(torch.ones(3, dtype=torch.float64), x).dtype == torch.float32
    precision.WITHOUT_FLOAT64.clear()
    assert precision.widest(x) == torch.float64


@pytest.mark.parametrize("name", ["kernel sketch", "top mode", "decay", "ridge", "stability"])
def test_probes_that_widened_on_the_device_would_fail(name, device):
    precision.WITHOUT_FLOAT64.clear()
    model, x = network(), X.clone()
    device.put(*model.parameters(), x)
    with device, pytest.raises(RuntimeError, match="gives float64 on a device without it"):
        PROBES[name](model, x, Y)


def test_dtypes_change_where_they_exist():
    """On the device that is not the CPU only the narrower dtype is seen."""
    seen = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            seen.append((result.device.type, result.dtype))
            return result

    narrow, wide = torch.ones(2, device="meta"), torch.ones(2, dtype=torch.float64)
    with Spy():
        assert precision.matching(wide, narrow).dtype == torch.float32
    assert seen == [("cpu", torch.float32), ("meta", torch.float32)]
