"""Catches: a kernel that differs from J J^T of another library: a wrong factor, trace, order of axes or parameter."""

import warnings

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from nin.probes.response import kernel, kernel_by_layer

# torch.jit.script runs where curvlinops is imported (by linear_operator), and where torch first differentiates forward
SCRIPT = "`torch.jit.script` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{SCRIPT}:DeprecationWarning:torch.jit._script")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", SCRIPT, DeprecationWarning, module="torch.jit._script")
    from curvlinops import JacobianLinearOperator

NETWORKS = {  # network, shape of a sample, outputs
    "scalar": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0)), (4,), 1),
    "one output": (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)), (4,), 1),
    "vector": (  # of one hidden layer only, Theta_cd would be symmetric in the outputs c and d
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), (4,), 3,
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.GELU(), nn.Flatten(), nn.Linear(8, 2)), (1, 3, 3), 2,
    ),
}  # fmt: skip


def case(name):
    torch.manual_seed(2)
    make, shape, outputs = NETWORKS[name]
    x, x2 = (torch.randn(n, *shape, dtype=torch.float64) for n in (6, 4))
    return make().double(), x, x2, outputs


def jacobian(model, x, outputs, parameters=None):
    """Another library's (n, C, p)."""
    parameters = list(model.parameters()) if parameters is None else parameters
    data = [(part, torch.zeros(len(part))) for part in x.split(4)]  # the targets are not used
    matrix = JacobianLinearOperator(model, parameters, data)
    dense = (matrix @ torch.eye(matrix.shape[1], dtype=torch.float64)).detach()
    return dense.view(len(x), outputs, -1)


def agrees(ours, theirs):
    assert_close(ours.detach(), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_is_j_j_transposed(name):
    """Traced over the outputs, and with all pairs of outputs, between one set of samples or two."""
    model, x, x2, outputs = case(name)
    J, J2 = jacobian(model, x, outputs), jacobian(model, x2, outputs)
    full = torch.einsum("icp,jdp->icjd", J, J2)
    agrees(kernel(model, x), torch.einsum("icp,jcp->ij", J, J))
    agrees(kernel(model, x, x2), full.diagonal(dim1=1, dim2=3).sum(-1))
    agrees(kernel(model, x, x2, outputs="full"), full)
    flat = J.flatten(0, 1)
    agrees(kernel(model, x, outputs="full").reshape(len(flat), len(flat)), flat @ flat.T)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_contribute_what_their_own_parameters_do(name):
    model, x, x2, outputs = case(name)
    layers = kernel_by_layer(model, x, x2)
    assert layers
    for layer, ours in layers.items():
        J, J2 = (jacobian(model, z, outputs, list(model.get_submodule(layer).parameters())) for z in (x, x2))
        agrees(ours, torch.einsum("icp,jcp->ij", J, J2))


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_kernels_are_caught(name):
    """The same comparison fails for a factor, a kernel without biases, swapped samples or swapped outputs."""
    model, x, x2, outputs = case(name)
    J, J2 = jacobian(model, x, outputs), jacobian(model, x2, outputs)
    weights = [p for p in model.parameters() if p.dim() > 1]
    without_biases = [jacobian(model, z, outputs, weights) for z in (x, x2)]
    ours, full = kernel(model, x, x2), kernel(model, x, x2, outputs="full")
    wrong = [(2 * ours, J, J2), (ours / x.shape[1:].numel(), J, J2), (ours, *without_biases), (ours, J, J2.flip(0))]
    for mine, left, right in wrong:
        with pytest.raises(AssertionError):
            agrees(mine, torch.einsum("icp,jcp->ij", left, right))
    if outputs > 1:
        for mine, theirs in ((ours / outputs, "icp,jcp->ij"), (full, "icp,jdp->idjc")):
            with pytest.raises(AssertionError):
                agrees(mine, torch.einsum(theirs, J, J2))
