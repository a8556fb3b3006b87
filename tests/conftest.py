"""What several test files share: one small classification task, in float64."""

import pytest
import torch

from nin.model.data import Dataset


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """Four Gaussian classes in 6 dimensions, 64 training and 32 test samples."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(96) % 4
    centers = 2 * torch.randn(4, 6, generator=generator)
    x = centers[y] + torch.randn(96, 6, generator=generator)
    return Dataset(x[:64], y[:64], x[64:], y[64:], 4, "blobs")
