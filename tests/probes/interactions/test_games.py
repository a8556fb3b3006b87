"""Catches transforms that are not the sums they stand for, and a split that does not match or is far from optimal."""

import itertools

import numpy as np
import pytest
import torch

from nin.probes.interactions import inverse_moebius, moebius, or_interactions, or_values, shapley, split
from nin.probes.interactions.games import members, orders
from studies.layerwise_interactions.identities import linear_program


def game(n, *batch, seed=0):
    return torch.randn(*batch, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def subsets(S):
    return (T for T in range(S + 1) if T & S == T)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_transforms_are_their_sums(n):
    """Identity 1, by brute force over all pairs of coalitions."""
    v = game(n)
    size, N = 2**n, 2**n - 1
    bits = [bin(S).count("1") for S in range(size)]
    and_ = [sum((-1) ** (bits[S] - bits[T]) * v[T] for T in subsets(S)) for S in range(size)]
    or_ = [-sum((-1) ** (bits[S] - bits[T]) * v[N & ~T] for T in subsets(S)) if S else 0.0 for S in range(size)]
    torch.testing.assert_close(moebius(v), torch.tensor(and_, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(or_interactions(v), torch.tensor(or_, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse_moebius(moebius(v)), v, rtol=1e-12, atol=1e-12)
    meets = [sum(or_[S] for S in range(size) if S & T) for T in range(size)]
    torch.testing.assert_close(or_values(or_interactions(v)), torch.tensor(meets), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("n", [1, 4, 7, 12])
def test_identities_of_any_game(n):
    """2 efficiency, 3 universal matching for random gamma, 4 OR duality, 7 Shapley value; any batch."""
    v = game(n, 2, 3)
    gamma = game(n, 2, 3, seed=1)
    gamma[..., 0] = v[..., 0] / 2
    and_, or_ = moebius(v / 2 + gamma), or_interactions(v / 2 - gamma)
    torch.testing.assert_close(inverse_moebius(and_) + or_values(or_), v, rtol=1e-12, atol=1e-10)
    total = and_[..., 1:].sum(-1) + or_.sum(-1)
    torch.testing.assert_close(total, v[..., -1] - v[..., 0], rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(moebius(v)[..., 1:].sum(-1), v[..., -1] - v[..., 0], rtol=1e-10, atol=1e-9)
    sign = 1.0 - 2.0 * ((orders(2**n) + 1) % 2)
    containing = inverse_moebius(moebius(v).flip(-1)).flip(-1)
    torch.testing.assert_close(or_interactions(v)[..., 1:], (sign * containing)[..., 1:], rtol=1e-10, atol=1e-9)
    phi = ((and_ + or_) / orders(2**n).clamp(min=1)) @ members(2**n).double()
    torch.testing.assert_close(shapley(v), phi, rtol=1e-10, atol=1e-9)


@pytest.mark.slow
def test_transform_is_shapiqs():
    """Identity 1, by the established library."""
    import shapiq

    for n in (3, 8):
        v = game(n)
        look_up = lambda coalitions, v=v, n=n: v.numpy()[np.atleast_2d(coalitions) @ (1 << np.arange(n))]  # noqa: E731
        theirs = shapiq.ExactComputer(look_up, n_players=n)("Moebius")
        found = [theirs[tuple(np.flatnonzero(row))] for row in members(2**n).numpy()[1:]]
        np.testing.assert_allclose(found, moebius(v)[1:], atol=1e-10)


def test_shapley_is_the_mean_over_orders_of_arrival():
    v = game(4)
    phi = torch.zeros(4, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        S = 0
        for i in order:
            phi[i] += (v[S | 1 << i] - v[S]) / 24
            S |= 1 << i
    torch.testing.assert_close(shapley(v), phi, rtol=1e-12, atol=1e-12)


def test_known_games():
    """5 unanimity, OR and polynomial games; 6 additive games, dummies."""
    T = torch.arange(16)
    unanimity = (T & 6 == 6).double()
    assert moebius(unanimity).nonzero().flatten().tolist() == [6]
    union = (T & 7 != 0).double()
    assert or_interactions(union).nonzero().flatten().tolist() == [7]
    expected = torch.tensor([0.0] + [(-1.0) ** (bin(S).count("1") + 1) if S & 8 == 0 else 0 for S in range(1, 16)])
    torch.testing.assert_close(moebius(union), expected.double())
    x = members(16).double()
    polynomial = 2 + 3 * x[:, 0] - x[:, 1] * x[:, 2] + 0.5 * x.prod(1)
    coefficients = torch.zeros(16, dtype=torch.float64)
    coefficients[[0, 1, 6, 15]] = torch.tensor([2.0, 3, -1, 0.5], dtype=torch.float64)
    torch.testing.assert_close(moebius(polynomial), coefficients, rtol=0, atol=1e-14)
    additive = x @ torch.tensor([1.0, 2.0, 0.0, 4.0], dtype=torch.float64)
    assert moebius(additive)[orders(16) > 1].abs().max() < 1e-14 and shapley(additive)[2] == 0


def test_noise_grows_with_order():
    """8: Var I(S) = 2^|S| sigma^2."""
    variance = moebius(game(5, 40_000)).var(0)
    assert (variance / 2.0 ** orders(32)).numpy() == pytest.approx(1, abs=0.05)


def test_dtype_and_device_follow_the_values():
    assert moebius(game(3).float()).dtype == torch.float32
    assert moebius([0, 1, 2, 5]).dtype == torch.float64


def networks_games(n, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    x = members(2**n).double()
    return torch.stack([torch.tanh(x @ draw(n, 16) / 1.5 + 0.3 * draw(16)) @ draw(16) for _ in range(count)])


@pytest.mark.parametrize("kappa", [0.04, 0.0])
@pytest.mark.parametrize("kind", ["noise", "network"])
def test_split_is_near_the_optimum_of_the_linear_program(kind, kappa):
    values = game(6, 5) if kind == "noise" else networks_games(6, 5)
    found = split(values, kappa)
    best = np.array([linear_program(v.numpy(), kappa).fun for v in values])
    ratio = found.objective.numpy() / best
    assert (ratio > 1 - 1e-9).all() and (ratio < 1.005).all()
    assert (found.bound.numpy() < best * (1 + 1e-9)).all() and (found.bound.numpy() > 0.995 * best).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "network", "sparse"])
def test_split_proves_how_near_it_is_at_ten_variables(kind):
    values = game(10, 8) if kind == "noise" else networks_games(10, 8)
    if kind == "sparse":  # few strong interactions on weak noise, where a fixed threshold takes long
        terms = torch.zeros(8, 1024, dtype=torch.float64).scatter(1, torch.arange(8)[:, None] * 31 + 200, 3.0)
        values = inverse_moebius(terms) + 0.02 * values
    found = split(values)
    assert (found.objective <= (1.02 if kind == "sparse" else 1.0051) * found.bound).all()
    loose = split(values, accuracy=0.1)
    assert (loose.objective <= 1.1 * loose.bound).all() and (loose.objective > found.objective).any()


def test_split_matches_on_every_coalition():
    values = networks_games(8, 3).view(3, 1, -1)
    found = split(values)
    again = inverse_moebius(found.and_) + or_values(found.or_) + found.delta
    torch.testing.assert_close(again, values, rtol=0, atol=1e-12)
    room = 0.04 * (values[..., -1] - values[..., 0]).abs()
    assert (found.delta.abs().amax(-1) <= room + 1e-12).all()
    torch.testing.assert_close(found.and_[..., 0], values[..., 0])
    assert (found.or_[..., orders(256) <= 1] == 0).all() and (found.delta[..., 0].abs() < 1e-12).all()
    cost = found.and_[..., 1:].abs().sum(-1) + found.or_.abs().sum(-1)
    torch.testing.assert_close(found.objective, cost, rtol=1e-9, atol=0)


def test_split_finds_planted_interactions():
    """An AND of three, an OR of three, a single variable: five terms, up to the threshold."""
    T = torch.arange(64)
    values = 2.0 * (T & 7 == 7) + 1.5 * (T & 56 != 0) - 0.7 * (T & 1 == 1)
    found = split(values.double(), 0.0)
    assert found.objective.item() == pytest.approx(4.2, rel=1e-3)
    strong = [
        (kind, int(S)) for kind, part in (("and", found.and_), ("or", found.or_)) for S in (part.abs() > 0.05).nonzero()
    ]
    assert strong == [("and", 1), ("and", 7), ("or", 56)]


def test_tie_break_prefers_low_orders():
    """x_0 + x_1 costs the same as AND + OR of the pair."""
    values = torch.tensor([0.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    found = split(values, 0.0, tie_break=0.05, accuracy=1e-4)
    assert found.and_[3].abs() < 1e-3 and found.or_[3].abs() < 1e-3
    assert found.and_[1:3].tolist() == pytest.approx([1, 1], abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_game_that_is_rounding_is_refused_and_a_small_one_is_split(dtype):
    values, eps = game(3).to(dtype), torch.finfo(dtype).eps
    small = split(1 + 1e4 * eps * values).and_[1:].abs().sum()
    assert small == pytest.approx(1e4 * eps * float(split(values).and_[1:].abs().sum()), rel=0.01)
    with pytest.raises(ValueError, match=r"1 of 1 games, .* have v\(N\) = v\(empty\) to rounding"):
        split(1 + 2 * eps * values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moebius(torch.zeros(3, 6)), r"values of shape \(3, 6\) must have a last axis of 2\^n"),
        (lambda: moebius(torch.tensor(1.0)), "must have a last axis"),
        (lambda: moebius(torch.zeros(1).expand(2**21)), "n = 21 variables: at most 20.* 8 MB"),
        (lambda: moebius(torch.tensor([0.0, torch.nan])), "values must be finite; 1 of 2"),
        (lambda: or_values(torch.tensor([0.0, torch.inf])), "interactions must be finite"),
        (
            lambda: split(torch.tensor([[0.0, 1.0], [1.0, 1.0]])),
            r"1 of 2 games, the first of index 1, have v\(N\) = v\(empty\)",
        ),
        (lambda: split(torch.zeros(2**14)), "n = 14: the split takes an inverse of 2 GB"),
        (lambda: split(game(3), -0.1), "kappa=-0.1 must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
