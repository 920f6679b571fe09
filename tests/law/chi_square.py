"""Pearson's chi-square and its tail, without SciPy.

ALPHA is the level of every test here: with fixed seeds a suite never flakes, and 400 tests with
fresh seeds raise 4e-4 false alarms a run. A total variation distance of at least e gives
noncentrality 4·e²·N; at power 0.99, 30 degrees of freedom and N = 61,000 that finds e = 0.02.
"""

import math

import numpy as np

ALPHA = 1e-6
# |z| of a standard normal that is reached with probability ALPHA, two-sided.
Z_LIMIT = 4.9
# Cells are pooled until each expects this many draws, so that the tail is that of the limit law.
MIN_EXPECTED = 5.0
TINY = 1e-300
EPSILON = 1e-15
MAX_TERMS = 100_000


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable with `freedom` degrees of freedom."""
    if statistic <= 0.0 or freedom == 0:
        return 1.0
    if math.isinf(statistic):
        return 0.0
    half, x = freedom / 2, statistic / 2
    scale = math.exp(half * math.log(x) - x - math.lgamma(half))
    if x < half + 1:
        return 1.0 - scale * _lower_series(half, x)
    return scale * _upper_fraction(half, x)


def _lower_series(a: float, x: float) -> float:
    """Lower incomplete gamma over x^a e^-x by its series (DLMF 8.11.4)."""
    term = total = 1.0 / a
    for n in range(1, MAX_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * EPSILON:
            return total
    raise ArithmeticError(f"no convergence at a = {a}, x = {x}")


def _upper_fraction(a: float, x: float) -> float:
    """Upper incomplete gamma over x^a e^-x by Lentz's continued fraction (DLMF 8.9.2)."""
    b = x + 1.0 - a
    c, d = 1.0 / TINY, 1.0 / b
    value = d
    for n in range(1, MAX_TERMS):
        step = n * (a - n)
        b += 2.0
        d = 1.0 / _away_from_zero(step * d + b)
        c = _away_from_zero(b + step / c)
        value *= c * d
        if abs(c * d - 1.0) < EPSILON:
            return value
    raise ArithmeticError(f"no convergence at a = {a}, x = {x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def p_value(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Probability of counts at least as far from `probabilities`; both any shape, the same one.

    A draw where the probability is 0 is impossible: the answer is 0 at the first one.
    """
    return chi_square_tail(*pearson(counts, probabilities))


def pearson(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """Statistic and degrees of freedom; infinite where an impossible draw was made."""
    observed = np.asarray(counts, dtype=np.float64).ravel()
    expected = np.asarray(probabilities, dtype=np.float64).ravel() * observed.sum()
    if observed[expected == 0.0].any():
        return math.inf, 1
    observed, expected = _pooled(observed[expected > 0.0], expected[expected > 0.0])
    return float(((observed - expected) ** 2 / expected).sum()), len(observed) - 1


def _pooled(observed: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rarest cells merged until every one expects MIN_EXPECTED draws."""
    order = np.argsort(expected, kind="stable")
    observed, expected = observed[order], expected[order]
    mass = np.cumsum(expected)
    num_cells = len(expected)
    # The first cell takes the rare ones, and more where they are too few together.
    num_rare = max(int((expected < MIN_EXPECTED).sum()), 1)
    while num_rare < num_cells and mass[num_rare - 1] < MIN_EXPECTED:
        num_rare += 1
    merged = [observed[:num_rare].sum()], [expected[:num_rare].sum()]
    return np.concatenate([merged[0], observed[num_rare:]]), np.concatenate(
        [merged[1], expected[num_rare:]]
    )


def binomial_z(successes: np.ndarray, trials: np.ndarray, rates: np.ndarray) -> float:
    """How many standard deviations the sum of independent binomials is off; inf if impossible."""
    difference = float(successes.sum() - (trials * rates).sum())
    variance = float((trials * rates * (1.0 - rates)).sum())
    if variance < EPSILON * max(float(trials.sum()), 1.0):
        return 0.0 if abs(difference) < 0.5 else math.inf
    return difference / math.sqrt(variance)


def binomial_p_value(successes: np.ndarray, trials: np.ndarray, rates: np.ndarray) -> float:
    """Chi-square over independent binomials, those too rare for it left out."""
    variance = trials * rates * (1.0 - rates)
    is_used = variance >= MIN_EXPECTED
    if not is_used.any():
        return 1.0
    squares = (successes - trials * rates)[is_used] ** 2 / variance[is_used]
    return chi_square_tail(float(squares.sum()), int(is_used.sum()))
