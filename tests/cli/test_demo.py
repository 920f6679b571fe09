"""`mtp-mlx demo`: what it shows is what happened, and texts that differ have an exit code."""

import json
import re

import pytest

from mtp_mlx.api import LLM
from mtp_mlx.cli import demo
from mtp_mlx.cli.demo import Outcome, Round
from mtp_mlx.cli.terminal import tint
from mtp_mlx.embedded import NAMES
from mtp_mlx.reply import Chunk, Token
from tests.api_pairs import loaded, prompt_ids, scripted
from tests.oracle import agreeing


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(demo, "MAX_TOKENS", 12)


def test_both_pairs_are_shown_and_compared(cli):
    answer = cli("demo")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("same text without the drafter: yes\n") == len(NAMES)
    for name in NAMES:
        assert f"{name}, 3 drafts a round, greedy\n> {demo.PROMPTS[name]}\n" in answer.out
    for word in ("drafts accepted", "by position", "tokens a round", "target passes"):
        assert answer.out.count(f"\n{word} ") == len(NAMES)
    assert "\x1b" not in answer.out


def test_json_holds_the_same_facts(cli):
    answer = cli("demo", "--model", "tiny-moe", "--seed", 7, "--num-draft-tokens", 2, "--json")
    assert (answer.code, answer.err) == (0, "")
    (pair,) = answer.body["pairs"]
    assert (pair["model"], pair["same_text"]) == ("tiny-moe", True)
    spec = pair["reply"]["spec"]
    assert pair["reply"]["seed"] == 7
    assert pair["target_forwards_saved"] == pair["plain_target_forwards"] - spec["target_forwards"]
    assert len(spec["per_position"]) <= 2
    step = pair["round"]
    assert step["drafted"] == step["accepted"] + step["rejected"] or not step["bonus"]
    text = cli("demo", "--model", "tiny-moe", "--seed", 7, "--num-draft-tokens", 2).out
    assert f"drafts accepted {spec['accepted']} of {spec['drafted']}\n" in text
    assert re.search(rf"plain {pair['plain_target_forwards']}: -?\d+ saved", text)


def spelled(step: dict, name: str) -> str:
    """A step of the round of --json as it should be printed."""
    return " ".join(json.dumps(token["text"], ensure_ascii=False) for token in step[name])


@pytest.mark.parametrize("name", NAMES)
def test_the_round_is_printed_step_by_step(cli, name):
    (pair,) = cli("demo", "--model", name, "--json").body["pairs"]
    text = cli("demo", "--model", name).out
    step, rounds = pair["round"], pair["reply"]["spec"]["rounds"]
    assert step["drafted"] and step["accepted"]
    assert f"\nround {step['number']} of {rounds}, step by step:\n" in text
    for label in ("drafted", "accepted", "rejected", "bonus"):
        assert f"\n{label:<16}{spelled(step, label)}\n" in text


def test_accepted_drafts_stand_between_marks_or_are_tinted(cli, monkeypatch):
    (pair,) = cli("demo", "--model", "tiny", "--json").body["pairs"]
    text = cli("demo", "--model", "tiny").out
    reply = text.split("\n\n")[1]
    assert reply.replace("‹", "").replace("›", "") == pair["reply"]["text"]
    assert "‹" in reply and "‹like this›: an accepted draft\n" in text
    monkeypatch.setattr(demo, "can_style", lambda: True)
    on, off = tint("|").split("|")
    assert text.replace("‹", on).replace("›", off) == cli("demo", "--model", "tiny").out


@pytest.mark.parametrize("rest", [[], ["--json"]])
def test_texts_that_differ_exit_with_3(cli, monkeypatch, rest):
    chat = LLM.chat

    def worse(llm, messages, **options):
        return chat(llm, [{"role": "user", "content": "something else"}], **options)

    monkeypatch.setattr(LLM, "chat", worse)
    answer = cli("demo", "--model", "tiny", *rest)
    assert answer.code == 3
    if rest:
        assert answer.body["pairs"][0]["same_text"] is False
    else:
        assert answer.out.endswith("same text without the drafter: no\n\n")


@pytest.mark.parametrize("arguments", [["--model", "12b"], ["--num-draft-tokens", "0"], ["sky"]])
def test_wrong_usage_exits_with_2(cli, arguments):
    answer = cli("demo", *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert arguments[-1] in answer.err


def chunk(drafts: tuple[int, ...], accepted: int, own: tuple[int, ...]) -> Chunk:
    ids = (*drafts[:accepted], *own)
    kinds = ["draft"] * accepted + ["target"] * len(own)
    tokens = [Token(i, "", kind, 0) for i, kind in zip(ids, kinds, strict=True)]
    return Chunk("", tuple(tokens), None, drafts)


@pytest.mark.parametrize(
    ("made", "accepted", "rejected", "bonus"),
    [
        (chunk((5, 6, 7), 1, (9,)), (5,), (6, 7), (9,)),
        (chunk((5, 6), 2, (9,)), (5, 6), (), (9,)),
        (chunk((5, 6), 0, (9,)), (), (5, 6), (9,)),
        (chunk((5, 6, 7), 2, ()), (5, 6), (), ()),  # the second ends the reply
        (chunk((), 0, (9,)), (), (), (9,)),
    ],
)
def test_a_round_has_four_steps(made, accepted, rejected, bonus):
    assert Round.of(4, made) == Round(4, made.drafts, accepted, rejected, bonus)


def test_the_round_shown_has_an_accepted_and_a_rejected_draft_if_any_has():
    reply = loaded().generate([2], max_tokens=1)
    first, end = chunk((), 0, (1,)), Chunk("", (), "stop")
    none, some, all_ = (chunk((5, 6), count, (9,)) for count in (0, 1, 2))
    cases = [([none, all_, some, some], 3), ([all_, none], 1), ([chunk((), 0, (9,))], None)]
    for rounds, number in cases:
        step = Outcome([first, *rounds, end], reply, reply).telling_round()
        assert (None if step is None else step.number) == number


def test_rounds_are_those_of_the_reply():
    full = loaded().generate(prompt_ids(), seed=3, max_tokens=16, num_draft_tokens=0)
    llm = scripted([full.token_ids], agreeing(0.7, 2))
    stream = llm.stream(prompt_ids(), seed=3, max_tokens=16, num_draft_tokens=3)
    outcome = Outcome(list(stream), stream.reply, full)
    spec = stream.reply.spec
    assert outcome.is_same
    assert len(outcome.rounds) == spec.rounds
    assert sum(len(step.drafted) for step in outcome.rounds) == spec.drafted
    assert sum(len(step.accepted) for step in outcome.rounds) == spec.accepted
    ids = [i for step in outcome.rounds for i in (*step.accepted, *step.bonus)]
    assert tuple(ids) == full.token_ids[1:]
    for place, (accepted, drafted) in enumerate(
        zip(spec.per_position, spec.drafted_per_position, strict=True)
    ):
        assert drafted == sum(len(step.drafted) > place for step in outcome.rounds)
        assert accepted == sum(len(step.accepted) > place for step in outcome.rounds)
