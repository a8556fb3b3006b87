"""Catches: curvatures that differ from another library's: a wrong factor, shift, weighting of batches or eigenvalue."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nin.probes.curvature import local_hessian, sharpness, top_mode

# torch.jit.script runs where curvlinops is imported (by linear_operator), and where torch first differentiates forward
SCRIPT = "`torch.jit.script` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{SCRIPT}:DeprecationWarning:torch.jit._script")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", SCRIPT, DeprecationWarning, module="torch.jit._script")
    from curvlinops import GGNLinearOperator, HessianLinearOperator

N = 11
NETWORKS = {  # network, shape of a sample, layer, shape of the shift that all samples (tokens, pixels) share
    "mlp": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Softplus(), nn.Linear(4, 3)),
        (5,), 2, (4,),
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)),
        (1, 3, 3), 0, (3, 1, 1),
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.GELU(), nn.Flatten(), nn.Linear(8, 3)),
        (2, 4), 0, (5,),
    ),
}  # fmt: skip
LOSSES = {"cross_entropy": nn.CrossEntropyLoss(), "mse": nn.MSELoss()}
CASES = [(network, loss) for network in NETWORKS for loss in LOSSES]


class Shifted(nn.Module):
    """A network with a shift delta, 0 here, added to the pre-activation of one layer."""

    def __init__(self, model, layer, shape):
        super().__init__()
        self.below, self.above = model[: layer + 1], model[layer + 1 :]
        self.delta = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self, x):
        return self.above(self.below(x) + self.delta)


def case(network, loss):
    """A random network away from any minimum, and data for it."""
    torch.manual_seed(1)
    make, shape, layer, shift = NETWORKS[network]
    model = make().double()
    with torch.no_grad():
        model[-1].weight *= 3  # so that <H> is indefinite
    x = torch.randn(N, *shape, dtype=torch.float64)
    y = torch.arange(N) % 3 if loss == "cross_entropy" else torch.randn(N, 3, dtype=torch.float64)
    return model, layer, shift, x, y


def dense(operator, model, loss, parameters, x, y):
    """Another library's matrix (p, p), from two batches of unequal size."""
    matrix = operator(model, LOSSES[loss], parameters, list(zip(x.split(7), y.split(7), strict=True)))
    return (matrix @ torch.eye(matrix.shape[1], dtype=torch.float64)).detach()


def agrees(ours, theirs):
    assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("network", "loss"), CASES)
def test_local_hessian_is_that_in_a_shift_of_the_preactivation(network, loss):
    model, layer, shift, x, y = case(network, loss)
    shifted = Shifted(model, layer, shift)
    theirs = dense(HessianLinearOperator, shifted, loss, [shifted.delta], x, y)
    options = {"loss": LOSSES[loss], "at": "preactivation"}
    ours = local_hessian(model, str(layer), x, y, **options)
    agrees(ours, theirs)
    agrees(local_hessian(model, str(layer), x, y, **options, batch_size=4), theirs)
    if network != "convolution":  # top_mode looks at the input of a convolution
        assert top_mode(model, str(layer), x, y, loss=LOSSES[loss]).lam == pytest.approx(
            torch.linalg.eigvalsh(theirs)[-1].item(), rel=1e-8
        )
    for wrong in (2 * ours, ours / N, local_hessian(model, str(layer), x[:7], y[:7], **options)):
        with pytest.raises(AssertionError):
            agrees(wrong, theirs)


@pytest.mark.parametrize(("network", "loss"), CASES)
def test_sharpness_is_the_top_of_the_full_hessian(network, loss):
    model, _, _, x, y = case(network, loss)
    values, vectors = torch.linalg.eigh(dense(HessianLinearOperator, model, loss, list(model.parameters()), x, y))
    mode = sharpness(model, x, y, loss=LOSSES[loss])
    lam = torch.tensor(mode.lam, dtype=torch.float64)
    agrees(lam, values[-1])
    assert mode.residual < 1e-6 * mode.lam
    assert abs(vectors[:, -1] @ mode.vector).item() == pytest.approx(1, rel=1e-6)
    gauss_newton = torch.linalg.eigvalsh(dense(GGNLinearOperator, model, loss, list(model.parameters()), x, y))
    for wrong in (2 * values[-1], N * values[-1], values[-2], gauss_newton[-1]):
        with pytest.raises(AssertionError):
            agrees(lam, wrong)


def test_sharpness_is_the_algebraically_largest_where_another_is_larger_in_magnitude():
    model, _, _, x, y = case("mlp", "cross_entropy")

    def negative(outputs, labels):
        return -LOSSES["cross_entropy"](outputs, labels)

    values = -torch.linalg.eigvalsh(
        dense(HessianLinearOperator, model, "cross_entropy", list(model.parameters()), x, y)
    )
    assert values.min() < -values.max() < 0
    agrees(torch.tensor(sharpness(model, x, y, loss=negative).lam, dtype=torch.float64), values.max())
