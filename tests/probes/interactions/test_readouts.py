"""Catches a readout that is not the convex optimum, or that reads another layer than it says."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from nin.model.data import load_data
from nin.model.networks import MLP
from nin.probes.interactions import fit_readouts, head_readout


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)).to(dtype)


def test_readout_is_scikit_learns():
    """The same objective: C = 1 / (l2 n), on features divided by their rms deviation."""
    data, model = load_data("digits", n_train=300, n_test=100), network()
    x, y = data.x_train.double(), data.y_train
    found = fit_readouts(model, x, y, ["1"], l2=0.01, iterations=500, test=(data.x_test.double(), data.y_test))["1"]
    with torch.no_grad():
        f = model[:2](x)
    mean = f.mean(0)
    scale = (f - mean).square().mean().sqrt()
    other = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-10, max_iter=5000).fit(
        ((f - mean) / scale).numpy(), y.numpy()
    )
    expected = other.predict_log_proba(((f - mean) / scale).numpy())
    np.testing.assert_allclose(found(f).log_softmax(1).numpy(), expected, atol=2e-3)
    assert found.accuracy == other.score(((f - mean) / scale).numpy(), y.numpy())
    assert 0.5 < found.test_accuracy <= 1


def test_all_layers_of_a_model_in_training_mode():
    data, model = load_data("digits", n_train=200), network(torch.float32)
    model.train()
    found = fit_readouts(model, data.x_train, data.y_train, ["0", "3"])
    assert list(found) == ["0", "3"] and model.training
    assert found["0"].weight.shape == (10, 16) and np.isnan(found["0"].test_accuracy)
    assert found["0"].accuracy > 0.9


def test_readout_of_logits_is_ridge_regression():
    """scikit-learn's: alpha = n l2 on the same features; more samples than features and fewer."""
    data, model = load_data("digits", n_train=300), network()
    x, y = data.x_train.double(), data.y_train
    with torch.no_grad():
        z, f = model.eval()(x), model[:2](x)
    for count in (300, 12):
        found = fit_readouts(model, x[:count], y[:count], ["1"], logits=z[:count], l2=0.01)["1"]
        part = f[:count]
        scale = (part - part.mean(0)).square().mean().sqrt()
        inputs = ((part - part.mean(0)) / scale).numpy()
        other = Ridge(alpha=0.01 * count, solver="svd").fit(inputs, z[:count].numpy())
        np.testing.assert_allclose(found(part).numpy(), other.predict(inputs), atol=1e-8)
    exact = fit_readouts(model, x, y, ["1"], logits=z, l2=1e-12)["1"]
    torch.testing.assert_close(exact.weight, model[3].weight.detach(), rtol=1e-6, atol=1e-6)


def test_head_is_the_readout_of_the_last_hidden_layer():
    data, model = load_data("digits", n_train=50), network()
    x, y = data.x_train.double(), data.y_train
    found = head_readout(model, "2", "3", x, y)
    with torch.no_grad():
        outputs = model.eval()(x)
        torch.testing.assert_close(found(model[:2](x)), outputs, rtol=0, atol=1e-12)
    assert found.accuracy == (outputs.argmax(1) == y).double().mean()
    mlp = MLP(64, (8,), 10, init="ntk", bias=False, dtype=torch.float64)
    wrapped = nn.Sequential(nn.Sequential(mlp.layers[0], nn.ReLU()), mlp.layers[1])
    scaled = head_readout(wrapped, "0", "1", x, y)
    torch.testing.assert_close(scaled.weight, mlp.layers[1].weight.detach() / 8**0.5)
    assert not scaled.bias.any()
    for layer, head, message in (
        ("0", "3", "head='3' does not make the output from layer '0'"),  # the ReLU lies between them
        ("1", "1", "head='1' contains 0 linear layers"),
        ("0", "0", "head='0' does not make the output from layer '0'"),
    ):
        with pytest.raises(ValueError, match=message):
            head_readout(model, layer, head, x, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(3, dtype=torch.long)}, "y of 3 labels"),
        ({"y": torch.zeros(5)}, "torch.float32, must be integers"),
        ({"layers": ["7"]}, "layers names '7'"),
        ({"l2": -1}, "l2=-1 must be"),
        ({"logits": torch.zeros(4, 2)}, "logits of 4 samples"),
    ],
)
def test_bad_input(change, message):
    arguments = {"y": torch.zeros(5, dtype=torch.long), "layers": ["0"]} | change
    with pytest.raises(ValueError, match=message):
        fit_readouts(network(), torch.zeros(5, 64, dtype=torch.float64), **arguments)
