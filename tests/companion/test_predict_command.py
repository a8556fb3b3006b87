"""Catches: a command line that predicts another run than nin.predict, or takes a value for what it is not."""

import pytest
import torch

import nin
from nin import RunConfig
from nin.companion.command import main
from nin.companion.prediction import prediction, read
from nin.model.losses import LOSSES
from nin.training.start import members


def test_values_become_a_config():
    found = read("widths=16,8 loss=mse layer=1 niw_std=0.5 n_train=200 lr=1e-2 law=uniform sigma=3".split())
    assert found == RunConfig(
        widths=(16, 8), loss="mse", layer=1, niw_std=0.5, n_train=200, lr=0.01, law="uniform", sigma=3.0
    )
    assert read([]) == RunConfig() and read(["layer=layers.2", "niw_std=None"]).layer == "layers.2"


def test_it_is_the_prediction_of_the_run():
    config = RunConfig(widths=(16,), sigma=20.0, n_train=300, batch_size=32, seed=3)
    data = nin.load_data("digits", n_train=300)
    ((noisy,), _) = members([config], data)
    options = {"lr": 0.05, "batch_size": 32, "steps": 1500, "generator": torch.Generator().manual_seed(3)}
    expected = nin.predict(noisy, data.x_train, data.y_train, loss=LOSSES["cross_entropy"], **options, scales=True)
    assert prediction(config) == expected


def test_the_command_prints_it(capsys):
    assert main("predict widths=16 n_train=200 batch_size=32 sigma=500 steps=100".split()) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("divergent, probability") and "catapult from sigma = " in shown and "plain SGD is" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sigma", "'sigma' must have the form name=value"),
        ("sigmas=1", "name='sigmas' is unknown"),
        ("sigma=1 sigma=2", "sigma is given twice"),
        ("sigma=much", "sigma='much' must be a number"),
        ("batch_size=1.5", "batch_size='1.5' must be an integer"),
        ("widths=64,x", "widths='64,x' must be integers"),
        ("optimizer=adam", "name='optimizer' is unknown"),
        ("nodes=0", "nodes=0: a run without a node"),
        ("activation=rely", "Did you mean 'relu'"),
    ],
)
def test_errors_name_the_value(words, message, capsys, unchecked):
    assert main(["predict", *words.split()]) == 2
    assert message in capsys.readouterr().err
