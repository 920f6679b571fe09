"""What exact lengths yield (verification.md §4.5): simulator and search reproduce the table."""

import pytest

from bench import sim_regimes
from mtp_mlx.engine.policy import search

# Two decimals of the table, and its own rounding of costs.
TOLERANCE = 0.02
BATCHES = (1, 2, 4, 8)
PROFILES = ("code", "served26", "prose")
K_MAX = 7
UNIFORM = {
    "m5max_12b_q4": (
        (2.87, 2.17, 1.99),
        (1.88, 1.65, 1.54),
        (1.39, 1.12, 1.07),
        (1.43, 1.13, 1.04),
    ),
    "m3ultra_31b_q4": (
        (2.47, 1.81, 1.66),
        (1.86, 1.53, 1.42),
        (1.71, 1.26, 1.19),
        (1.58, 1.25, 1.14),
    ),
    "m2pro_q4": ((1.06, 1, 1), (1.19, 1, 1), (1.84, 1.19, 1.05), (2.31, 1.72, 1.58)),
    "moe26_stock": ((1.88, 1.51, 1.40), (1.50, 1.31, 1.23), (1.24, 1.13, 1.08), (1.27, 1.08, 1)),
    "moe26_stock_indep": (
        (1.70, 1.40, 1.30),
        (1.36, 1.21, 1.15),
        (1.17, 1.06, 1.01),
        (1.23, 1.02, 1),
    ),
    "moe26_grouped": (
        (2.17, 1.64, 1.50),
        (1.93, 1.50, 1.39),
        (1.82, 1.41, 1.31),
        (1.86, 1.40, 1.30),
    ),
    "linear": ((1, 1, 1),) * 4,
}
MIXED = {
    ("m5max_12b_q4", "2code+2low"): ((2, 2, 0, 0), 1.12),
    ("moe26_stock", "2code+2low"): ((2, 2, 0, 0), 1.12),
    ("m5max_12b_q4", "enum+3adverse"): ((4, 0, 0, 0), 1.15),
    ("m3ultra_31b_q4", "enum+3adverse"): ((4, 0, 0, 0), 1.30),
    ("m5max_12b_q4", "eight"): ((7, 6, 6, 2, 2, 2, 0, 0), 1.29),
    ("m3ultra_31b_q4", "eight"): ((7, 6, 6, 2, 2, 2, 0, 0), 1.42),
    ("moe26_stock", "eight"): (None, 1.17),
    ("moe26_grouped", "eight"): (None, 1.55),
}


def exact(regime: str, names: tuple[str, ...]) -> tuple[tuple[int, ...], float]:
    """The best lengths when acceptance is known, and their speed-up over plain decoding."""
    machine, batch = sim_regimes.machine(regime), len(names)
    rows = []
    for name in names:
        rates = sim_regimes.STATIONARY[name]
        every = tuple(rates[min(j, len(rates) - 1)] for j in range(K_MAX))
        values = search.survival(every, K_MAX)
        rows.append(search.Candidate(values, values, values))
    forward = tuple(machine.forward(batch + n, batch) for n in range(batch * K_MAX + 1))
    costs = search.Prices(forward, (0.0,) * len(forward), 0.0, machine.d0, machine.d1, machine.host)
    found = search.best(tuple(rows), costs, search.UNLIMITED)
    return found.lengths, found.rate / search.least(tuple(rows), costs).rate


@pytest.mark.parametrize("regime", UNIFORM)
def test_equal_rows_gain_what_the_table_says(regime):
    for batch, row in zip(BATCHES, UNIFORM[regime], strict=True):
        for profile, expected in zip(PROFILES, row, strict=True):
            _, gain = exact(regime, (profile,) * batch)
            assert gain == pytest.approx(expected, abs=TOLERANCE), (batch, profile)


@pytest.mark.parametrize(("regime", "mix"), MIXED)
def test_mixed_rows_gain_what_the_table_says(regime, mix):
    lengths, gain = MIXED[regime, mix]
    found, speedup = exact(regime, sim_regimes.MIXES[mix])
    assert speedup == pytest.approx(gain, abs=TOLERANCE)
    assert lengths is None or found == lengths
