"""Catches an explorer that calls a run by another phase, or whose theory is not that of its runs."""

import numpy as np
import pytest

from nin.companion.explorer.expected import typical_output
from nin.companion.explorer.setting import NETWORKS, Setting, from_query, read
from nin.companion.explorer.trained import examples, explore
from nin.model.data import load_data
from nin.theory import LinearState, linear_trajectory
from nin.training.start import build, with_node

SMALL = {"width": 16, "batch": 64}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kappa", "phase"), [(0.0005, "decoupled"), (0.5, "decay"), (1.5, "decay"), (2.6, "catapult"), (6.0, "divergent")]
)
def test_linear_net_has_the_phase_of_its_kappa(kappa, phase):
    sigma = (kappa / (2 * 0.02)) ** 0.5  # V + W is 2 on average
    found = explore(Setting(network="linear net", sigma=sigma, lr=0.02, width=1024, batch=512))
    assert found.phase == found.expected == phase and found.kappa == pytest.approx(kappa, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("kappa", "batch"), [(0.05, 32), (0.5, 256), (1.5, 256), (2.6, 256)])
def test_theory_holds_along_the_whole_run(kappa, batch):
    """Up to the scatter of batches, which the median over seeds and ten steps leaves a factor 2 or so of."""
    sigma = (kappa / (2 * 0.02)) ** 0.5
    frame = explore(Setting(network="linear net", sigma=sigma, lr=0.02, width=512, batch=batch)).frame
    sizes = frame.groupby(frame["step"] // 10)[["niw", "theory"]].median()
    apart = np.log(sizes["niw"] / sizes["theory"])
    assert abs(apart).max() < np.log(4) and abs(apart).median() < np.log(2)


def test_in_large_batches_theory_is_the_noise_averaged_map():
    setting = Setting(network="linear net", sigma=8.0, lr=0.02, width=512, batch=1024)
    config = setting.config.replace(batch_size=10**7, n_train=10**7)
    data = load_data("linear_teacher", n_train=1024)
    noisy = with_node(config, build(config, data), data)
    u, v = (layer.weight.detach().flatten().numpy() for layer in noisy.network.layers)
    w, root = noisy.niw.detach().flatten().numpy(), 512**0.5
    state = LinearState(u @ v / root, w @ v / root, v @ v / 512, u @ u / 512, w @ w / 512, u @ w / 512)
    exact = np.abs(linear_trajectory(state, 100, eta=0.02, sigma=8.0, width=512).n)
    expected = typical_output(config, noisy)
    assert len(expected) == 101 and expected.max() > 3  # a catapult
    assert expected[:15] == pytest.approx(exact[:15] / exact[0], rel=0.1)


def test_examples_are_the_first_runs_of_their_settings():
    """Trained together or with the others of an ensemble: the same numbers."""
    (run,) = examples([Setting(sigma=30.0, **SMALL)])
    found = explore(Setting(sigma=30.0, **SMALL)).frame
    first = found[found["seed"] == 0]
    assert run["niw"].to_numpy() == pytest.approx(first["niw"].to_numpy())
    assert run["noisy_loss"].to_numpy() == pytest.approx(first["noisy_loss"].to_numpy())


def test_the_loss_without_a_node_is_that_of_no_noise():
    found = [explore(Setting(sigma=sigma, **SMALL)).frame for sigma in (1e-6, 30.0)]
    silent, loud = (frame[frame["seed"] == 0] for frame in found)
    assert loud["plain_loss"].to_numpy() == pytest.approx(silent["noisy_loss"].to_numpy(), rel=1e-3)
    assert found[0][found[0]["seed"] > 0]["plain_loss"].isna().all()


@pytest.mark.parametrize(("kappa", "phase"), [(0.001, "decoupled"), (0.5, "decay"), (1.0, "decay"), (2.6, "catapult")])
def test_small_batches_do_not_pass_for_a_catapult(kappa, phase):
    sigma = (kappa / (2 * 0.02)) ** 0.5
    assert explore(Setting(network="linear net", sigma=sigma, lr=0.02, width=512, batch=32)).phase == phase


def test_digits_decouple_and_diverge():
    assert explore(Setting(sigma=0.1, **SMALL)).phase == "decoupled"
    assert explore(Setting(sigma=200.0, **SMALL)).phase == "divergent"


def test_an_address_names_a_setting():
    for setting in (Setting(), Setting(network="linear net", sigma=2.5, law="uniform"), Setting(layer=2, lr=0.1)):
        assert from_query(setting.query) == from_query(setting.query[1:]) == setting
    assert from_query("token=abc&theme=dark&sigma=3") == Setting(sigma=3.0)
    assert from_query("") == Setting()
    with pytest.raises(ValueError, match="name='sgima' is unknown.*Did you mean 'sigma'"):
        from_query("sgima=3")
    assert set(NETWORKS) == {"digits", "linear net"}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["sigma"], "'sigma' must have the form name=value; the names are network, sigma"),
        (["simga=3"], "name='simga' is unknown.*Did you mean 'sigma'"),
        (["sigma=1", "sigma=2"], "sigma is given twice"),
        (["width=wide"], "width='wide' must be an integer"),
        (["sigma=0"], "sigma=0.0 must be a finite number > 0"),
        (["network=linear net", "layer=1"], "the linear net allows a node in layer 0 only"),
        (["layer=4"], "the linear layers of digits are 0 to 3"),
        (["law=cauchy"], "law='cauchy' is unknown"),
    ],
)
def test_bad_input(pairs, message):
    with pytest.raises(ValueError, match=message):
        read(pairs)
