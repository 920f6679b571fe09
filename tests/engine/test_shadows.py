"""Shadows: drafts that nobody verified are judged by the tokens that come anyway."""

import mlx.core as mx
import pytest

from mtp_mlx.engine.policy import Shadow
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.engine.shadows import Shadows
from mtp_mlx.request import Request, Sampling


def row(*tokens: int) -> Sequence:
    request = Request(prompt=(1,), sampling=Sampling(), max_tokens=99)
    return Sequence(7, request, 99, 0, [1, *tokens], hidden=mx.zeros((1,)), is_running=True)


@pytest.mark.parametrize(
    ("verified", "proposed", "came", "expected"),
    [
        (0, [5, 6, 7], [5, 6, 7], Shadow(7, 0, 3, 3)),
        (0, [5, 6, 7], [5, 9], Shadow(7, 0, 1, 3)),
        (0, [5, 6, 7], [9], Shadow(7, 0, 0, 3)),
        (2, [5, 6, 7, 8], [5, 6, 7, 9], Shadow(7, 2, 3, 4)),
        (2, [5, 6, 7, 8], [5, 6, 9], Shadow(7, 2, 2, 4)),
    ],
)
def test_tokens_judge_a_burst(verified, proposed, came, expected):
    shadows, sequence = Shadows(), row(3)
    shadows.keep(sequence, 2, verified, proposed)
    for token in came[:-1]:
        sequence.tokens.append(token)
        assert shadows.judge(sequence) == []
    sequence.tokens.append(came[-1])
    assert shadows.judge(sequence) == [expected]
    assert shadows.judge(sequence) == []


@pytest.mark.parametrize(
    ("came", "expected"),
    [([5], [Shadow(7, 0, 1, 1)]), ([], []), ([5, 6], [Shadow(7, 0, 2, 2)])],
)
def test_the_end_of_a_row_judges_what_is_known(came, expected):
    shadows, sequence = Shadows(), row(*came)
    shadows.keep(sequence, 1, 0, [5, 6, 7])
    assert shadows.judge(sequence, is_over=True) == expected
    assert shadows.judge(sequence, is_over=True) == []


def test_verified_drafts_alone_wait_for_nothing_and_one_burst_waits_at_a_time():
    shadows, sequence = Shadows(), row(3)
    shadows.keep(sequence, 2, 2, [5, 6])
    assert shadows.judge(sequence, is_over=True) == []
    shadows.keep(sequence, 2, 0, [5])
    shadows.keep(sequence, 2, 0, [9])
    sequence.tokens.append(5)
    assert shadows.judge(sequence) == [Shadow(7, 0, 1, 1)]
    shadows.keep(sequence, 3, 0, [5])
    shadows.drop(sequence)
    assert shadows.judge(sequence, is_over=True) == []
