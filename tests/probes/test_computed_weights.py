"""Catches: wrong second derivatives through weights that are computed, checkpoints that only torch names, shards."""

import copy

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from nin import inject
from nin.model.losses import cross_entropy
from nin.probes.curvature import Thermometer, critical_rate, local_hessian, noise_averaged, sharpness
from nin.probes.response import kernel, response
from nin.probes.response.fragility import flips

Y = torch.arange(6) % 2


def values(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(network):
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
    return network.double()


def hessian(f, theta):
    """By finite differences of the gradient."""
    h, rows = 1e-5, []
    for unit in torch.eye(len(theta), dtype=torch.float64):
        pair = [torch.func.grad(f)(theta + sign * h * unit) for sign in (1, -1)]
        rows.append((pair[0] - pair[1]) / (2 * h))
    return torch.stack(rows)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_second_derivatives_of_weight_norm(dim):
    """torch's own kernel takes the norms for constants, in double backward as well."""
    model, x = seeded(nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2, bias=False), dim=dim))), values(6, 3)
    g, v = (p.detach() for p in model.parameters())

    def loss(theta):
        return F.cross_entropy(x @ weight_of(theta, g, v, dim).T, Y)

    theta = torch.cat([g.flatten(), v.flatten()])
    exact, differences = torch.func.jacrev(torch.func.grad(loss))(theta), hessian(loss, theta)
    torch.testing.assert_close(exact, differences, rtol=1e-6, atol=1e-8)
    found = sharpness(model, x, Y, loss=cross_entropy)
    assert found.lam == pytest.approx(torch.linalg.eigvalsh(exact)[-1].item(), rel=1e-8)
    norm = model[0].parametrizations.weight[0]
    assert "forward" not in vars(norm) and all(type(p) is nn.Parameter for p in model.parameters())
    if dim is None:
        return  # a parameter without axes
    jacobian = torch.func.jacrev(lambda theta: x @ weight_of(theta, g, v, dim).T)(theta).flatten(1).view(6, -1)
    torch.testing.assert_close(kernel(model, x), jacobian @ jacobian.T)


def weight_of(theta, g, v, dim):
    g_, v_ = theta[: g.numel()].view_as(g), theta[g.numel() :].view_as(v)
    return v_ * g_ / (v_.norm() if dim is None else v_.norm(dim=1 - dim, keepdim=True))


def old_weight_norm():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Linear(3, 2))


@pytest.mark.parametrize("layer", [old_weight_norm, lambda: prune.random_unstructured(nn.Linear(3, 2), "weight", 0.5)])
def test_a_weight_that_a_hook_computes_is_refused_and_left(layer):
    model, x = nn.Sequential(layer()).double(), values(6, 3)
    with torch.no_grad():
        expected = model(x)
    for probe in (
        lambda: kernel(model, x),
        lambda: sharpness(model, x, Y, loss=cross_entropy),
        lambda: local_hessian(model, "0", x, Y, loss=cross_entropy),
    ):
        with pytest.raises(ValueError, match=r"its module '(network\.)?0' computes a weight in a hook"):
            probe()
    assert type(model[0].weight) is torch.Tensor and torch.equal(model(x), expected)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.rest, self.reentrant = nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2)), reentrant

    def forward(self, x):
        h = self.first(x)
        return checkpoint(self.rest, h, use_reentrant=self.reentrant) if torch.is_grad_enabled() else self.rest(h)


def hooks(model):
    return sum(len(held) for module in model.modules() for name, held in vars(module).items() if name.endswith("hooks"))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_is_named_and_keeps_no_hook(reentrant):
    model, x = seeded(Checkpointed(reentrant)), values(6, 3)
    before = hooks(model)
    for probe in (
        lambda: kernel(model, x),
        lambda: sharpness(model, x, Y, loss=cross_entropy),
        lambda: local_hessian(model, "rest.1", x, Y, loss=cross_entropy),
        lambda: noise_averaged(model, "rest.1", x, Y, loss=cross_entropy, direction=values(2), amplitude=0.1, pairs=2),
    ):
        with pytest.raises(ValueError, match="Switch checkpointing off|gradient checkpointing"):
            probe()
    if reentrant:
        with pytest.raises(ValueError, match="Switch checkpointing off for the measurement"):
            critical_rate(inject(model, "first", sigma=1.0), x, Y, loss=cross_entropy, batch_size=2,
                          generator=torch.Generator())  # fmt: skip
    else:
        twin = copy.deepcopy(model)
        twin.forward = lambda x: twin.rest(twin.first(x))
        first, second = (Thermometer(m, "rest.1", nodes=2).read(x, Y, loss=cross_entropy) for m in (model, twin))
        torch.testing.assert_close(first.eigenvalues, second.eigenvalues)
    assert hooks(model) == before


def test_a_sharded_model_is_refused_by_name():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        model, x = seeded(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))), values(6, 3)
        fully_shard(model[0], mesh=mesh)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="its module '0' is a FSDPModule.*Inject first, then wrap"):
            inject(model, "0", sigma=1.0)
        for probe in (
            lambda: kernel(model, x),
            lambda: flips(model, x, generator=torch.Generator()),
            lambda: response(model, x, Y, x, loss=F.cross_entropy, optimizer=optimizer),
        ):
            with pytest.raises(ValueError, match="its module '0' is sharded by FSDP"):
                probe()
    finally:
        distributed.destroy_process_group()


class Functional(nn.Module):
    def forward(self, x):
        return F.hardsigmoid(x)


def test_an_operation_without_a_second_derivative():
    """torch has none of the hard sigmoid: a module computes by its formula, and the operation itself is named."""
    x, networks = values(6, 3), {}
    for name, middle in (("module", nn.Hardsigmoid()), ("formula", nn.Sequential()), ("operation", Functional())):
        networks[name] = seeded(nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 2)))
    networks["formula"][1].forward = lambda x: (x / 6 + 0.5).clamp(0, 1)
    for probe in (
        lambda model: torch.tensor(sharpness(model, x, Y, loss=cross_entropy).lam),
        lambda model: local_hessian(model, "0", x, Y, loss=cross_entropy),
        lambda model: response(model, x, Y, x, loss=F.cross_entropy,
                               optimizer=torch.optim.SGD(model.parameters(), lr=0.1)).linear,
    ):  # fmt: skip
        torch.testing.assert_close(probe(networks["module"]), probe(networks["formula"]))
        with pytest.raises(ValueError, match=r"second derivative torch lacks \(aten::hardsigmoid_backward\)"):
            probe(networks["operation"])
    assert "forward" not in vars(networks["module"][1])
