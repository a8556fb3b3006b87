"""Catches an explorer that trains another setting than its sliders say, or calls a run by another phase."""

import base64
import html
import re

import pytest

from nin.companion.explorer.command import read, run
from nin.companion.explorer.figures import files
from nin.companion.explorer.page import START, Explorer
from nin.companion.explorer.setting import NETWORKS, SEEN, Setting, explore
from nin.phases import OUTCOMES

SMALL = {"width": 16, "batch": 64}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kappa", "phase"), [(0.001, "decoupled"), (0.5, "decay"), (1.5, "decay"), (2.6, "catapult"), (6.0, "divergent")]
)
def test_linear_net_has_the_phase_of_its_kappa(kappa, phase):
    sigma = (kappa / (2 * 0.02)) ** 0.5  # V + W is 2 on average
    found = explore(Setting(network="linear net", sigma=sigma, lr=0.02, width=1024, batch=512))
    assert found.phase == phase and found.kappa == pytest.approx(kappa, rel=0.1)
    assert found.sentence == SEEN[phase]
    early = found.frame[found.frame["step"] == 2]
    if kappa < 2:  # above, the noise of a batch grows too
        assert early["niw"].to_numpy() == pytest.approx(early["theory"].to_numpy(), abs=0.15)


@pytest.mark.parametrize(("kappa", "phase"), [(0.001, "decoupled"), (0.5, "decay"), (1.0, "decay"), (2.6, "catapult")])
def test_small_batches_do_not_pass_for_a_catapult(kappa, phase):
    sigma = (kappa / (2 * 0.02)) ** 0.5
    assert explore(Setting(network="linear net", sigma=sigma, lr=0.02, width=512, batch=32)).phase == phase


def test_digits_decouple_and_diverge():
    assert explore(Setting(sigma=0.1, **SMALL)).phase == "decoupled"
    assert explore(Setting(sigma=200.0, **SMALL)).phase == "divergent"


def test_every_phase_has_its_sentence():
    assert set(SEEN) == set(OUTCOMES) and set(START) == set(NETWORKS)


@pytest.mark.slow
def test_settings_are_the_sliders():
    page = Explorer()
    page.show()
    assert page.setting == page.found.setting == Setting()
    before = page.verdict.value
    page.sigma.value = 150
    assert page.found.setting.sigma == 150 and page.found.phase == "divergent" and page.verdict.value != before
    assert len(page.tried) == 2 and page.kappa.value == pytest.approx(min(page.found.kappa, 100), rel=0.01)
    page.kappa.value = 1.0
    assert page.found.setting.sigma == pytest.approx(page.sigma.value, rel=1e-3)
    assert page.found.kappa == pytest.approx(1.0, rel=0.05)
    page.law.value = "rademacher"
    page.layer.value = 2
    assert (page.found.setting.law, page.found.setting.layer) == ("rademacher", 2)
    page.network.value = "linear net"
    assert page.found.setting.network == "linear net" and page.found.setting.layer == 0 and page.layer.disabled
    assert len(page.tried) == 1


@pytest.mark.slow
def test_what_is_downloaded_is_what_the_command_writes(tmp_path, capsys):
    page = Explorer()
    page.show()
    pairs = re.findall(r"\w+=\S+", page.found.setting.command)
    assert read(pairs) == page.found.setting
    assert run(pairs, tmp_path) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == [page.found.headline, page.found.sentence]
    for words in shown[:2]:
        assert html.escape(words) in page.verdict.value
    offered = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page.downloads.value)
    assert [name for name, _ in offered] == ["explore.png", "explore_diagram.png", "explore.csv"]
    for name, content in offered:
        assert base64.b64decode(content) == (tmp_path / name).read_bytes(), name
    assert set(files(page.tried)) == {name for name, _ in offered}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["sigma"], "'sigma' must have the form name=value; the names are network, sigma"),
        (["simga=3"], "name='simga' is unknown.*Did you mean 'sigma'"),
        (["sigma=1", "sigma=2"], "sigma is given twice"),
        (["width=wide"], "width='wide' must be an integer"),
        (["sigma=0"], "sigma=0.0 must be a finite number > 0"),
        (["network=linear net", "layer=1"], "the linear net allows a node in layer 0 only"),
        (["law=cauchy"], "law='cauchy' is unknown"),
    ],
)
def test_bad_input(pairs, message):
    with pytest.raises(ValueError, match=message):
        read(pairs)
