"""The statistics' own tools: known values, calibration, power."""

import math

import numpy as np
import pytest

from mtp_mlx.request import Sampling
from tests.law.chi_square import (
    ALPHA,
    binomial_p_value,
    binomial_z,
    chi_square_tail,
    p_value,
)
from tests.law.oracle import acceptance, chain_law, filtered, softmax

# Upper quantiles of the usual tables (three decimals), then the 1e-6 ones of reliability.md §4.
QUANTILES = (
    (3.841, 1, 0.05), (10.828, 1, 0.001), (5.991, 2, 0.05), (18.307, 10, 0.05),
    (29.588, 10, 0.001), (50.892, 30, 0.01), (59.703, 30, 0.001), (124.342, 100, 0.05),
    (149.449, 100, 0.001),
)  # fmt: skip


@pytest.mark.parametrize(("statistic", "freedom", "tail"), QUANTILES)
def test_the_tail_is_that_of_the_tables(statistic: float, freedom: int, tail: float) -> None:
    assert chi_square_tail(statistic, freedom) == pytest.approx(tail, rel=2e-3)


@pytest.mark.parametrize("freedom", [2, 4, 10, 40, 200, 1000])
@pytest.mark.parametrize("factor", [0.3, 0.9, 1.0, 1.3, 2.0])
def test_the_tail_of_even_freedom_is_the_poisson_sum(freedom: int, factor: float) -> None:
    x = freedom * factor / 2
    terms = [math.exp(n * math.log(x) - x - math.lgamma(n + 1)) for n in range(freedom // 2)]
    assert chi_square_tail(2 * x, freedom) == pytest.approx(sum(terms), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("statistic", [0.1, 1.0, 9.0, 23.9, 100.0])
def test_the_tail_of_one_degree_is_that_of_a_squared_normal(statistic: float) -> None:
    normal = math.erfc(math.sqrt(statistic / 2))
    assert chi_square_tail(statistic, 1) == pytest.approx(normal, rel=1e-9)


def test_an_impossible_draw_fails_at_once() -> None:
    assert p_value(np.array([1_000_000, 1]), np.array([1.0, 0.0])) == 0.0


def test_p_values_of_the_right_law_are_calibrated() -> None:
    random = np.random.default_rng(5)
    law = softmax(random.normal(size=30) * 2)
    p_values = np.array([p_value(random.multinomial(5_000, law), law) for _ in range(2_000)])
    for level in (0.5, 0.1, 0.01):
        spread = math.sqrt(level * (1 - level) / len(p_values))
        assert abs((p_values < level).mean() - level) < 4 * spread + 0.1 * level


@pytest.mark.parametrize("size", [11, 31])
def test_a_distance_of_two_percent_is_found_at_61_thousand_draws(size: int) -> None:
    """The worst direction: the whole distance spread so that it adds least to the statistic."""
    random = np.random.default_rng(size)
    law = np.full(size, 1 / size)
    shift = np.where(np.arange(size) < size // 2, 1 / (size // 2), -1 / (size - size // 2)) * 0.02
    found = [p_value(random.multinomial(61_000, law + shift), law) < ALPHA for _ in range(300)]
    assert np.mean(found) >= 0.97


def test_binomial_sums_are_judged_by_their_variance() -> None:
    random = np.random.default_rng(2)
    trials, rates = np.full(100, 400), random.uniform(0.1, 0.9, 100)
    right, wrong = random.binomial(trials, rates), random.binomial(trials, rates * 0.9)
    assert abs(binomial_z(right, trials, rates)) < 4.9 < abs(binomial_z(wrong, trials, rates))
    assert binomial_p_value(wrong, trials, rates) < ALPHA < binomial_p_value(right, trials, rates)
    assert binomial_z(np.array([5]), np.array([5]), np.array([1.0])) == 0.0
    assert binomial_z(np.array([4]), np.array([5]), np.array([1.0])) == math.inf


def test_the_acceptance_formula_is_that_of_shared_gumbel_noise() -> None:
    random = np.random.default_rng(8)
    noise = random.gumbel(size=(200_000, 12))
    for scale in (0.0, 0.5, 2.5):
        target = filtered(random.normal(size=12), Sampling(temperature=1.0, top_k=6))
        logits = np.log(np.maximum(target, 1e-9)) + scale * random.normal(size=12)
        drafter = filtered(logits, Sampling(temperature=1.0, top_k=8))
        with np.errstate(divide="ignore"):
            both = [np.argmax(np.log(law) + noise, axis=1) for law in (target, drafter)]
        equal, trials = np.array([(both[0] == both[1]).sum()]), np.array([len(noise)])
        assert abs(binomial_z(equal, trials, np.array([acceptance(target, drafter)]))) < 4.9


def test_the_chain_law_sums_to_one_and_has_its_marginals() -> None:
    transitions = filtered(np.random.default_rng(3).normal(size=(6, 6)), Sampling(temperature=1.0))
    law = chain_law(transitions, 4)
    assert law.sum() == pytest.approx(1.0)
    assert law.sum(axis=(1, 2)) == pytest.approx(transitions[4])
    assert law.sum(axis=(0, 2)) == pytest.approx(transitions[4] @ transitions)
