"""What several test files share: one small classification task, in float64; and which skips a CI must not pass over."""

import os
import re
import sys

import checking
import jaxtyping
import pytest
import torch

# In every worker, before nin is imported
assert "nin" not in sys.modules, "nin was imported before tests/conftest.py, so its annotations would not be checked"
checking.install()

from nin.model.dataset import Dataset  # noqa: E402
from nin.support import provenance  # noqa: E402

# What `.ci/run` installs or names, as the reasons of skips call it.
PROVIDED = re.compile(r"\b(Chromium|distributed|NIN_DATA|MNIST)\b")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """With CI set, a test that is skipped for want of what `.ci/run` provides has failed."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if PROVIDED.search(reason):
            report.outcome, report.longrepr = "failed", f"{reason} (CI is set, and .ci/run should provide this)"
    return report


@pytest.fixture
def unchecked(monkeypatch):
    """No annotations are checked: for a wrong type that has to reach our own message, and where random numbers count.

    (beartype draws from Python's generator to pick the elements of a list that it looks at.)
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def checked_anew():
    """The first calls are those of each test."""
    checking.calls.clear()


@pytest.fixture(autouse=True, scope="module")
def own_source_of_a_module():
    """What other modules' tests and fixtures have begun is not the source of what this one's fixtures draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "_source", provenance.Source())
        yield


@pytest.fixture(autouse=True)
def own_source(monkeypatch):
    """What another test, or a fixture of its module, has begun is not the source of this one's figures."""
    monkeypatch.setattr(provenance, "_source", provenance.Source())


@pytest.fixture(autouse=True)
def no_open_figures():
    """Close what a test has drawn: matplotlib warns at the 21st open figure, in a test that is not to blame."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """Four Gaussian classes in 6 dimensions, 64 training and 32 test samples."""
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(96) % 4
    centers = 2 * torch.randn(4, 6, generator=generator)
    x = centers[y] + torch.randn(96, 6, generator=generator)
    return Dataset(x[:64], y[:64], x[64:], y[64:], 4, "blobs")
