"""What benches say of a ratio, and what they do not say where it is noise."""

import pytest

from bench.ratios import compared, told, told_range

CLEAR = compared([20.0, 21.0, 19.0, 20.0], [10.0, 10.0, 10.0, 10.0])
NOISE = compared([12.0, 8.0, 11.0, 9.0], [10.0, 10.0, 10.0, 10.0])


def test_a_ratio_is_of_the_same_repeats_and_has_its_range():
    assert (CLEAR["ratio"], CLEAR["median"], CLEAR["lowest"], CLEAR["highest"]) == (2, 2, 1.9, 2.1)
    assert told(CLEAR) == "2.00 (1.90-2.10)"


def test_noise_is_said_to_be_noise():
    assert (NOISE["ratio"], NOISE["median"]) == (None, 1.0)
    assert told(NOISE) == "0.80-1.20 (noise)"


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_repeats_are_noise(count):
    assert compared([20.0] * count, [10.0] * count)["ratio"] is None


def test_a_range_counts_what_is_noise_and_tells_the_rest():
    assert told_range([CLEAR, CLEAR]) == "2.00 to 2.00"
    assert told_range([CLEAR, NOISE]) == "2.00 to 2.00, 1 of 2 within noise"
    assert told_range([NOISE]) == "1 of 1 within noise"
