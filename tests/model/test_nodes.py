"""Catches: a node that disturbs the plain network, wrong gradients of the NIW, noise of the wrong law, lost state."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from nin import inject
from nin.model.networks import MLP
from nin.model.noise import LAWS, draw_noise
from nin.probes import curvature


def network(dtype=torch.float64, seed=0):
    return MLP(5, (7, 6), 3, activation="tanh", dtype=dtype, generator=torch.Generator().manual_seed(seed))


def batch(count=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


def gradients(module, *inputs, y):
    module.zero_grad()
    nn.functional.cross_entropy(module(*inputs), y).backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layer", ["layers.0", "layers.1", "layers.2"])
@pytest.mark.parametrize("silent", ["no noise", "no weights"])
def test_silent_node_leaves_outputs_and_gradients(layer, silent):
    """Prediction 1."""
    plain, (x, y) = network(), batch()
    noisy = inject(network(), layer, sigma=3.0, niw_std=0.0 if silent == "no weights" else 1.0)
    noise = noisy.draw(8) if silent == "no weights" else torch.zeros(8, 1, dtype=torch.float64)
    torch.testing.assert_close(noisy(x, noise), plain(x), rtol=0, atol=1e-12)
    of_noisy, of_plain = gradients(noisy, x, noise, y=y), gradients(plain, x, y=y)
    for name, gradient in of_plain.items():
        torch.testing.assert_close(of_noisy[f"network.{name}"], gradient, rtol=0, atol=1e-12)
    norm = of_noisy["niw"].norm()
    assert norm > 1e-3 if silent == "no weights" else norm == 0


@pytest.mark.parametrize("nodes", [1, 3])
def test_gradient_of_niw_is_mean_of_noise_times_local_gradient(nodes):
    """Prediction 2: dL/dW_NI = <eps dl/dz>, by central differences and by the gradient at the pre-activation."""
    x, y = batch()
    noisy = inject(network(), "layers.1", sigma=1.5, nodes=nodes, niw_std=0.7)
    noise = noisy.draw(8)
    gradient = gradients(noisy, x, noise, y=y)["niw"]
    for index in [(0, 0), (nodes - 1, 4)]:
        loss = []
        for step in (1e-5, -1e-5):
            niw = noisy.niw.detach().clone()
            niw[index] += step
            loss.append(nn.functional.cross_entropy(functional_call(noisy, {"niw": niw}, (x, noise)), y).item())
        assert gradient[index].item() == pytest.approx((loss[0] - loss[1]) / 2e-5, abs=1e-8)

    z = noisy.network.layers[1](torch.tanh(noisy.network.layers[0](x))) + noise @ noisy.niw
    z = z.detach().requires_grad_()
    loss = nn.functional.cross_entropy(noisy.network.layers[2](torch.tanh(z)), y, reduction="sum")
    (g,) = torch.autograd.grad(loss, z)  # (batch, d)
    torch.testing.assert_close(gradient, noise.T @ g / 8, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_node_is_one_more_input_column(bias):
    """Prediction 3: x~ = [x; eps], W~ = [W, W_NI]."""
    x, _ = batch()
    linear = nn.Linear(5, 4, bias=bias, dtype=torch.float64)
    noisy = inject(nn.Sequential(linear), "0", sigma=2.0, nodes=2)
    noise = noisy.draw(8)
    appended = nn.functional.linear(torch.cat([x, noise], 1), torch.cat([linear.weight, noisy.niw.T], 1), linear.bias)
    torch.testing.assert_close(noisy(x, noise), appended, rtol=0, atol=1e-12)


def test_model_is_shared_and_untouched():
    model = network()
    seen = []
    model.layers[1].register_forward_hook(lambda *_: seen.append(1))
    before = ([name for name, _ in model.named_modules()], dict(model.layers[1]._forward_hooks), str(model))
    noisy = inject(model, "layers.1", sigma=1.0)
    noisy(batch()[0])
    assert before == ([name for name, _ in model.named_modules()], dict(model.layers[1]._forward_hooks), str(model))
    assert seen == [1]
    assert noisy.network is model and noisy.network.layers[0].weight is model.layers[0].weight


def test_hook_is_gone_after_a_failed_forward():
    noisy = inject(network(), "layers.1", sigma=1.0)
    with pytest.raises(RuntimeError):
        noisy(torch.zeros(8, 99, dtype=torch.float64))
    assert not noisy.network.layers[1]._forward_hooks


def test_train_draws_eval_is_silent_explicit_noise_overrides():
    noisy, (x, _) = inject(network(), "layers.0", sigma=1.0), batch()
    assert not torch.equal(noisy(x), noisy(x))
    noisy.eval()
    assert torch.equal(noisy(x), noisy.network(x))
    noise = noisy.draw(8)
    assert not torch.equal(noisy(x, noise), noisy.network(x))
    assert torch.equal(noisy(x, noise), noisy.train()(x, noise))


def test_any_optimiser_trains_both():
    x, y = batch()
    noisy = inject(network(), "layers.0", sigma=1.0)
    before = copy.deepcopy(noisy.state_dict())
    optimizer = torch.optim.AdamW(noisy.parameters(), lr=1e-2)
    nn.functional.cross_entropy(noisy(x), y).backward()
    optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in noisy.state_dict().items())


def test_state_dict_deepcopy_and_pickle_keep_weights_and_noise():
    noisy = inject(network(), "layers.0", sigma=1.0, nodes=2, generator=torch.Generator().manual_seed(5))
    other = inject(network(seed=9), "layers.0", sigma=1.0, nodes=2)
    other.load_state_dict(noisy.state_dict())
    twins = [other, copy.deepcopy(noisy), pickle.loads(pickle.dumps(noisy))]
    draw = noisy.draw(4)
    for twin in twins:
        assert torch.equal(twin.niw, noisy.niw)
        assert torch.equal(twin.draw(4), draw)


def test_functional_call_and_vmap():
    members = [inject(network(seed=s), "layers.1", sigma=1.0) for s in range(3)]
    x, _ = batch()
    noise = torch.stack([member.draw(8) for member in members])
    parameters, _ = stack_module_state(members)
    outputs = vmap(lambda p, eps: functional_call(members[0], p, (x, eps)))(parameters, noise)
    expected = torch.stack([member(x, eps) for member, eps in zip(members, noise, strict=True)])
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-12)


def test_tokens_of_a_sample_share_their_noise():
    noisy = inject(nn.Sequential(nn.Linear(5, 4)), "0", sigma=1.0)
    x = torch.zeros(3, 7, 5)
    shift = noisy(x) - noisy.network(x)
    torch.testing.assert_close(shift, shift[:, :1].expand(3, 7, 4))


@pytest.mark.parametrize("law", LAWS)
def test_laws_have_unit_variance_and_their_kurtosis(law):
    from nin.theory import KURTOSIS

    eps = draw_noise(200_000, 1, law=law, generator=torch.Generator().manual_seed(0))
    assert eps.mean().item() == pytest.approx(0, abs=0.01)
    assert eps.square().mean().item() == pytest.approx(1, abs=0.01)
    assert eps.pow(4).mean().item() == pytest.approx(KURTOSIS[law], rel=0.02)


def test_sigma_scales_the_draw():
    one, ten = (inject(network(), "layers.0", sigma=s, generator=torch.Generator().manual_seed(0)) for s in (1, 10))
    torch.testing.assert_close(10 * one.draw(5), ten.draw(5))


def test_default_niw_has_norm_one():
    wide = inject(nn.Sequential(nn.Linear(3, 4096)), "0", sigma=1.0)
    assert wide.niw.norm().item() == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "layers.9"}, r"layer='layers.9' is not in the model; layers that take a node are: layers.0, layers"),
        ({"layer": "layers"}, r"layer='layers' is a ModuleList, not a linear layer, convolution or embedding"),
        ({"layer": ["layers.0", "layers.0"]}, r"must be a name, or a sequence of different names"),
        ({"layer": []}, r"layer=\[\] must be a name"),
        ({"layer": ["layers.0", "layers.1"], "sigma": [1.0]}, r"sigma=\[1.0\] has 1 values for 2 layers"),
        ({"sigma": [1.0, 2.0]}, r"has 2 values for 1 layers; give one, or one each"),
        ({"sigma": -1.0}, r"sigma=-1.0 must be a finite number >= 0"),
        ({"sigma": float("nan")}, r"sigma=nan must be"),
        ({"sigma": "abc"}, r"sigma='abc' must be"),
        ({"nodes": 0}, r"nodes=0 must be an integer >= 1"),
        ({"niw_std": -0.1}, r"niw_std=-0.1 must be"),
        ({"law": "gausian"}, r"law='gausian' is unknown; choose one of gaussian, .* Did you mean 'gaussian'"),
        ({"at": "output"}, r"at='output' is unknown; choose one of preactivation, input"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        inject(network(), **({"layer": "layers.0", "sigma": 1.0} | arguments))


def test_bad_noise_shape_is_named():
    noisy = inject(network(), "layers.0", sigma=1.0)
    with pytest.raises(ValueError, match=r"noise has shape \(3, 1\), expected \(batch, nodes\) = \(8, 1\)"):
        noisy(batch()[0], torch.zeros(3, 1))


@pytest.mark.parametrize("layer", ["0", "network.0"])
def test_a_network_that_has_nodes_is_refused_by_name(layer):
    noisy = inject(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), "0", sigma=1.0)
    x, y, loss = torch.randn(5, 4), torch.arange(5) % 2, nn.functional.cross_entropy
    asked = {
        "inject": lambda: inject(noisy, layer, sigma=1.0),
        "local_hessian": lambda: curvature.local_hessian(noisy, layer, x, y, loss=loss),
        "Thermometer": lambda: curvature.Thermometer(noisy, layer, nodes=2).read(x, y, loss=loss),
    }
    for ask in asked.values():
        with pytest.raises(ValueError, match="model already has noise injection nodes: pass noisy.network"):
            ask()
