"""Catches: runs that are accepted though they make no sense, and random streams that are not common to a seed."""

import dataclasses

import numpy as np
import pytest
import torch

from nin import RunConfig


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sigma", -1, r"sigma=-1 must be a finite number >= 0"),
        ("sigma", float("nan"), r"sigma=nan must be a finite number"),
        ("sigma", "loud", r"sigma='loud' must be a finite number"),
        ("lr", 0, r"lr=0 must be a finite number > 0"),
        ("lr", float("inf"), r"lr=inf must be"),
        ("batch_size", 0, r"batch_size=0 must be an integer >= 1"),
        ("batch_size", 2.5, r"batch_size=2.5 must be an integer"),
        ("steps", -1, r"steps=-1 must be an integer >= 0"),
        ("seed", -1, r"seed=-1 must be an integer >= 0"),
        ("nodes", -1, r"nodes=-1 must be an integer >= 0"),
        ("n_train", 0, r"n_train=0 must be an integer >= 1"),
        ("n_train", 100, r"batch_size=128 is larger than n_train=100"),
        ("widths", 128, r"widths=128 must be a sequence"),
        ("widths", (128, -1), r"widths=-1 must be an integer >= 1"),
        ("momentum", 1.0, r"momentum=1.0 must lie in \[0, 1\)"),
        ("dataset", "digit", r"dataset='digit' is unknown; .*Did you mean 'digits'"),
        ("network", "cnn", r"network='cnn' is unknown; choose one of mlp, linear"),
        ("network", "linear", r"the linear net has one width"),
        ("activation", "gelu", r"activation='gelu' is unknown"),
        ("law", "cauchy", r"law='cauchy' is unknown; choose one of gaussian, uniform, rademacher"),
        ("resample", "never", r"resample='never' is unknown; choose one of step, epoch, fixed"),
        ("optimizer", "lbfgs", r"optimizer='lbfgs' is unknown; choose one of sgd, adam"),
        ("loss", "hinge", r"loss='hinge' is unknown"),
        ("dtype", "float16", r"dtype='float16' is unknown"),
        ("layer", -1, r"layer=-1 must be an integer >= 0"),
        ("eval_points", 1, r"eval_points=1 must be 0 \(no clean losses\) or at least 2"),
    ],
)
def test_bad_fields_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**{field: value})


def test_config_is_a_frozen_hashable_value_of_plain_numbers():
    config = RunConfig(sigma=np.float64(2), seed=np.int64(3), widths=[16, 8])
    assert config == RunConfig(sigma=2.0, seed=3, widths=(16, 8))
    assert hash(config) == hash(RunConfig(sigma=2.0, seed=3, widths=(16, 8)))
    assert type(config.sigma) is float and type(config.seed) is int
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.sigma = 1


def test_streams_depend_on_seed_and_purpose_alone():
    def draw(stream, **fields):
        return torch.rand(4, generator=RunConfig(**fields).generator(stream))

    assert torch.equal(draw("noise", seed=1), draw("noise", seed=1, sigma=9.0, widths=(4,), lr=0.1))
    assert not torch.equal(draw("noise", seed=1), draw("noise", seed=2))
    assert not torch.equal(draw("noise", seed=1), draw("order", seed=1))
