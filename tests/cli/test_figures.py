"""The figures of a reply in a chat."""

from dataclasses import replace

import pytest

from mtp_mlx.cli.figures import Answer, explain, memory, runs, stats_line
from mtp_mlx.reply import RoundCosts, SpecStats, Timings, Usage
from mtp_mlx.request import CacheUse
from tests.cli.fake import COSTS, FakeLLM, FakeStream

ENGINE = replace(FakeLLM([]).stats(), decision="drafts 3", costs=COSTS)
REPLY = replace(FakeStream([], 7).reply, usage=Usage(10, 38))
ANSWER = Answer(REPLY, (3, 3, 0), ENGINE, 3 << 20, 4096)
PARKED = SpecStats(5, 0, 0, (), (), 1.0, 5, "parked, drafting would not pay: N=2 costs 3x")
WIDE = 200


def with_reply(**changes: object) -> Answer:
    return replace(ANSWER, reply=replace(REPLY, **changes))


def test_one_line_has_every_figure():
    assert stats_line(ANSWER, WIDE) == (
        "38 tok · 12.0 tok/s (plain ~50) · drafts 3/6 accepted, 2.5 tok/round · TTFT 0.25 s · 3 MiB"
    )


def test_a_narrow_terminal_breaks_it_between_figures():
    lines = stats_line(ANSWER, 40).split("\n")
    assert all(len(line) <= 40 for line in lines)
    assert " · ".join(lines) == stats_line(ANSWER, WIDE)


def test_the_plain_rate_is_left_out_where_nothing_was_measured_or_drafted():
    assert "12.0 tok/s · drafts" in stats_line(with_reply(plain_tokens_per_s=None), WIDE)
    assert "12.0 tok/s · no drafts" in stats_line(with_reply(spec=PARKED), WIDE)
    assert "tok/s" not in stats_line(with_reply(timings=Timings(0.25, 0.0, 0.0)), WIDE)


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"finish_reason": "cancelled"}, "stopped"),
        ({"finish_reason": "length"}, "cut at 38 tokens: /set max_tokens N"),
        (
            {"finish_reason": "length", "usage": Usage(4058, 38)},
            "the context of 4,096 tokens is full: /undo, or /clear",
        ),
        ({"finish_reason": "stop"}, "3 MiB"),
    ],
)
def test_the_end_is_explained(changes, end):
    assert stats_line(with_reply(**changes), WIDE).endswith(f" · {end}".replace(" · 3", "· 3"))


def test_a_reply_that_never_began_says_what_to_do():
    nothing = with_reply(finish_reason="cancelled", usage=Usage(10, 0))
    assert "/retry" in stats_line(nothing, WIDE)


def test_why_names_depths_positions_and_costs():
    rows = dict(explain(ANSWER))
    assert rows["drafts by round"] == "3 ×2, 0"
    assert rows["by position"] == "2/2 1/2 0/2"
    assert rows["last choice"] == "drafts 3"
    assert rows["a forward of"] == "1: 20.00 ms (1.00x), 2: 30.00 ms (1.50x)"
    assert rows["drafting"] == "1.00 ms a step, 2.00 ms a draft, 0.50 ms of the host"
    assert rows["plain"].startswith("~50 tokens/s")


def test_why_says_what_was_kept_of_the_prompt_and_why_no_more():
    used = {"usage": Usage(10, 38, 8), "cache": CacheUse(8, "the texts part at token 8")}
    rows = dict(explain(with_reply(**used)))
    assert rows["prompt"] == "10 tokens, 8 of them kept from before, first token after 0.25 s"
    assert rows["why no more kept"] == "the texts part at token 8"
    assert "why no more kept" not in dict(explain(with_reply(cache=CacheUse(0, None))))


def test_why_says_why_drafting_ended_once():
    parked = replace(ANSWER, reply=replace(REPLY, spec=PARKED))
    assert dict(explain(parked))["drafting ended"] == PARKED.parked
    decided = replace(parked, engine=replace(ENGINE, decision=f"{PARKED.parked}; common depths"))
    assert "drafting ended" not in dict(explain(decided))


def test_why_says_that_nothing_was_measured():
    rows = dict(explain(replace(ANSWER, engine=replace(ENGINE, decision=None, costs=None))))
    assert "not measured" in rows["costs"]
    assert "plain" not in rows


def test_plain_decoding_takes_a_forward_a_token():
    assert RoundCosts((0.025, 0.9), 1.0, 1.0, 1.0).plain_tokens_per_s == pytest.approx(40.0)


def test_runs_and_sizes():
    assert runs(()) == ""
    assert runs((0, 1, 1, 2)) == "0, 1 ×2, 2"
    assert (memory(9 << 30), memory(200 << 20)) == ("9.0 GiB", "200 MiB")
