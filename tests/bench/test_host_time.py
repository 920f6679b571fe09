"""The host's time of a round: what is left of a run outside MLX's eval, a forward."""

import pytest

from bench import host_time
from bench.host_time import OURS, PLAIN
from bench.peers.job import Done


def done(decode_s: float, eval_s: float, forwards: int) -> Done:
    return Done(
        texts=[[1]], whole_s=decode_s, decode_tokens=1, decode_s=decode_s, decode_cpu_s=decode_s,
        peak_bytes=1, forwards=forwards, rows=forwards, reads=forwards, eval_s=eval_s,
    )  # fmt: skip


def test_it_is_what_passes_outside_eval_by_forward():
    assert host_time.host_s([done(3.0, 2.0, 8), done(2.0, 1.0, 2)]) == pytest.approx(0.2)


def test_rounds_are_told_over_two_steps_of_the_peer_in_the_same_repeat():
    seen = {PLAIN: [0.5, 1.0, 2.0], OURS[0]: [0.5, 1.5, 4.0]}
    peer, own = host_time.lines("tiny", 8, seen)
    assert peer["over_two_steps"] is None
    over = own["over_two_steps"]
    assert (over["median"], over["lowest"], over["highest"]) == (0.75, 0.5, 1.0)
    [alone] = host_time.lines("tiny", 8, {OURS[0]: [1.0]})
    assert alone["over_two_steps"] is None
