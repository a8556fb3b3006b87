"""Catches deformations of wrong size or direction: moments against Monte Carlo, the warp against a loop and scipy."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from nin.probes.stability import (
    deform,
    displacement_field,
    displacement_rms,
    fold_fraction,
    gradient_variance,
    temperature,
    temperature_range,
)
from nin.probes.stability.deformations import draw_field


def field(n, c, T, count, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return displacement_field(n, c, T, count, generator=generator, dtype=torch.float64, **options)


@pytest.mark.parametrize(("n", "T"), [(28, 1.478256e-3), (8, 1.810863e-2)])
def test_temperature_is_that_of_the_published_code(n, T):
    assert temperature(1, n, 3) == pytest.approx(T, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "c", "modes", "rms"),
    [(28, 2, "published", 0.877), (28, 3, "published", 0.812), (28, 8, "published", 0.839), (8, 3, "published", 0.737),
     (28, 3, "disk", None), (16, 4.7, "published", None), (6, 5, "disk", None)],
)  # fmt: skip
def test_displacement_on_the_grid(n, c, modes, rms):
    """(6, 5): modes of order 5 vanish on the 6 pixels."""
    T = temperature(0.1, n, c)
    predicted = displacement_rms(T, n, c, modes=modes)
    if rms is not None:
        assert predicted / 0.1 == pytest.approx(rms, abs=6e-4)
    squares = field(n, c, T, 20_000, modes=modes).square().sum(1).mean((1, 2))
    assert squares.mean().item() == pytest.approx(predicted**2, abs=4 * squares.std().item() / math.sqrt(20_000))
    assert squares.std().item() / math.sqrt(20_000) < 0.01 * predicted**2


@pytest.mark.parametrize("exact", [True, False])
def test_temperature_and_displacement_are_inverse(exact):
    for delta, n, c in [(0, 28, 3), (0.7, 28, 2), (2, 224, 11.5)]:
        T = temperature(delta, n, c, exact=exact)
        assert displacement_rms(T, n, c, exact=exact) == pytest.approx(delta, rel=1e-14)


def test_range_is_half_a_pixel_to_the_largest_smooth_displacement():
    low, high = temperature_range(28, 3)
    assert temperature(0.5, 28, 3) == pytest.approx(low, rel=1e-14)
    assert temperature(28 / (3 * math.pi), 28, 3) == pytest.approx(high, rel=1e-14)
    temperature_range(28, 2 * 28 / math.pi)
    with pytest.raises(ValueError, match=r"c=17\.9 is too large for n=28.*T_min.*T_max.*17\.83"):
        temperature_range(28, 17.9)


def test_gradients():
    """Against differences of fields on a fine grid; the mean is the same for all components and directions."""
    n, c, T = 64, 3, 1e-3
    tau = field(n, c, T, 4000) / n
    for axis in (2, 3):
        squares = tau.diff(dim=axis).mul(n - 1).square().mean((2, 3))
        assert squares.mean().item() == pytest.approx(gradient_variance(T, c), rel=0.02)


def test_fields_vanish_on_the_border_and_grow_with_count():
    fields = field(11, 4, 1e-3, 5)
    assert fields.shape == (5, 2, 11, 11)
    for edge in (fields[..., 0, :], fields[..., -1, :], fields[..., 0], fields[..., -1]):
        assert (edge == 0).all()
    torch.testing.assert_close(field(11, 4, 1e-3, 9)[:5], fields)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(displacement_field(11, 4, 1e-3, 5, generator=generator), fields.float())


def test_fields_are_the_sum_of_their_modes():
    """Against a naive sum, with the coefficients drawn in the same order."""
    n, c, T = 9, 3, 2e-3
    modes = [(i, j) for i in range(1, 5) for j in range(1, 5) if math.hypot(i, j) < c + 0.5]
    drawn = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[:24].view(2, 2, len(modes))
    u = np.linspace(0, 1, n)
    expected = np.zeros((2, 2, n, n))
    for b in range(2):
        for k in range(2):
            for m, (i, j) in enumerate(modes):
                size = math.sqrt(T / (i**2 + j**2)) * drawn[b, k, m].item()
                expected[b, k] += n * size * np.outer(np.sin(np.pi * i * u), np.sin(np.pi * j * u))
    np.testing.assert_allclose(field(n, c, T, 2).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("c", "share", "low", "high"), [(3, 1, 0.29, 0.37), (2, 1, 0.51, 0.59), (3, 0.3, 5e-4, 9e-3)])
def test_folds(c, share, low, high):
    T = share * temperature_range(256, c).high
    assert low < fold_fraction(c, T, 4000, generator=torch.Generator().manual_seed(0)) < high


@pytest.mark.slow
def test_fold_fraction_is_that_of_finite_differences():
    c, T = 3, temperature_range(256, 3).high
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "modes": "published", "device": "cpu", "dtype": torch.float64}
    tau = draw_field(193, c, T, 500, **options) / 193
    along = [tau.diff(dim=axis).mul(192)[..., :192, :192] for axis in (2, 3)]
    determinant = (1 - along[0][:, 0]) * (1 - along[1][:, 1]) - along[1][:, 0] * along[0][:, 1]
    naive = (determinant < 0).flatten(1).any(1).double().mean().item()
    assert fold_fraction(c, T, 500, generator=torch.Generator().manual_seed(0)) == pytest.approx(naive, abs=0.015)


def test_folds_are_warned_of_once_with_their_fraction():
    with pytest.warns(UserWarning, match=r"T=0\.0181 with c=3 folds images: .* in 5\d % of the fields") as warned:
        field(8, 3, temperature(1, 8, 3), 10)
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field(28, 3, temperature(1, 28, 3), 10)


@pytest.mark.parametrize("n", [2, 5, 28])
def test_warp(n):
    """Against a loop over pixels written from the definition, and scipy's interpolation."""
    rng = np.random.default_rng(0)
    images, tau = rng.standard_normal((3, 2, n, n)), rng.uniform(-3, 3, (3, 2, n, n))
    warped = deform(torch.from_numpy(images), torch.from_numpy(tau)).numpy()
    naive, other = np.empty_like(images), np.empty_like(images)
    rows, columns = np.mgrid[:n, :n]
    for b in range(3):
        for channel in range(2):
            x = images[b, channel]
            for r in range(n):
                for s in range(n):
                    v, h = np.clip([r - tau[b, 0, r, s], s - tau[b, 1, r, s]], 0, n - 1)
                    v0, h0 = min(int(v), n - 2), min(int(h), n - 2)
                    a, e = v - v0, h - h0
                    top = (1 - e) * x[v0, h0] + e * x[v0, h0 + 1]
                    naive[b, channel, r, s] = (1 - a) * top + a * ((1 - e) * x[v0 + 1, h0] + e * x[v0 + 1, h0 + 1])
            places = [rows - tau[b, 0], columns - tau[b, 1]]
            other[b, channel] = ndimage.map_coordinates(x, places, order=1, mode="nearest")
    np.testing.assert_allclose(warped, naive, atol=1e-12)
    np.testing.assert_allclose(warped, other, atol=1e-12)


def test_no_displacement_is_the_identity():
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(deform(images, field(16, 3, 0.0, 4)), images, atol=1e-12, rtol=0)
    torch.testing.assert_close(deform(images, torch.zeros(1, 2, 16, 16)), images, atol=1e-12, rtol=0)


def test_one_mode_at_c_1():
    """At c = 1 there is one published mode; only the nominal temperature is undefined."""
    T = temperature(0.5, 28, 1, exact=True)
    assert field(28, 1, T, 4000).square().sum(1).mean().sqrt().item() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: temperature(1, 28, 1), "c=1 gives ln c = 0.*Use c >= 2"),
        (lambda: temperature(1, 28, 0.5), "c=0.5 is below the first mode; use 2 <= c <= n"),
        (lambda: temperature(-1, 28, 3), "delta=-1 must be"),
        (lambda: temperature(1, 1, 3), "n=1 must be an integer >= 2"),
        (lambda: temperature(1, 28, 3, exact=True, modes="all"), "modes='all' is unknown"),
        (lambda: displacement_rms(-1e-3, 28, 3), "T=-0.001 must be"),
        (lambda: displacement_rms(1e-3, 28, 1, exact=False), "c=1 gives ln c = 0"),
        (lambda: displacement_rms(1e-3, 2, 3), "n=2 is too small"),
        (lambda: temperature_range(28, 1), "c=1 gives ln c = 0"),
        (lambda: temperature_range(8, 6), r"T_min = \S+ > T_max = "),
        (lambda: field(28, 0, 1e-3, 1), "c=0 is below"),
        (lambda: field(28, 1, 1e-3, 1, modes="disk"), "leaves no mode, modes='disk'.*Use c >= 2"),
        (lambda: field(28, 3, -1e-3, 1), "T=-0.001 must be"),
        (lambda: field(28, 3, 1e-3, -1), "count=-1 must be"),
        (lambda: deform(torch.zeros(2, 1, 8, 9), torch.zeros(2, 2, 8, 8)), "images of shape .* must be square"),
        (lambda: deform(torch.zeros(2, 64), torch.zeros(2, 2, 8, 8)), r"images.unflatten\(1, \(1, 8, 8\)\)"),
        (lambda: deform(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(2, 2, 8, 8)), "floating point"),
        (lambda: deform(torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, 9, 9)), r"field of shape \(2, 2, 9, 9\) does not"),
        (lambda: deform(torch.zeros(3, 1, 8, 8), torch.zeros(2, 2, 8, 8)), "must be .3, 2, 8, 8., or .1, 2, 8, 8."),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
