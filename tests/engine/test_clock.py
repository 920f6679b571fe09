"""What a round is said to have taken, and when that is typical of its shape."""

from mtp_mlx.engine.clock import RoundClock


class Hands:
    """A clock that shows what the test sets."""

    def __init__(self) -> None:
        self.at = 10.0

    def __call__(self) -> float:
        return self.at


def test_rounds_are_charged_from_landing_to_landing():
    hands = Hands()
    clock = RoundClock(hands)
    clock.begin()
    hands.at = 12.0
    assert clock.land((1, 4), None).seconds == 2.0
    hands.at = 12.5
    clock.begin()  # the round began when the other one landed
    hands.at = 13.0
    assert clock.land((1, 4), None).seconds == 1.0


def test_a_time_is_clean_from_the_second_round_of_a_shape_on():
    hands = Hands()
    clock = RoundClock(hands)
    cleans = []
    for shape in ((1, 4), (1, 4), (2, 4), (2, 4), (1, 4)):
        clock.begin()
        hands.at += 1.0
        cleans.append(clock.land(shape, None).is_clean)
    assert cleans == [False, True, False, True, True]


def test_what_shares_a_rounds_time_makes_it_untypical():
    hands = Hands()
    clock = RoundClock(hands)
    for _ in range(2):
        clock.begin()
        hands.at += 1.0
        clock.land((1, 1), None)
    clock.disturb()
    hands.at += 1.0
    assert not clock.land((1, 1), None).is_clean
    hands.at += 1.0
    assert clock.land((1, 1), None).is_clean
    clock.rest()
    hands.at += 50.0
    clock.begin()
    hands.at += 1.0
    timing = clock.land((1, 1), None)
    assert (timing.seconds, timing.is_clean) == (1.0, False)
    assert not clock.land((1, 1), None).is_clean, "no time has passed: the clock is too coarse"
