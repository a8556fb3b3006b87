"""Catches: an input of the network that is taken for noise, noise that reaches the network, a wrong batch size."""

import pytest
import torch
from torch import nn

from nin import inject
from nin.model.passing import parameters_of


def noisy_network(network, layer="linear", **options):
    options = {"sigma": 1.0, "generator": torch.Generator().manual_seed(0)} | options
    return inject(network.double(), layer, **options)


def values(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class WithMask(nn.Module):
    """Two positional inputs, the second optional, and a keyword named noise."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x, mask=None, *, noise=0.0):
        z = self.linear(x) + noise
        return z if mask is None else z * mask


class FromDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.config = {"hidden": 4}

    def forward(self, input_ids=None, inputs=None):
        return {"logits": self.linear(inputs["x"] if inputs is not None else input_ids)}

    def generate(self):
        return "text"


def shifted(noisy, x, eps):
    return noisy.network.linear(x) + eps @ noisy.niw


@pytest.mark.parametrize("training", [True, False])
def test_a_second_input_goes_to_the_network(training):
    noisy = noisy_network(WithMask()).train(training)
    x, mask, eps = values(5, 3), values(5, 4), values(5, 1, seed=1)
    with noisy.using(eps):
        torch.testing.assert_close(noisy(x, mask), shifted(noisy, x, eps) * mask)
        torch.testing.assert_close(noisy(x, mask, noise=2.0), (shifted(noisy, x, eps) + 2) * mask)
    torch.testing.assert_close(noisy(x, eps, mask=mask), shifted(noisy, x, eps) * mask)
    torch.testing.assert_close(noisy.eval()(x, mask), noisy.network(x, mask))


def test_what_could_be_noise_or_an_input_is_refused():
    noisy = noisy_network(WithMask())
    with pytest.raises(ValueError, match=r"shape \(5, 1\), could be noise or the model's own 'mask'"):
        noisy(values(5, 3), values(5, 1))


def test_keywords_and_mappings_reach_the_network_and_the_layer_gives_the_batch_size():
    noisy = noisy_network(FromDict())
    x = values(5, 3)
    eps = noisy_network(FromDict()).draw(5)
    for inputs in ({"input_ids": x}, {"inputs": {"x": x, "more": x}}):
        noisy.generator.manual_seed(0)
        noisy.draw(1), noisy.generator.manual_seed(0)
        found = noisy(**inputs)["logits"] - noisy.network(**inputs)["logits"]
        assert torch.linalg.matrix_rank(found) == 1 and (found.abs().sum(1) > 0).all()
    torch.testing.assert_close(noisy(input_ids=x, noise=eps)["logits"], shifted(noisy, x, eps))
    with noisy.using(0.5):
        torch.testing.assert_close(noisy(x)["logits"], shifted(noisy, x, torch.full((5, 1), 0.5).double()))


def test_attributes_are_those_of_the_network():
    noisy = noisy_network(FromDict())
    assert noisy.config == {"hidden": 4} and noisy.generate() == "text"
    with pytest.raises(AttributeError, match="other"):
        _ = noisy.other


class Recurrent(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.linear, self.lstm, self.head = nn.Linear(3, 4), nn.LSTM(4, 4, batch_first=batch_first), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.lstm(self.linear(x))[0])


def test_samples_on_the_second_axis_share_their_noise_over_time():
    with pytest.raises(ValueError, match="'lstm' has batch_first=False.* batch_axis=1"):
        noisy_network(Recurrent(batch_first=False))
    torch.manual_seed(0)
    second = noisy_network(Recurrent(batch_first=False), batch_axis=1)
    first = noisy_network(Recurrent(batch_first=True))
    first.network.load_state_dict(second.network.state_dict())
    x = values(7, 5, 3)  # time, samples, features
    torch.testing.assert_close(second(x), first(x.transpose(0, 1)).transpose(0, 1))
    with pytest.raises(ValueError, match=r"noise has shape \(7, 1\), expected \(batch, nodes\) = \(5, 1\)"):
        second(x, values(7, 1))


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(self.linear(x))


def test_a_layer_that_is_called_twice():
    x, eps = values(5, 3), values(2, 5, 1, seed=1)
    with pytest.raises(ValueError, match="called twice in one forward pass: pass calls='same'"):
        noisy_network(Repeated())(x)
    same, each = (noisy_network(Repeated(), calls=calls) for calls in ("same", "each"))
    each.load_state_dict(same.state_dict())
    expected = shifted(same, shifted(same, x, eps[0]), eps[0])
    torch.testing.assert_close(same(x, eps[0]), expected)
    torch.testing.assert_close(each(x, eps), shifted(each, shifted(each, x, eps[0]), eps[1]))
    drawn = [noisy_network(Repeated(), calls="each") for _ in range(2)]
    drawn[1].load_state_dict(drawn[0].state_dict())
    both = torch.stack([drawn[1].draw(5) for _ in range(2)])
    torch.testing.assert_close(drawn[0](x), drawn[0](x, both))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_and_traced_networks_are_refused_by_name():
    plain, x = Repeated(), torch.ones(2, 3)
    traced, scripted = torch.jit.trace(plain, (x,)), torch.jit.script(plain)
    assert parameters_of(traced) == (None, {}) and parameters_of(scripted)[0] == ["x"]
    for model, layer in ((scripted, "linear"), (traced, "linear"), (nn.Sequential(scripted), "0.linear")):
        with pytest.raises(ValueError, match="scripted or traced by torch.jit.* that it was made from"):
            inject(model, layer, sigma=1.0)
    beside = noisy_network(nn.Sequential(torch.jit.script(nn.Tanh()), nn.Linear(3, 3)), "1")
    assert beside(values(5, 3), values(5, 1)).shape == (5, 3)  # a scripted module elsewhere does no harm
