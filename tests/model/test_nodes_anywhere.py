"""Catches: nodes that meet the wrong values in networks which nobody here wrote, or go in where they cannot work."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nin import inject


class Residual(nn.Module):
    """A small ResNet: BatchNorm, strides, a shortcut with a 1 x 1 convolution, dropout, a linear head."""

    def __init__(self, channels=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.first = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, stride=2)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * channels, 5))

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.shortcut(x) + self.second(F.relu(self.first(x)))
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    """A transformer encoder over tokens, with a mask and a head on the first token."""

    def __init__(self, batch_first=True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.embed = nn.Linear(3, 8)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 5)

    def forward(self, x, mask=None):
        return self.head(self.encoder(self.embed(x), src_key_padding_mask=mask)[:, 0])


def images(count=6, seed=0):
    return torch.randn(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tokens(count=6):
    return torch.randn(count, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return Residual().double().eval()


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder().double().eval()


@pytest.mark.parametrize(
    ("convolution", "x"),
    [
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), torch.randn(6, 3, 9, 7)),
        (nn.Conv2d(4, 4, 3, groups=2, dilation=2), torch.randn(6, 4, 9, 7)),
        (nn.Conv1d(3, 5, 3, padding="same"), torch.randn(6, 3, 11)),
        (nn.Conv3d(2, 3, 2), torch.randn(6, 2, 3, 4, 5)),
        (nn.ConvTranspose2d(3, 4, 3, stride=2), torch.randn(6, 3, 5, 4)),
    ],
)
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_convolution_sees_its_input_shifted_pixel_by_pixel(convolution, x, nodes):
    """Equation (2), prediction 3: z = K * (x + sum_m W_m eps_m) + b, written out; and by linearity K * W_m eps_m."""
    convolution, x = copy.deepcopy(convolution).double(), x.double()
    noisy = inject(nn.Sequential(convolution), "0", sigma=2.0, nodes=nodes, example=x[:1])
    assert noisy.niw.shape == (nodes, *x.shape[1:])
    eps = noisy.draw(6)
    perturbed = x.clone()
    for sample in range(6):
        for node in range(nodes):
            perturbed[sample] += eps[sample, node] * noisy.niw[node]
    torch.testing.assert_close(noisy(x, eps), convolution(perturbed), rtol=0, atol=1e-12)
    without_bias = copy.deepcopy(convolution)
    nn.init.zeros_(without_bias.bias)
    by_node = torch.tensordot(eps, torch.stack([without_bias(w[None])[0] for w in noisy.niw]), dims=1)
    torch.testing.assert_close(noisy(x, eps) - convolution(x), by_node, rtol=0, atol=1e-12)


def test_behind_a_convolution_all_pixels_of_a_channel_share_the_weight(residual):
    noisy = inject(residual, "first", sigma=1.0, nodes=2, at="preactivation")
    assert noisy.niw.shape == (2, 8)
    seen = []
    residual.first.register_forward_hook(lambda _, inputs, output: seen.append(output))
    eps = noisy.draw(6)
    noisy(images(), eps), noisy(images(), 0 * eps)
    residual.second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noisy(images(), eps)
    torch.testing.assert_close(seen[-1], F.relu(seen[-2] + (eps @ noisy.niw)[:, :, None, None]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", ["stem.0", "first", "second", "shortcut", "head.1"])
def test_gradients_in_a_residual_network(residual, layer):
    """Predictions 1 and 2: silent, it leaves outputs and gradients; dL/dW_NI against central differences."""
    x, y = images(), torch.arange(6) % 5
    noisy = inject(residual, layer, sigma=1.5, niw_std=0.3, example=x[:2])
    torch.testing.assert_close(noisy(x, torch.zeros(6, 1)), residual(x), rtol=0, atol=1e-12)
    eps = noisy.draw(6)
    F.cross_entropy(noisy(x, eps), y).backward()
    index = tuple(size // 2 for size in noisy.niw.shape)
    losses = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            noisy.niw[index] += step
            losses.append(F.cross_entropy(noisy(x, eps), y).item())
            noisy.niw[index] -= step
    assert noisy.niw.grad[index].item() == pytest.approx((losses[0] - losses[1]) / 2e-5, abs=1e-8)
    assert noisy.niw.grad.abs().max() > 1e-5


@pytest.mark.parametrize("layer", ["embed", "encoder.layers.0.linear1", "encoder.layers.1.linear2", "head"])
@pytest.mark.parametrize("training", [True, False])
def test_all_tokens_of_a_sample_share_their_noise_in_a_transformer(encoder, layer, training):
    """Against the same network with the shift written into the layer's bias, sample by sample."""
    x = tokens()
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[:, 5:] = True
    noisy = inject(encoder, layer, sigma=1.0).train(training)
    eps = noisy.draw(6)
    outputs = noisy(x, eps, mask=mask)
    for sample in range(6):
        twin = copy.deepcopy(encoder)
        with torch.no_grad():
            twin.get_submodule(layer).bias += eps[sample] @ noisy.niw
        alone = twin(x[sample : sample + 1], mask=mask[sample : sample + 1])
        torch.testing.assert_close(outputs[sample : sample + 1], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(noisy.eval()(x), encoder(x), rtol=0, atol=0)


def test_several_layers_have_nodes_of_their_own(residual):
    layers = ["stem.0", "second", "head.1"]
    noisy = inject(residual, layers, sigma=[1.0, 2.0, 0.0], nodes=2, example=images(1))
    assert list(noisy.niw) == layers and noisy.sigma == {"stem.0": 1.0, "second": 2.0, "head.1": 0.0}
    assert {name: tuple(noisy.niw[name].shape) for name in layers} == {
        "stem.0": (2, 3, 8, 8), "second": (2, 8, 4, 4), "head.1": (2, 5),
    }  # fmt: skip
    assert {"niw.stem/0", "niw.second", "niw.head/1"} <= set(dict(noisy.named_parameters()))
    eps = noisy.draw(6)
    assert not eps["head.1"].any() and not torch.equal(eps["stem.0"], eps["second"] / 2)
    one_by_one = [inject(residual, name, sigma=1.0, nodes=2, example=images(1)) for name in layers]
    with torch.no_grad():
        for name, single in zip(layers, one_by_one, strict=True):
            single.niw.copy_(noisy.niw[name])
    silent = {name: torch.zeros(6, 2) for name in layers}
    for name, single in zip(layers, one_by_one, strict=True):
        alone = noisy(images(), silent | {name: eps[name]})
        torch.testing.assert_close(alone, single(images(), eps[name]), rtol=0, atol=1e-12)
    noisy.train()(images()).sum().backward()
    assert all(noisy.niw[name].grad is not None for name in layers)
    with pytest.raises(ValueError, match="noise=Tensor must map each of the layers stem.0, second, head.1 to"):
        noisy(images(), eps["second"])
    with pytest.raises(ValueError, match=r"noise at 'second' has shape \(5, 2\), expected \(batch, nodes\) = \(6, 2\)"):
        noisy(images(), eps | {"second": torch.zeros(5, 2)})
    with pytest.raises(KeyError, match="'first' has no node; layers with nodes: stem.0, second, head.1"):
        noisy.niw["first"]


@pytest.mark.parametrize("layers", ["first", ["stem.0", "head.1"]])
def test_a_run_that_was_saved_goes_on_as_it_would_have(layers):
    """Momentum, BatchNorm statistics and the generator of the noise; dropout is torch's own to restore."""

    def begin():
        torch.manual_seed(0)
        network = Residual()
        network.head[0].p = 0.0
        noisy = inject(network, layers, sigma=2.0, example=torch.zeros(1, 3, 8, 8))
        return noisy, torch.optim.SGD(noisy.parameters(), lr=0.05, momentum=0.9)

    def go_on(noisy, optimizer, steps):
        x, y = images(12).float(), torch.arange(12) % 5
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(noisy(x), y).backward()
            optimizer.step()

    noisy, optimizer = begin()
    go_on(noisy, optimizer, 3)
    file = io.BytesIO()
    torch.save({"network": noisy.state_dict(), "optimizer": optimizer.state_dict()}, file)
    go_on(noisy, optimizer, 3)
    resumed, resumed_optimizer = begin()
    resumed.draw(99)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    resumed.load_state_dict(saved["network"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    go_on(resumed, resumed_optimizer, 3)
    for name, value in noisy.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_looking_for_shapes_leaves_the_model_and_the_generator(residual):
    residual.train()
    before, state = copy.deepcopy(residual.state_dict()), torch.get_rng_state()
    inject(residual, "second", sigma=1.0, example=images(2), generator=torch.Generator())
    assert residual.training and residual.head[0].training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in residual.state_dict().items())
    assert not residual.second._forward_pre_hooks


class Twice(nn.Module):
    """One module called twice, one never."""

    def __init__(self):
        super().__init__()
        self.shared, self.unused, self.tied = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
        self.tied.weight = self.shared.weight

    def forward(self, x):
        return self.tied(self.shared(self.shared(x)))


def test_shared_and_unused_modules_are_refused_and_tied_weights_are_not():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match="layer='shared' was called twice in one forward pass: pass calls='same'"):
        inject(Twice(), "shared", sigma=1.0)(x)
    with pytest.raises(ValueError, match="layer='unused' was never called in one forward pass"):
        inject(Twice(), "unused", sigma=1.0)(x)
    model = Twice()
    noisy = inject(model, "tied", sigma=1.0)
    eps = noisy.draw(4)
    torch.testing.assert_close(noisy(x, eps), model(x) + eps @ noisy.niw)
    assert not model.shared._forward_hooks and not model.tied._forward_hooks


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_take_a_node_is_named(residual, encoder):
    image = images(1)
    half, scattered = Residual().half(), Residual()
    scattered.head[1] = nn.Linear(8, 5, device="meta")
    cases = [
        (encoder, "encoder.layers.0.self_attn.out_proj", {}, "MultiheadAttention uses its weight and never calls it"),
        (encoder, "encoder.layers.0.norm1", {}, "is a LayerNorm, not a linear layer, convolution or embedding"),
        (
            residual,
            "third",
            {},
            "is not in the model; layers that take a node are: stem.0, first, second, shortcut",
        ),
        (residual, "first", {}, "example=None: the node has one weight for each channel and pixel that feeds 'first'"),
        (residual, "first", {"example": torch.zeros(2, 5, 8, 8).double()}, r"an example of shape \(2, 5, 8, 8\)"),
        (residual, "first", {"example": 3}, r"the model rejects an example of shape \(\)"),
        (half, "first", {"example": image}, "layer='first' has weights of torch.float16, too coarse for"),
        (scattered, "first", {"example": image}, "model is spread over several devices: cpu, meta. Move it to one"),
        (nn.Sequential(nn.Bilinear(3, 3, 2)), "0", {}, "is a Bilinear, not a linear layer"),
        (
            Encoder(batch_first=False),
            "encoder.layers.0.linear1",
            {},
            "has batch_first=False, so that samples",
        ),
    ]
    for model, layer, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            inject(model, layer, sigma=1.0, **arguments)


def test_values_of_another_shape_are_named(residual):
    noisy = inject(residual, "first", sigma=1.0, example=images(1))
    with pytest.raises(ValueError, match=r"layer='first' has input of shape \(6, 4, 4, 4\), but the node was made for"):
        noisy(images()[:, :, ::2, ::2], torch.zeros(6, 1))

    class Rows(nn.Sequential):
        def forward(self, x):
            return super().forward(x.flatten(0, 1))

    rows = inject(Rows(nn.Linear(3, 2)), "0", sigma=1.0)
    with pytest.raises(ValueError, match=r"of shape \(42, 2\), .* in each of 6 samples, on the first axis"):
        rows(tokens().float())


def test_several_layers_can_be_called_with_other_weights():
    """functional_call puts plain tensors in the place of parameters, also in the weights by layer."""
    noisy = inject(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), ["0", "1"], sigma=1.0)
    x, noise = torch.randn(5, 3), noisy.draw(5)
    doubled = {name: 2 * p.detach() for name, p in noisy.named_parameters()}
    found = torch.func.functional_call(noisy, doubled, (x, noise))
    noisy.load_state_dict(noisy.state_dict() | doubled)
    torch.testing.assert_close(found, noisy(x, noise))
