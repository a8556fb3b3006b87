"""Catches: grids that are not the product of their lists, results that depend on how runs are grouped or stored."""

import pytest
import torch
from sweeping import BASE, OVER, RUNS, fails, same, stored, sweep, two_layers

import nin
from nin.model.networks import MLP
from nin.support import paths
from nin.sweeps import jobs
from nin.sweeps.grid import expand
from nin.sweeps.groups import LARGEST, SMALLEST, group_size, groups
from nin.sweeps.keys import Keys
from nin.sweeps.store import Store


def test_the_grid_is_the_product_of_the_lists():
    configs = expand(BASE, {"sigma": (0.5, 2), "seed": range(3)})
    assert [(c.sigma, c.seed) for c in configs] == [(s, k) for s in (0.5, 2.0) for k in range(3)]
    assert expand(BASE, {}) == [BASE]


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3, 5, None])
def test_groups_do_not_change_results(tmp_path, at_once):
    frame = sweep(tmp_path / "a", at_once=at_once)
    together = nin.train(expand(BASE, OVER)).frame()
    same(frame, together)
    assert frame["run"].nunique() == RUNS


def test_a_grid_that_cannot_be_stacked_is_grouped(tmp_path):
    over = {"widths": [(8,), (8, 8)], "optimizer": ["sgd", "adam"], "lr": [0.01, 0.1], "layer": [0, 1]}
    frame = nin.sweep(BASE.replace(steps=5), over=over, store=tmp_path)
    assert frame["run"].nunique() == 16 and len(stored(tmp_path)) == 1
    configs = expand(BASE.replace(steps=5), over)
    for run in (0, 5, 10, 15):
        alone = nin.train(configs[run]).frame().assign(run=run)
        same(frame[frame["run"] == run].reset_index(drop=True), alone)


def test_only_what_is_missing_is_computed(tmp_path, monkeypatch):
    sweep(tmp_path, over=OVER | {"sigma": [1.0]})
    calls = []
    train = jobs.train
    monkeypatch.setattr(jobs, "train", lambda configs, **kw: calls.extend(configs) or train(configs, **kw))
    frame = sweep(tmp_path)
    assert sorted((c.sigma, c.seed) for c in calls) == [(s, k) for s in (0.1, 30.0) for k in range(4)]
    calls.clear()
    same(sweep(tmp_path), frame)
    assert calls == []


def test_runs_that_another_process_finished_in_the_meantime_are_taken(tmp_path, monkeypatch):
    """The first group, while it trains, sees the whole sweep appear in the store."""
    train, calls = jobs.train, []

    def slow(configs, **arguments):
        calls.append(configs)
        if len(calls) == 1:
            sweep(tmp_path, at_once=12)
        return train(configs, **arguments)

    monkeypatch.setattr(jobs, "train", slow)
    sweep(tmp_path)
    assert len(calls) == 2 and len(stored(tmp_path)) == RUNS


def test_data_and_network_of_ones_own(tmp_path, blobs):
    config = BASE.replace(n_train=None)
    own = nin.sweep(config, over={"sigma": [0.5, 1.0]}, data=blobs, store=tmp_path)
    same(own, nin.train([config.replace(sigma=s) for s in (0.5, 1.0)], data=blobs).frame())
    mine = nin.sweep(BASE, over={"sigma": [0.5, 1.0]}, network=two_layers, store=tmp_path)
    same(mine, nin.train([BASE.replace(sigma=s) for s in (0.5, 1.0)], network=two_layers).frame())
    named = nin.sweep(BASE, over={"sigma": [0.5, 1.0]}, store=tmp_path)
    assert len({frame["noisy_loss"].iloc[0] for frame in (own, mine, named)}) == 3


def test_networks_are_told_apart_by_code_and_weights(tmp_path):
    def wider():
        return torch.nn.Sequential(torch.nn.Linear(64, 7), torch.nn.Tanh(), torch.nn.Linear(7, 10))

    def other_activation():
        return torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.ReLU(), torch.nn.Linear(6, 10))

    keys = {Keys(None, factory, "cpu").of_run(BASE) for factory in (two_layers, wider, other_activation, None)}
    assert len(keys) == 4
    assert Keys(None, two_layers, "cpu").of_run(BASE) in keys


def test_runs_without_a_node_are_stored(tmp_path):
    frame = nin.sweep(BASE.replace(nodes=0), over={"seed": [0, 1]}, store=tmp_path)
    assert frame["niw_norm"].isna().all()
    same(frame, nin.sweep(BASE.replace(nodes=0), over={"seed": [0, 1]}, store=tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_runs_that_diverge_at_once_are_stored(tmp_path, dtype):
    """The noise alone overflows: no loss is ever finite."""
    over = {"sigma": [1.0, 1e30, 1e200]}
    frame = nin.sweep(BASE.replace(dtype=dtype), over=over, store=tmp_path)
    same(frame, nin.sweep(BASE.replace(dtype=dtype), over=over, store=tmp_path))
    phases = nin.phases.summarise(frame).set_index("sigma")["phase"]
    assert phases[1e200] == "divergent" and phases[1.0] != "divergent"
    store = Store(tmp_path)
    assert {store.manifest(key)["phase"] for key in store} == set(phases)


def test_the_default_store(tmp_path, monkeypatch):
    monkeypatch.setenv("NIN_STORE", str(tmp_path / "mine"))
    nin.sweep(BASE, over={})
    assert len(stored(tmp_path / "mine")) == 1
    monkeypatch.delenv("NIN_STORE")
    assert paths.store() == paths.root() / "runs" / "store"


def test_values_that_occur_twice_are_dropped_and_said(tmp_path):
    with pytest.warns(UserWarning, match="over: 2 of 6 runs occur twice and were dropped"):
        frame = sweep(tmp_path, over={"sigma": [1, 1.0, 2], "seed": [0, 1]})
    assert frame["run"].nunique() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {"sigmas": [1]}}, "over: field='sigmas' is unknown; .*Did you mean 'sigma'"),
        ({"over": {"sigma": []}}, r"over\['sigma'\] is empty, so there are no runs"),
        ({"over": {"sigma": 3.0}}, r"over\['sigma'\]=3.0 must be a list of values, for example \[3.0\]"),
        ({"over": {"law": "gaussian"}}, r"over\['law'\]='gaussian' must be a list of values"),
        ({"over": {"sigma": [1, -1]}}, "sigma=-1 must be a finite number >= 0"),
        ({"over": [1, 2]}, r"over=\[1, 2\] must map fields of RunConfig to lists"),
        ({"base": {"sigma": 1}}, r"base={'sigma': 1} must be a nin.RunConfig"),
        ({"at_once": 0}, "at_once=0 must be an integer >= 1"),
        ({"over": {"layer": [9]}}, "layer=9 is not in the model; its linear layers are 0 to 2"),
        ({"executor": 3}, "executor=3 is not a concurrent.futures.Executor. Pass None, a ProcessPoolExecutor"),
    ],
)
def test_bad_input_is_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep(tmp_path, **arguments)


def test_a_group_that_fails_leaves_the_others_stored(tmp_path, monkeypatch):
    train = jobs.train

    def failing(configs, **arguments):
        if configs[0].layer == 1:
            raise MemoryError("no memory left")
        return train(configs, **arguments)

    monkeypatch.setattr(jobs, "train", failing)
    with pytest.raises(MemoryError):
        nin.sweep(BASE, over={"layer": [0, 1, 2]}, store=tmp_path)
    assert len(list(Store(tmp_path))) == 1


def test_a_run_that_cannot_be_stops_the_sweep_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match="layer=9 is not in the model"):
        nin.sweep(BASE, over={"layer": [0, 9, 1]}, store=tmp_path)
    assert not list(Store(tmp_path))
    with pytest.raises(RuntimeError, match="no such network"):
        nin.sweep(BASE, over={}, network=fails, store=tmp_path)


def test_group_sizes_follow_the_size_of_the_work():
    def size(width, batch, dtype="float32", inputs=64):
        config = nin.RunConfig(widths=(width,) * 3, batch_size=batch, dtype=dtype)
        return group_size(config, MLP(inputs, config.widths, 10))

    sizes = [size(4, 1), size(32, 32), size(64, 64), size(128, 128), size(256, 128), size(512, 128, inputs=784)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == LARGEST and sizes[-1] == SMALLEST
    assert all(count % 2 == 0 for count in sizes)
    assert size(128, 128, "float64") <= size(128, 128) / 2


def test_groups_are_cut_from_the_whole_grid():
    configs = expand(BASE, {"sigma": [1, 2, 3], "batch_size": [8, 16], "seed": [0, 1]})
    cut = groups(configs, lambda _: 4)
    assert [len(group) for group in cut] == [3, 3, 3, 3]
    for count, expected in ((2, [3, 3, 3, 3]), (3, [2] * 6), (4, [2] * 6), (99, [2] * 6)):
        assert [len(group) for group in groups(configs, lambda _: 4, workers=count)] == expected
    assert sorted(map(configs.index, (c for group in cut for c in group))) == list(range(12))


def test_progress_goes_to_stderr(tmp_path, capsys):
    sweep(tmp_path, progress=True)
    captured = capsys.readouterr()
    assert "12/12" in captured.err and not captured.out
    sweep(tmp_path)
    assert not capsys.readouterr().err
