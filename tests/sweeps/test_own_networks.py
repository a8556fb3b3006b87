"""Catches: sweeps of networks that cannot be stacked which depend on groups or workers, or are mixed up in a store."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from sweeping import BASE, jitter, same, smoothed, stored, with_batch_norm
from torch import nn

import nin
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store

ADAM = BASE.replace(layer="0", optimizer="adamw", lr=0.01, warmup=5, schedule="cosine", clip=1.0, decay_node=False,
                    weight_decay=0.1, curvature_pairs=0)  # fmt: skip
OWN = {"network": with_batch_norm, "loss": smoothed, "augment": jitter}
OVER = {"sigma": [0.5, 4.0], "seed": [0, 1]}


@pytest.mark.slow
def test_the_same_in_groups_one_by_one_resumed_and_in_workers(tmp_path, unchecked):
    whole = nin.sweep(ADAM, over=OVER, store=tmp_path / "a", **OWN)
    same(whole, nin.train([ADAM.replace(sigma=s, seed=k) for s in (0.5, 4.0) for k in (0, 1)], **OWN).frame())
    nin.sweep(ADAM, over=OVER | {"sigma": [4.0]}, store=tmp_path / "b", at_once=1, **OWN)
    assert len(stored(tmp_path / "b")) == 2
    same(whole, nin.sweep(ADAM, over=OVER, store=tmp_path / "b", at_once=1, **OWN))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        same(whole, nin.sweep(ADAM, over=OVER, store=tmp_path / "c", executor=pool, **OWN))
    manifest = Store(tmp_path / "c").manifest(next(iter(Store(tmp_path / "c"))))
    assert manifest["loss"]["name"] == "sweeping.smoothed"
    assert manifest["augment"]["name"] == "sweeping.jitter"


def test_loss_augmentation_and_settings_are_part_of_the_key():
    def key(config=ADAM, **own):
        return Keys(None, with_batch_norm, "cpu", **own).of_run(config)

    losses = [None, smoothed, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)]
    keys = [key(loss=loss) for loss in losses] + [key(augment=jitter)]
    settings = [{"clip": 2.0}, {"warmup": 6}, {"decay_node": True}, {"schedule": "constant"}, {"autocast": True},
                {"schedule": "steps", "milestones": (10,)}, {"layer": ("0", "4")}]  # fmt: skip
    keys += [key(ADAM.replace(**change)) for change in settings]
    assert len(set(keys)) == len(keys)
    assert key(loss=nn.CrossEntropyLoss()) == keys[2]


def test_a_run_that_cannot_be_is_refused_before_the_first_one_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("nin.sweeps.jobs.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match="layer='9' is not in the model"):
        nin.sweep(ADAM, over={"layer": ["0", "9"]}, store=tmp_path, **OWN)
    weighted = nn.CrossEntropyLoss(ignore_index=3)
    with pytest.raises(ValueError, match="not finite for"):
        nin.sweep(ADAM, over=OVER, store=tmp_path, network=with_batch_norm, loss=weighted)
