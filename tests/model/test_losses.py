"""Catches losses that depend on the number of samples or have another shape than the labels."""

import pytest
import torch
from torch.nn import functional as F

from nin.model.losses import cross_entropy, mse


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 5), (3, 1, 4)])
def test_losses_have_the_shape_of_the_labels(batch):
    outputs = torch.randn(*batch, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(outputs.shape[:-1].numel()).reshape(batch) % 10
    loss = cross_entropy(outputs, y)
    assert loss.shape == mse(outputs, y).shape == batch
    expected = F.cross_entropy(outputs.reshape(-1, 10), y.reshape(-1), reduction="none").reshape(batch)
    assert torch.allclose(loss, expected, rtol=1e-12)
