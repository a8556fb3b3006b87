"""Catches a readout that is not the convex optimum, or that reads another layer than it says."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from nin.model.data import load_data
from nin.probes.interactions import fit_readouts


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(3, dtype=torch.long)}, "y of 3 labels"),
        ({"y": torch.zeros(5)}, "torch.float32, must be integers"),
        ({"layers": ["7"]}, "layers names '7'"),
        ({"l2": -1}, "l2=-1 must be"),
    ],
)
def test_bad_input(change, message):
    arguments = {"y": torch.zeros(5, dtype=torch.long), "layers": ["0"]} | change
    with pytest.raises(ValueError, match=message):
        fit_readouts(network(), torch.zeros(5, 64, dtype=torch.float64), **arguments)
