"""Catches: probes that move what they look at, readings of another network, tables lost or mixed, hidden failures."""

import copy
import multiprocessing
import random
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from own_probes import Scaled, accuracy, by_layer, fails_when_trained, named_if_positive
from sweeping import BASE, OVER, RUNS, same, stored, sweep, two_layers
from torch import nn

import nin
from nin.probes.asking import ProbeError, ask
from nin.sweeps import grid, jobs
from nin.sweeps.fingerprint import fingerprint
from nin.sweeps.readings import Probing, below_each_other
from nin.sweeps.store import Store

PROBES = {"accuracy": accuracy, "by layer": by_layer}
SNAPSHOTS = (0, 1, 10, 60)
OVER = OVER | {"sigma": [0.1, 1.0, 1e25]}  # the last one diverges
ASKED = {"probes": PROBES, "snapshots": SNAPSHOTS, "probe_samples": 32}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Trajectories and readings of the small sweep."""
    return whole_sweep(tmp_path_factory.mktemp("whole"), **ASKED)


def whole_sweep(store, **changes):
    """The small sweep with a noise scale at which it diverges."""
    return sweep(store, **{"over": OVER} | changes)


def equal(first, second) -> None:
    """Assert that trajectories and readings are equal bit for bit."""
    same(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    for name in first[1]:
        same(first[1][name], second[1][name])


def raising(*arguments, **keywords):
    raise AssertionError("nothing is left to compute")


@pytest.mark.slow
def test_readings_are_those_of_networks_kept_by_train(whole):
    """Asked again about the networks that nin.train keeps: the same numbers, at every run and step."""
    frame, readings = whole
    configs = grid.expand(BASE, OVER)
    runs = nin.train(configs, snapshots=SNAPSHOTS)
    data = nin.load_data("digits", n_train=BASE.n_train)
    x, y = data.x_test[:32], data.y_test[:32]
    rows = readings["accuracy"].set_index(["run", "step"])["value"]
    for (run, step), value in rows.items():
        assert accuracy(runs.model(run, step).network, x, y)["value"][0] == value
    diverged = frame.groupby("run")["diverged_at"].first().fillna(np.inf)
    assert diverged.lt(60).any() and diverged.gt(60).any()  # both kinds are here
    assert set(rows.index) == {(run, s) for run in range(RUNS) for s in SNAPSHOTS if s < diverged[run]}


def test_tables_join_the_trajectories_by_run_and_step(whole):
    frame, readings = whole
    assert list(readings["by layer"].columns) == ["run", "step", "layer", "norm", "draw", "failure"]
    both = frame.merge(readings["by layer"], on=["run", "step"], suffixes=("_of_the_node", ""))
    assert len(both) == len(readings["by layer"]) and set(both["layer"]) >= {"layers.0.weight"}
    start = both[(both["step"] == 0) & (both["layer"] == "layers.0.weight")]
    assert start.groupby("seed")["norm"].nunique().eq(1).all() and start["norm"].nunique() == 4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
def test_probes_do_not_change_trajectories_or_random_state(tmp_path, whole):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    frame, _ = whole_sweep(tmp_path, **ASKED)
    same(frame, whole_sweep(tmp_path / "without"))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


@pytest.mark.slow
def test_stored_readings_are_read_not_computed(tmp_path, whole, monkeypatch):
    whole_sweep(tmp_path, **ASKED)
    monkeypatch.setattr(jobs, "train", raising)
    equal(whole_sweep(tmp_path, **ASKED), whole)
    same(whole_sweep(tmp_path), whole[0])
    frame, some = whole_sweep(tmp_path, **ASKED | {"probes": {"accuracy": accuracy}})
    equal((frame, some), (whole[0], {"accuracy": whole[1]["accuracy"]}))


@pytest.mark.slow
def test_a_new_probe_trains_again_and_asks_only_what_is_new(tmp_path, whole, monkeypatch):
    whole_sweep(tmp_path, **ASKED | {"probes": {"accuracy": accuracy}})
    asked = []
    compute = jobs.compute
    monkeypatch.setattr(jobs, "compute", lambda group, **kw: asked.append(group.probes) or compute(group, **kw))
    equal(whole_sweep(tmp_path, **ASKED), whole)
    assert set(asked) == {("by layer",)}
    assert len(stored(tmp_path)) == RUNS


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_with_its_readings(tmp_path, whole, monkeypatch, capsys):
    train, calls = jobs.train, []

    def interrupted(configs, **arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(configs)
        return train(configs, **arguments)

    monkeypatch.setattr(jobs, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        whole_sweep(tmp_path, **ASKED)
    assert f"6 of {RUNS} runs" in capsys.readouterr().err
    again = []
    monkeypatch.setattr(jobs, "train", lambda configs, **kw: again.extend(configs) or train(configs, **kw))
    equal(whole_sweep(tmp_path, **ASKED), whole)
    assert len(again) == RUNS - 6


@pytest.mark.slow
def test_damaged_readings_are_computed_again(tmp_path, whole):
    whole_sweep(tmp_path, **ASKED)
    readings = Store(tmp_path / "probes")
    key = next(iter(readings))
    (readings.path(key) / "table.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="is damaged"):
        equal(whole_sweep(tmp_path, **ASKED), whole)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_workers_ask_the_probes(tmp_path, whole, pool):
    options = {"mp_context": multiprocessing.get_context("spawn")} if pool is ProcessPoolExecutor else {}
    with pool(2, **options) as executor:
        equal(whole_sweep(tmp_path, executor=executor, **ASKED), whole)


@pytest.mark.slow
def test_a_probe_that_workers_cannot_import_is_named(tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        with pytest.raises(ValueError, match=r"Define the network's factory and the probes"):
            whole_sweep(tmp_path, executor=executor, probes={"mine": lambda model, x, y: accuracy(model, x, y)})


def test_what_a_probe_does_to_the_probe_set_and_then_raises_is_not_seen_by_others(tmp_path):
    def first(model, x, y):
        x += 1
        raise RuntimeError("no")

    with pytest.warns(UserWarning, match="probes failed"):
        _, both = nin.sweep(BASE, over={}, store=tmp_path, probes={"first": first, "a": accuracy})
    _, alone = nin.sweep(BASE, over={}, store=tmp_path / "alone", probes={"a": accuracy})
    same(both["a"], alone["a"])


def test_a_probe_that_turns_gradients_off_does_not_stop_training(tmp_path):
    def careless(model, x, y):
        torch.set_grad_enabled(False)
        return accuracy(model, x, y)

    _, both = nin.sweep(BASE, over={}, store=tmp_path, probes={"careless": careless, "a": accuracy})
    same(both["careless"], both["a"])
    assert torch.is_grad_enabled()


def test_data_and_network_of_ones_own(tmp_path, blobs):
    base = BASE.replace(n_train=None, nodes=0)
    _, readings = nin.sweep(base, over={}, data=blobs, store=tmp_path, probes={"a": accuracy}, probe_samples=32)
    model = nin.train(base, data=blobs).model(0)
    value = readings["a"].query("step == 60")["value"].item()
    assert value == accuracy(model, blobs.x_test, blobs.y_test)["value"][0]
    _, own = nin.sweep(BASE, over={}, network=two_layers, store=tmp_path, **ASKED)
    assert set(own["by layer"]["layer"]) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_a_failure_at_a_snapshot_is_recorded_and_the_rest_goes_on(tmp_path):
    probes = {"fails": fails_when_trained, "accuracy": accuracy}
    options = {"base": BASE.replace(steps=200), "over": {"seed": [0, 1]}, "store": tmp_path, "probes": probes}
    with pytest.warns(UserWarning, match=r"probes failed: 'fails' at \d+ snapshots, first RuntimeError: too good"):
        _, readings = nin.sweep(**options)
    table = readings["fails"]
    failed = table["failure"].notna()
    assert failed.any() and not failed.all()
    assert set(table["failure"].dropna()) == {"RuntimeError: too good"}
    assert table.loc[failed, "value"].isna().all() and table.loc[~failed, "value"].notna().all()
    right = readings["accuracy"]
    assert right["failure"].isna().all() and len(right) == len(table) == 16
    assert (right["value"].gt(0.3) == failed).all()
    with pytest.warns(UserWarning, match="probes failed"):  # stored with the run, and said again
        equal(nin.sweep(**options), (nin.sweep(**options | {"probes": None}), readings))


def test_probes_that_always_fail_or_find_nothing_leave_tables(tmp_path):
    def never(model, x, y):
        raise KeyError("nothing")

    def nothing(model, x, y):
        return pd.DataFrame({"value": []})

    with pytest.warns(UserWarning, match="KeyError"):
        _, readings = nin.sweep(BASE, over={}, store=tmp_path, probes={"never": never, "nothing": nothing})
    assert list(readings["never"].columns) == ["run", "step", "failure"] and len(readings["never"]) == 8
    assert list(readings["nothing"].columns) == ["run", "step", "value", "failure"] and readings["nothing"].empty


def scales(model, x, y):
    with torch.no_grad():
        model.layers[0].weight.mul_(1.5)
    return accuracy(model, x, y)


def trains(model, x, y):
    model.train()
    return accuracy(model, x, y)


def leaves_gradients(model, x, y):
    model(x).sum().backward()
    return accuracy(model, x, y)


def freezes(model, x, y):
    model.layers[0].bias.requires_grad_(False)
    return accuracy(model, x, y)


def hooks(model, x, y):
    model.layers[1].register_forward_hook(print)
    return pd.DataFrame({"value": [1.0]})


def adds(model, x, y):
    model.extra = nn.Linear(2, 2)
    return accuracy(model, x, y)


def moves_inputs(model, x, y):
    x += 1
    return accuracy(model, x, y)


@pytest.mark.parametrize(
    "probe, what",
    [
        (scales, "layers.0.weight"),
        (trains, "train mode"),
        (leaves_gradients, "gradient of layers.0.weight"),
        (freezes, "requires_grad of layers.0.bias"),
        (hooks, "hooks of 'layers.1'"),
        (adds, "tensor 'extra.bias' added"),
        (moves_inputs, r"x\. Let it work on a copy"),
    ],
)
def test_a_probe_that_changes_what_it_is_given_is_named_before_anything_is_trained(tmp_path, monkeypatch, probe, what):
    monkeypatch.setattr(jobs, "train", raising)
    with pytest.raises(ProbeError, match=rf"probe 'mine' changed what it was given: .*{what}"):
        nin.sweep(BASE, over={}, store=tmp_path, probes={"good": accuracy, "mine": probe})


def test_a_probe_that_changes_a_network_later_is_a_failure_and_others_see_the_network_as_it_was(tmp_path):
    def late(model, x, y):
        return scales(model, x, y) if accuracy(model, x, y)["value"][0] > 0.3 else accuracy(model, x, y)

    base = BASE.replace(steps=200)
    with pytest.warns(UserWarning, match="changed what it was given: layers.0.weight"):
        frame, readings = nin.sweep(base, over={}, store=tmp_path, probes={"late": late, "norms": by_layer})
    assert readings["late"]["failure"].notna().any()
    runs = nin.train(base, snapshots=(200,))
    norm = runs.model(0).network.layers[0].weight.norm().item()
    assert readings["norms"].query("step == 200 and layer == 'layers.0.weight'")["norm"].item() == norm
    same(frame, runs.frame())


@pytest.mark.parametrize(
    "result, message",
    [
        (3.0, "returned float, not a pandas DataFrame"),
        (None, "returned NoneType, not a pandas DataFrame"),
        (pd.Series([1.0]), "returned Series, not a pandas DataFrame"),
        (pd.DataFrame([[1.0]]), r"returned columns \[0\]; each needs a unique name"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), r"returned columns \['a', 'a'\]; each needs a unique name"),
        (pd.DataFrame({"step": [1]}), "returned a column 'step', which the sweep adds"),
        (pd.DataFrame({"value": [torch.ones(2)]}), "returned a column 'value' of Tensor"),
        (pd.DataFrame({"value": [1, "one"]}), "returned a column 'value' of int, str"),
    ],
)
def test_a_probe_that_returns_no_table_is_named(tmp_path, result, message):
    with pytest.raises(ProbeError, match=rf"probe 'mine' {message}"):
        nin.sweep(BASE, over={}, store=tmp_path, probes={"mine": lambda model, x, y: result})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"probes": {}}, "probes={} must map names to functions"),
        ({"probes": [accuracy]}, "must map names to functions"),
        ({"probes": {1: accuracy}}, "the name 1 must be text"),
        ({"probes": {"a": 3}}, r"probes\['a'\]=3 must be a function"),
        ({"snapshots": [1]}, "pass probes as well"),
        ({"probes": {"a": accuracy}, "snapshots": []}, "snapshots is empty"),
        ({"probes": {"a": accuracy}, "snapshots": [-1]}, "snapshots=-1 must be an integer >= 0"),
        (
            {"probes": {"a": accuracy}, "snapshots": [0, 61]},
            r"snapshots=\(0, 61\) goes beyond the last step of",
        ),
        (
            {"probes": {"a": accuracy}, "probe_samples": 361},
            "probe_samples=361 is more than the 360 test samples",
        ),
        ({"probes": {"a": accuracy}, "probe_samples": 0}, "probe_samples=0 must be an integer >= 1"),
        ({"probes": {"a": partial(accuracy, extra=lambda: 1)}}, r"probes\['a'\] is bound to something"),
    ],
)
def test_bad_input_is_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        nin.sweep(BASE, over={}, store=tmp_path, **arguments)


def test_probes_are_told_apart_by_their_code_and_what_is_bound_to_them():
    def of(factor):
        return lambda model, x, y: Scaled(factor)(model, x, y)

    probes = [
        accuracy, by_layer, Scaled(1.0), Scaled(2.0), of(1.0), of(2.0),
        partial(by_layer, x=1), partial(by_layer, x=2), partial(by_layer, y=torch.ones(2)),
    ]  # fmt: skip
    prints = [fingerprint("probe", probe)["sha256"] for probe in probes]
    assert len(set(prints)) == len(probes)
    again = [fingerprint("probe", probe)["sha256"] for probe in [*copy.deepcopy(probes[:4]), of(1.0)]]
    assert again == prints[:5]


def test_what_was_typed_at_a_prompt_is_told_apart_by_its_bytecode():
    found = []
    for number in ("1", "1", "2"):
        scope: dict = {}
        exec(f"def probe(model, x, y):\n    return (lambda z: z + {number})(x)", scope)
        found.append(fingerprint("probe", scope["probe"])["sha256"])
    assert found[0] == found[1] != found[2]


def test_random_probes_depend_on_the_seed_and_step_alone(whole, tmp_path):
    table = whole[1]["by layer"]
    draws = table[table["layer"] == "layers.0.weight"].merge(whole[0], on=["run", "step"])
    assert draws.groupby(["seed", "step"])["draw"].nunique().eq(1).all()
    assert draws["draw"].nunique() == draws.groupby(["seed", "step"]).ngroups
    _, alone = whole_sweep(tmp_path, over={"sigma": [1.0], "seed": [2]}, **ASKED)
    kept = draws[(draws["seed"] == 2) & (draws["sigma"] == 1.0)]["draw"].tolist()
    assert alone["by layer"].query("layer == 'layers.0.weight'")["draw"].tolist() == kept


def test_a_node_is_taken_off_and_eval_mode_set():
    model = nin.inject(two_layers(), "0", sigma=5.0)
    model.train()
    seen = []
    ask(
        "mine",
        lambda network, x, y: seen.append(network) or pd.DataFrame({"v": [1]}),
        model,
        torch.ones(2, 64),
        torch.ones(2),
        seed=0,
    )
    assert type(seen[0]) is nn.Sequential and not seen[0].training
    assert model.training and model.network.training and seen[0] is not model.network


def test_default_snapshots_are_log_spaced_over_each_run(tmp_path):
    probing = Probing(PROBES)
    assert probing.due(BASE) == (0, 1, 2, 5, 9, 18, 33, 60)
    assert probing.due(BASE.replace(steps=0)) == (0,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, found = nin.sweep(BASE, over={"steps": [0, 3, 60]}, store=tmp_path, probes={"a": accuracy})
    assert found["a"].groupby("run")["step"].max().tolist() == [0, 3, 60]


def test_a_column_without_a_value_has_the_type_of_the_other_runs(tmp_path):
    """Text in one run, nothing in another; computed and read back."""
    options = {"over": {"seed": [0, 1, 2, 3]}, "probes": {"sign": named_if_positive}, "snapshots": [0, 1]}
    table = sweep(tmp_path, **options)[1]["sign"]
    assert table["name"].dtype == "str" and table["count"].dtype == "float64"
    assert set(table.groupby("run")["name"].count()) == {0, 2}  # each kind is there
    same(sweep(tmp_path, **options)[1]["sign"], table)


@pytest.mark.parametrize(
    ("parts", "dtype"),
    [
        ([["a"], [None]], "str"), ([[None], ["a"]], "str"), ([["a"], [np.nan]], "str"), ([[1], [None]], "float64"),
        ([[1.5], [None]], "float64"), ([[None], [np.nan]], "str"), ([[1], [2]], "int64"), ([[1], ["a"]], "object"),
    ],
)  # fmt: skip
def test_types_of_joined_tables(parts, dtype):
    table = below_each_other([pd.DataFrame({"x": pd.Series(part)}) for part in parts])
    assert table["x"].dtype == dtype and len(table) == 2
