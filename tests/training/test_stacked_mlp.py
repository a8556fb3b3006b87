"""Catches: a written-out gradient that is not autograd's, buffers that a second call or a smaller ensemble spoils,
numbers that depend on where in memory a member begins.
"""

import itertools

import numpy as np
import pytest
import torch

from nin import RunConfig, inject, train
from nin.model.dataset import Dataset
from nin.model.networks import ACTIVATIONS, INITS, MLP, linear_net
from nin.support.threads import threads
from nin.training import start
from nin.training.config import DTYPES
from nin.training.ensemble import Ensemble
from nin.training.stacked_mlp import BOUNDARY, aligned, aligned_empty
from nin.training.updates import Updates

K, BATCH = 3, 7


def members(activation, init, layer, nodes=2):
    generator = torch.Generator().manual_seed(1)
    networks = [
        MLP(5, (6, 4), 3, activation=activation, init=init, dtype=torch.float64, generator=generator) for _ in range(K)
    ]
    with torch.no_grad():
        for network in networks:
            for linear in network.layers:
                linear.bias.normal_(generator=generator)
    if layer is None:
        return networks
    return [inject(n, f"layers.{layer}", sigma=0.7, nodes=nodes, generator=generator) for n in networks]


def batch(nodes, *, count=BATCH, inputs=5, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(K, count, inputs, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (K, count), generator=generator)
    return x, y, torch.randn(K, count, nodes, dtype=torch.float64, generator=generator) if nodes else None


def gradients(ensemble, x, y, noise, loss="cross_entropy"):
    scale = torch.tensor([0.1, 2.0, 1.0], dtype=torch.float64)[: len(x)]
    losses = ensemble.backward(x, y, noise, loss=loss, scale=scale)
    return {"loss": losses} | {name: p.grad.clone() for name, p in ensemble.parameters.items()}


@pytest.mark.parametrize(("activation", "init", "layer"), list(itertools.product(ACTIVATIONS, INITS, (None, 0, 1, 2))))
def test_gradients_are_those_of_autograd(activation, init, layer):
    stack = members(activation, init, layer)
    x, y, noise = batch(0 if layer is None else 2)
    ours, autograd = (gradients(Ensemble(stack, vectorise=v), x, y, noise) for v in (False, True))
    assert ours.keys() == autograd.keys()
    for name, value in ours.items():
        assert value.abs().max() > 1e-4, name
        torch.testing.assert_close(value, autograd[name], rtol=1e-11, atol=1e-13, msg=name)


def test_linear_net_without_biases():
    generator = torch.Generator().manual_seed(0)
    stack = [
        inject(linear_net(9, inputs=2, generator=generator), "layers.0", sigma=1.0, generator=generator)
        for _ in range(K)
    ]
    x, _, noise = batch(1, inputs=2)
    y = x.sum(-1, keepdim=True)
    ours, autograd = (gradients(Ensemble(stack, vectorise=v), x, y, noise, "mse") for v in (False, True))
    for name, value in ours.items():
        torch.testing.assert_close(value, autograd[name], rtol=1e-11, atol=1e-13, msg=name)


def test_calls_between_and_members_dropped_leave_no_trace():
    """Evaluation on another batch size, then half of the members gone: what follows is that of a fresh ensemble."""
    stack = members("relu", "he", 0)
    x, y, noise = batch(2)
    used, fresh = Ensemble(stack), Ensemble([stack[2], stack[0]])
    gradients(used, x, y, noise)
    used(batch(0, count=11, seed=5)[0])
    used.keep(torch.tensor([2, 0]), torch.optim.SGD(used.parameters.values(), lr=1.0))
    for _ in range(2):
        again = gradients(used, *(t[[2, 0]] for t in (x, y, noise)))
        for name, value in gradients(fresh, *(t[[2, 0]] for t in (x, y, noise))).items():
            assert torch.equal(again[name], value), name


def test_outputs_are_the_members_own():
    stack = members("tanh", "ntk", 1)
    x, _, noise = batch(2)
    outputs = Ensemble(stack)(x, noise)
    assert not outputs.requires_grad
    for k, member in enumerate(stack):
        torch.testing.assert_close(outputs[k], member(x[k], noise[k]), rtol=1e-12, atol=1e-14)
    silent = Ensemble(stack)(x)
    torch.testing.assert_close(silent[0], stack[0].network(x[0]), rtol=1e-12, atol=1e-14)


def begins_at_boundaries(stack):
    """Whether every member begins at a multiple of BOUNDARY bytes."""
    return all(member.data_ptr() % BOUNDARY == 0 for member in stack)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (9, 7), (2, 3, 5)])
def test_aligned_keeps_values_and_moves_members_to_boundaries(dtype, shape):
    stack = torch.randn(K, *shape, dtype=dtype)
    moved = aligned(stack)
    assert moved.dtype == dtype and torch.equal(moved, stack)
    assert begins_at_boundaries(moved)
    assert all(member.is_contiguous() for member in moved)


def test_aligned_is_the_identity_where_members_are_aligned_already():
    stack = aligned_empty(torch.zeros(K), 9, 7).normal_()
    assert aligned(stack) is stack
    assert aligned(stack[:, :, 1:]) is not stack  # one column on: the members no longer begin at boundaries
    assert torch.equal(aligned(stack[:, :, 1:]), stack[:, :, 1:])


def test_aligned_gives_the_members_of_an_expanded_tensor_the_memory_they_share():
    """A stride of 0 keeps to the boundary: a batch that all members share is not copied."""
    shared = aligned_empty(torch.zeros(1), 9, 7).normal_()
    assert aligned(shared.expand(K, 9, 7)).data_ptr() == shared.data_ptr()


@pytest.mark.parametrize("shape", [(), (1,), (9, 7), (4, 4)])
def test_aligned_empty_separates_members_by_the_fewest_whole_boundaries(shape):
    like = torch.zeros(K, 5)
    memory = aligned_empty(like, *shape)
    assert memory.shape == (K, *shape) and memory.dtype == like.dtype
    numbers = BOUNDARY // like.element_size()
    assert memory.stride(0) == -(-torch.Size(shape).numel() // numbers) * numbers
    assert begins_at_boundaries(memory)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_odd_sizes_give_the_same_curves_alone_and_in_a_group(blobs, dtype):
    """Neither widths nor batch fill whole boundaries: without `aligned` the members begin at different offsets."""
    base = RunConfig(widths=(9, 7), batch_size=7, steps=40, lr=0.1, eval_points=5, curvature_pairs=2, dtype=dtype)
    configs = [base.replace(sigma=sigma, seed=seed) for sigma in (0.5, 2.0) for seed in (0, 1, 2)]
    together = train(configs, data=blobs)
    for run, config in enumerate(configs):
        alone = train(config, data=blobs)
        for name, curve in alone.curves.items():
            np.testing.assert_array_equal(together.curves[name][:, run], curve[:, 0], err_msg=f"{name} of run {run}")


FOLDING = RunConfig(
    widths=(160, 130), batch_size=128, steps=12, eval_points=6, eval_samples=128, curvature_pairs=0, sigma=2.0, lr=0.02
)


def large(seed=3):
    draws = torch.Generator().manual_seed(seed)
    x, y = torch.randn(256, 120, generator=draws), torch.arange(256) % 4
    return Dataset(x, y, x[:128], y[:128], 4, "noise")


def weights_of(runs):
    return [{name: p.detach() for name, p in runs.model(run).named_parameters()} for run in range(2)]


def rounds_alike(config):
    """Whether this processor's products round W - g^T x as they round g^T x, subtracted: Intel's do, and not all."""
    alike = []
    for rows, columns in ((160, 120), (130, 160)):
        sizes = (rows, columns), (config.batch_size, rows), (config.batch_size, columns)
        w, g, x = (torch.randn(2, *size, dtype=DTYPES[config.dtype]) for size in sizes)
        alike.append(torch.equal(torch.baddbmm(w, g.mT, x, alpha=-0.5), w - torch.bmm(g.mT, x).mul_(0.5)))
    return all(alike)


@pytest.mark.parametrize("changes", [{}, {"dtype": "float64"}, {"init": "ntk", "lr": 1.0}, {"batch_size": 48}])
def test_updates_folded_into_products_are_those_of_an_optimiser(monkeypatch, changes):
    """With a batch as large as what is evaluated at once, which must not spoil the values of the step in between."""
    configs = [FOLDING.replace(sigma=sigma, **changes) for sigma in (0.5, 2.0)]
    folded = train(configs, data=large(), device="cpu")
    asked = []
    monkeypatch.setattr(Ensemble, "fold", lambda self, batch_size: asked.append(batch_size))
    plain = train(configs, data=large(), device="cpu")
    assert asked == [configs[0].batch_size]
    exact = {"rtol": 0, "atol": 0} if rounds_alike(configs[0]) else {"rtol": 1e-5, "atol": 1e-7}
    for one, other in zip(weights_of(folded), weights_of(plain), strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], **exact)


def test_folded_updates_are_the_same_alone_in_a_group_and_on_any_number_of_threads():
    configs = [FOLDING.replace(sigma=sigma, seed=seed) for sigma in (0.1, 0.5, 2.0) for seed in (0, 1)]
    together = train(configs, data=large(), device="cpu")
    for count in (1, 2):
        with threads(count):
            alone = train(configs[3], data=large(), device="cpu")
        found, wanted = (dict(r.model(run).named_parameters()) for r, run in ((alone, 0), (together, 3)))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("changes", "folded"),
    [
        ({}, True),
        ({"batch_size": 256}, True),
        ({"batch_size": 1}, False),
        ({"batch_size": 257}, False),
        ({"widths": (120, 120)}, False),
        ({"momentum": 0.9}, False),
        ({"clip": 1.0}, False),
        ({"warmup": 3}, False),
        ({"schedule": "cosine"}, False),
        ({"weight_decay": 0.1}, False),
        ({"optimizer": "adam"}, False),
    ],
)
def test_only_updates_of_plain_sgd_in_large_products_are_folded(changes, folded):
    configs = [FOLDING.replace(sigma=sigma, **changes) for sigma in (0.5, 2.0)]
    stack = Ensemble(start.members(configs, large())[0])
    Updates(configs, stack)
    assert any(p.grad is None for p in stack.parameters.values()) == folded
