"""Repeats by turns, their spread, and the ratios that may be told of them."""

import pytest

from mtp_mlx.measure.figures import LEAST_REPEATS, WITHIN_NOISE, Figure, Ratio, interleaved

STEADY = Figure((10.0, 10.1, 9.9, 10.0, 10.0))


def test_repeats_run_there_and_back_and_a_sample_is_both():
    ran = []

    def trial(name: str, worth: int):
        def run(turn: int) -> int:
            ran.append((name, turn))
            return worth

        return run

    found = interleaved([trial("A", 1), trial("B", 10), trial("C", 100)], 2)
    there, back = ["A", "B", "C"], ["C", "B", "A"]
    assert [name for name, _ in ran] == 2 * (there + back)
    assert [turn for _, turn in ran] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert found == ((2, 2), (20, 20), (200, 200))


def test_a_median_ignores_a_stall_and_so_does_the_spread():
    calm = Figure((10.0, 10.0, 10.0, 10.1, 9.9, 10.0, 10.0, 10.0))
    stalled = Figure((*calm.values[:-1], 2.0))
    assert stalled.median == 10.0
    assert calm.spread < stalled.spread < 0.01
    assert Figure((5.0, 10.0, 15.0, 20.0, 25.0)).spread > 0.3


@pytest.mark.parametrize("count", range(1, LEAST_REPEATS))
def test_too_few_repeats_tell_no_spread_and_no_ratio(count):
    figure = Figure((30.0,) * count)
    assert figure.spread is None
    ratio = figure.over(Figure((10.0,) * count))
    assert (ratio.value, str(ratio)) == (None, WITHIN_NOISE)


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ((2.0, 2.1, 1.9, 2.0, 2.0), 2.0),
        ((0.5, 0.51, 0.49, 0.5, 0.5), 0.5),  # losses are told too
        ((1.2, 0.9, 1.1, 0.8, 1.3), None),  # 1.1, and the repeats scatter by more
        ((1.02, 1.02, 1.02, 1.02, 1.021), 1.02),  # small, and steady
        ((1.0, 1.0, 1.0), None),  # no effect is none
        ((0.93, 0.96, 1.01), None),  # three repeats must agree on which is more
        ((0.93, 0.94, 0.96, 0.95, 1.01), 0.95),  # of five one may have met a stall
        ((2.0, 0.5, 4.0, 0.3, 2.0), None),  # a large effect in a larger spread
        ((0.5, 2.0, 0.25, 1 / 0.3, 0.5), None),  # and the other way round
    ],
)
def test_a_ratio_is_told_where_its_effect_is_larger_than_its_spread(values, value):
    ratio = Ratio(Figure(values))
    assert ratio.value == value
    assert str(ratio) == (WITHIN_NOISE if value is None else f"{value:.2f}")
    body = ratio.to_json()
    assert body == {"ratio": value, "spread": Figure(values).spread, "within_noise": value is None}


def test_a_ratio_is_of_the_same_repeats():
    """The machine was slow in the second half: both sides were, and the ratio is the same."""
    ours, theirs = Figure((20.0, 20.0, 10.0, 10.0)), Figure((10.0, 10.0, 5.0, 5.0))
    assert ours.over(theirs).value == 2.0
    assert ours.over(theirs).to_json()["spread"] == 0.0
    with pytest.raises(ValueError):
        ours.over(STEADY)


def test_json_has_every_repeat():
    assert STEADY.to_json() == {
        "median": 10.0,
        "spread": STEADY.spread,
        "values": [10.0, 10.1, 9.9, 10.0, 10.0],
    }
