"""Catches: a page of networks that says more than the probes do, and a wrong probe that the page would call right."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import cells
import numpy as np
import pandas as pd
import pytest
import real
import torch
from cells import COLUMNS, CRASHES, KINDS, NONE, REAL, RIGHT, WRONG

from nin.model.sites import Site
from nin.probes import memorisation, prediction
from nin.probes.curvature import averaged, critical, hessian, thermometer
from nin.probes.interactions import by_layer, ledger, masking
from nin.probes.response import fragility, one_step, tangent_kernel
from nin.probes.stability import images, two_changes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "site"))
networks_page = importlib.import_module("networks_page")
sys.path.remove(str(ROOT / "site"))

SMALL, LIBRARIES = networks_page.parts((ROOT / networks_page.PAGE).read_text())
SAID, SAID_OF_REAL = networks_page.read(SMALL), networks_page.read(LIBRARIES)
DRIFTED = "docs/networks.md has drifted: run python site/networks_page.py"


def test_the_page_has_every_cell():
    assert set(SAID) == {(kind, column) for kind in KINDS for column in COLUMNS}, DRIFTED
    assert len(KINDS) > 30 and sum(cell.verdict == RIGHT for cell in SAID.values()) > 400


def differing(kind, said):
    """The cells of a row that are not what the page says, each with what it says."""
    found = {column: (cells.run(column, kind), said[kind.name, column]) for column in COLUMNS}
    return {column: pair for column, pair in found.items() if pair[0].same != pair[1].same}


ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import cells
print(json.dumps({column: cells.run(column, cells.KINDS[sys.argv[2]]).same for column in cells.COLUMNS}))
"""
COMPILED = ("torch.compile", "module.compile")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_each_compiled_cell_is_what_the_page_says(name):
    """In a process of its own: the tests' type checks cannot be compiled."""
    command = [sys.executable, "-c", ALONE, str(Path(__file__).parent), name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = {column: tuple(same) for column, same in json.loads(done.stdout).items()}
    assert found == {column: SAID[name, column].same for column in COLUMNS}, DRIFTED


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for name, kind in KINDS.items() if name not in COMPILED], ids=str)
def test_each_cell_is_what_the_page_says(kind, unchecked):
    """As users call the probes, without the tests' checks of types."""
    assert not differing(kind, SAID), DRIFTED


@pytest.mark.slow
@pytest.mark.parametrize("kind", REAL.values(), ids=str)
def test_each_network_of_a_library_is_what_the_page_says(kind, unchecked):
    if why := real.missing():
        pytest.skip(why)
    assert not differing(kind, SAID_OF_REAL), f"{DRIFTED} --real"


def test_every_network_of_a_library_has_its_row():
    assert set(SAID_OF_REAL) == {(kind, column) for kind in REAL for column in COLUMNS}


def test_nothing_is_wrong_and_nothing_crashes():
    assert not [place for place, cell in SAID.items() if cell.verdict in (WRONG, CRASHES)]


def scaled(found):
    """What a probe returned, with every number 10 % too large."""
    if isinstance(found, np.ndarray):
        return 1.1 * found
    if isinstance(found, torch.Tensor | float):
        return 1.1 * found if not isinstance(found, torch.Tensor) or found.is_floating_point() else found
    if isinstance(found, tuple | list):
        return type(found)(map(scaled, found))
    if isinstance(found, dict):
        return {name: scaled(value) for name, value in found.items()}
    if isinstance(found, pd.DataFrame):
        return found.assign(**{name: 1.1 * found[name] for name in found.select_dtypes("float")})
    if dataclasses.is_dataclass(found):
        return dataclasses.replace(found, **{f.name: scaled(getattr(found, f.name)) for f in dataclasses.fields(found)})
    return found


PROBES = {
    "inject": (Site, "_add"),
    "local_hessian": (hessian, "local_hessian"),
    "extremes": (hessian, "extremes"),
    "sharpness": (hessian, "sharpness"),
    "noise_averaged": (averaged, "noise_averaged"),
    "critical_rate, predict": (critical, "critical_rate"),
    "Thermometer": (thermometer.Thermometer, "read"),
    "memorisation": (memorisation, "node_norms"),
    "kernel": (tangent_kernel, "kernel"),
    "response": (one_step, "response"),
    "flips": (fragility, "flips"),
    "worst_neuron": (fragility, "worst_neuron"),
    "compare": (two_changes, "compare"),
    "sensitivities": (images, "sensitivities"),
    "masked_outputs": (masking, "masked_outputs"),
    "layerwise": (by_layer, "layerwise"),
    "residual_ledger": (ledger, "residual_ledger"),
}


def wrong_by_a_tenth(monkeypatch, owner, name):
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: scaled(right(*args, **options)))


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_a_probe_that_is_wrong_by_a_tenth_is_called_wrong(column, monkeypatch):
    kind = KINDS["ResNet" if column in ("sensitivities", "residual_ledger") else "MLP, tanh"]
    assert cells.run(column, kind).verdict == RIGHT
    wrong_by_a_tenth(monkeypatch, *PROBES[column])
    assert cells.run(column, kind).verdict == WRONG


@pytest.mark.slow
def test_a_wrong_prediction_is_called_wrong(monkeypatch):
    wrong_by_a_tenth(monkeypatch, prediction, "predict")
    assert cells.run("critical_rate, predict", KINDS["MLP, tanh"]).verdict == WRONG


def test_a_probe_that_leaves_a_change_is_called_wrong(monkeypatch):
    right = tangent_kernel.kernel

    def kernel(model, x):
        model[0].weight.data[0, 0] += 1e-9
        return right(model, x)

    monkeypatch.setattr(tangent_kernel, "kernel", kernel)
    cell = cells.run("kernel", KINDS["MLP, tanh"])
    assert cell.verdict == WRONG and cell.sentence == "it changes 0.weight"


def test_an_error_of_torch_is_a_crash_and_one_of_ours_a_refusal(monkeypatch):
    def kernel(model, x):
        return model(x[:, :2])

    monkeypatch.setattr(tangent_kernel, "kernel", kernel)
    monkeypatch.setattr(cells, "from_nin", lambda raised: True)
    assert cells.run("kernel", KINDS["MLP, tanh"]).verdict == CRASHES
    assert cells.run("inject", KINDS["bfloat16"]).same[1].startswith("layer='#' has weights of torch.bfloat#")


def test_a_page_that_is_written_can_be_read():
    kinds = [KINDS["MLP, tanh"], KINDS["bfloat16"]]
    found = {(kind.name, column): cells.Cell(NONE) for kind in kinds for column in COLUMNS}
    found["MLP, tanh", "kernel"] = cells.Cell(RIGHT, error=1e-12, cost=3.2)
    found["MLP, tanh", "flips"] = cells.Cell(WRONG, error=0.1)
    found["bfloat16", "inject"] = cells.Cell("refused", sentence="layer='a_b[0]' is *coarse*")
    read = networks_page.read(networks_page.part("# Networks", found, {"Some": kinds}))
    assert {place: cell.same for place, cell in read.items()} == {place: cell.same for place, cell in found.items()}
