"""Catches a filter spectrum in the wrong basis, and a shuffle that touches more than the order of channels."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nin.probes.stability import filter_spectrum, shuffle_channels


def laplacian(size):
    """Of a grid with free boundaries, from its edges."""
    matrix = np.zeros((size, size, size, size))
    for i in range(size):
        for j in range(size):
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if 0 <= a < size and 0 <= b < size:
                    matrix[i, j, i, j] += 1
                    matrix[i, j, a, b] -= 1
    return matrix.reshape(size**2, size**2)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_spectrum_is_that_of_the_grid_laplacian(size):
    """Power by eigenvalue, against numpy's eigenvectors of the matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, size))
    found = filter_spectrum(model)
    values, vectors = np.linalg.eigh(laplacian(size))
    np.testing.assert_allclose(found["eigenvalue"], values, atol=1e-12)
    if size == 3:
        np.testing.assert_allclose(values, [0, 1, 1, 2, 3, 3, 4, 4, 6], atol=1e-12)
    filters = model[0].weight.detach().double().numpy().reshape(12, -1)
    power = ((filters @ vectors) ** 2).mean(0)
    for value in np.unique(values.round(9)):  # within an eigenspace the basis is arbitrary
        ours, theirs = (np.isclose(v, value) for v in (found["eigenvalue"], values))
        assert found.loc[ours, "power"].sum() == pytest.approx(power[theirs].sum(), rel=1e-12)
    assert found["share"].sum() == pytest.approx(1, rel=1e-12)
    assert found["power"].sum() == pytest.approx((filters**2).sum(1).mean(), rel=1e-12)


def test_homogeneous_and_independent_filters():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(1, 1, 4), nn.Conv2d(64, 64, 3), nn.Conv3d(20, 20, 2))
    nn.init.constant_(model[0].weight, -3)
    nn.init.normal_(model[1].weight)
    nn.init.normal_(model[2].weight)
    found = filter_spectrum(model).set_index(["layer", "mode"])
    np.testing.assert_allclose(found.loc["0", "share"], [1, 0, 0, 0], atol=1e-12)
    for layer, modes in (("1", 9), ("2", 8)):
        rows = found.loc[layer]
        assert len(rows) == modes
        assert (abs(rows["share"] - 1 / modes) < 4 * rows["stderr"]).all()
    assert (found.loc["1", "stderr"] < 0.01).all()
    assert found["depth"].unique().tolist() == [1, 2, 3]


def test_shuffling_leaves_the_spectrum_and_what_one_channel_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Conv2d(5, 10, 3, groups=5))
    before = copy.deepcopy(model.state_dict())
    shuffled = shuffle_channels(model, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    order = torch.randperm(1, generator=(g := torch.Generator().manual_seed(0))), torch.randperm(6, generator=g)
    assert torch.equal(shuffled[2].weight, model[2].weight[:, order[1]])
    assert not torch.equal(shuffled[2].weight, model[2].weight)
    for layer in (0, 3):  # one channel each
        assert torch.equal(shuffled[layer].weight, model[layer].weight)
    np.testing.assert_allclose(filter_spectrum(model)["power"], filter_spectrum(shuffled)["power"], rtol=1e-12)
    alike = torch.ones(2, 6, 8, 8) * torch.randn(2, 1, 8, 8)  # channels that agree have no order
    torch.testing.assert_close(model[2](alike), shuffled[2](alike))


def test_a_computed_weight_has_a_spectrum_and_no_permutation():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(7, 2, 3)))
    assert len(filter_spectrum(model)) == 9
    with pytest.raises(ValueError, match="'0' computes its weight from other tensors.*remove_parametrizations"):
        shuffle_channels(model, generator=torch.Generator())


@pytest.mark.parametrize(
    "probe", [filter_spectrum, lambda m, layers=None: shuffle_channels(m, generator=torch.Generator(), layers=layers)]
)
def test_bad_input(probe):
    with pytest.raises(ValueError, match="model has no convolution"):
        probe(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="layers names '1', which is not a convolution"):
        probe(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), layers=["1"])


def test_a_filter_of_one_weight_has_no_spectrum():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    assert filter_spectrum(model)["layer"].unique().tolist() == ["0"]
    with pytest.raises(ValueError, match="'1' has filters of a single weight"):
        filter_spectrum(model, ["1"])
    with pytest.raises(ValueError, match="single weight"):
        filter_spectrum(model[1:])
