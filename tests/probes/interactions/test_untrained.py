"""Catches: an untrained control that is not initialised as the model is, or that keeps something of the training."""

import pytest
import torch
from torch import nn

from nin.probes.interactions import reinitialised


class HuggingFace(nn.Module):
    """_init_weights for each module; init_weights leaves what is marked as loaded; tied input and output weights."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(50, 40), nn.LayerNorm(40)
        self.inner, self.head = nn.Linear(40, 40), nn.Linear(40, 50, bias=False)
        self.init_weights()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=3.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    def init_weights(self):
        for module in self.modules():
            if not getattr(module, "_is_hf_initialized", False):
                self._init_weights(module)
            module._is_hf_initialized = True
        self.head.weight = self.embedding.weight


class Timm(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.zeros(1, 40)), nn.Linear(40, 40)
        self.init_weights()

    def init_weights(self, zero_init_last=True):
        self.token.data.fill_(3.0)
        self.layer.weight.data.normal_(mean=3.0, std=0.02)
        if zero_init_last:
            self.layer.bias.data.zero_()


class Graph(nn.Module):
    """Its reset_parameters resets its layers, and the last one in another way."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(40, 40), nn.Linear(40, 40)
        self.reset_parameters()

    def reset_parameters(self):
        self.first.reset_parameters()
        self.last.reset_parameters()
        self.last.weight.data.normal_(mean=3.0, std=0.02)
        self.last.bias.data.zero_()


class NanoGpt(nn.Module):
    """_init_weights without an argument, in a module that another one contains."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(40, 40)
        self._init_weights()

    def _init_weights(self):
        self.layer.weight.data.normal_(mean=3.0, std=0.02)
        self.layer.bias.data.zero_()


OWN = {  # the tensors that the model draws from N(3, 0.02), and those that it sets
    "hugging face": (HuggingFace, ["embedding.weight", "inner.weight"], {"inner.bias": 0.0}),
    "timm": (Timm, ["layer.weight"], {"layer.bias": 0.0, "token": 3.0}),
    "graph": (Graph, ["last.weight"], {"last.bias": 0.0}),
    "inside": (lambda: nn.Sequential(nn.Linear(40, 40), NanoGpt()), ["1.layer.weight"], {"1.layer.bias": 0.0}),
}


def trained(make):
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", OWN)
def test_the_control_is_initialised_as_the_model(kind):
    make, drawn, fixed = OWN[kind]
    model = trained(make)
    before = {name: p.clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    fresh = dict(reinitialised(model, seed=3).named_parameters())
    for name in drawn:
        assert abs(fresh[name].mean() - 3) < 5 * 0.02 / 40 and abs(fresh[name].std() / 0.02 - 1) < 0.1, name
    for name, value in fixed.items():
        assert (fresh[name] == value).all(), name
    again = dict(reinitialised(model, seed=3).named_parameters())
    assert all(torch.equal(again[name], value) for name, value in fresh.items())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())  # the model is not touched
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(torch.equal(value, before[name]) for name, value in fresh.items())


def test_tied_weights_stay_tied_and_marks_stay_on_the_model():
    model = trained(HuggingFace)
    fresh = reinitialised(model)
    assert fresh.head.weight is fresh.embedding.weight and fresh.head.weight is not model.head.weight
    assert model.inner._is_hf_initialized
    assert torch.equal(fresh.norm.weight, torch.ones(40))  # what the model's own way leaves out is reset all the same


def test_attention_draws_its_weights_as_it_is_made():
    torch.manual_seed(0)
    fresh = reinitialised(trained(lambda: nn.Sequential(nn.MultiheadAttention(40, 4))))[0]
    bound = (6 / (40 + 120)) ** 0.5  # Xavier, uniform
    assert fresh.in_proj_weight.abs().max() <= bound and fresh.in_proj_weight.std() > 0.9 * bound / 3**0.5
    assert (fresh.in_proj_bias == 0).all() and (fresh.out_proj.bias == 0).all()
