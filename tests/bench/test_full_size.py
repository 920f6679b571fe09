"""Random models of the published shapes write the prescribed text, and their rounds are timed."""

import json
import sys
import weakref
from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import pytest

from bench import full_size
from bench.full_size import Plan, Subject, measure, show, timed, too_large
from bench.models import Choice, configs
from bench.random_models import successor
from mtp_mlx.config import DrafterConfig, TargetConfig

PLAN = Plan((2,), (40,), (3,), (1, 3), agreement=1.0, rounds=4, repeats=1)


def small(size: str) -> tuple[TargetConfig, DrafterConfig]:
    """Two layers of a shrunken pair whose layers all own their K/V: a sliding and a full one."""
    target, drafter = configs(Choice(size, shrink=64))
    last = enumerate(target.layers[-2:])
    layers = tuple(replace(each, index=index, reads_from=index) for index, each in last)
    donors = {layer.kind: layer.index for layer in layers}
    target = replace(target, layers=layers, donors=donors)
    return target, drafter.paired_with(target)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(*small("26b"), mx.float32)


def test_the_text_is_the_prescribed_one(subject):
    engine = subject.engine(2, 40, 3, PLAN, seed=0)
    for _ in range(3):
        engine.step()
    vocab = subject.target.config.vocab_size
    for sequence in engine.sequences:
        text = sequence.tokens[40:]
        assert len(text) > 3
        assert all(b == successor(a, vocab) for a, b in pairwise(text))


@pytest.mark.parametrize(("agreement", "accepted"), [(1.0, 3), (0.0, 0)])
def test_drafts_are_as_right_as_their_script(subject, agreement, accepted):
    plan = replace(PLAN, agreement=agreement)
    found = timed(subject.engine(2, 40, 3, plan, seed=0), 4)
    assert (found["drafted"], found["accepted"]) == (3, accepted)
    assert found["tokens_per_s"] == pytest.approx(2 * (1 + accepted) / found["ms"] * 1e3)


def test_a_centroid_head_proposes_what_its_script_says():
    target, drafter = configs(Choice("e2b", shrink=64))
    subject = Subject(target, drafter, mx.float32)
    assert timed(subject.engine(1, 40, 3, PLAN, seed=0), 2)["accepted"] == 3


def test_the_smallest_run(subject, monkeypatch, capsys):
    monkeypatch.setattr(full_size, "LOAD_BUDGET_S", 0.0)
    monkeypatch.setattr(full_size, "LOAD_REPEATS", 1)
    monkeypatch.setattr(full_size, "LEARN_ROUNDS", 4)
    forwards, rounds = measure(subject, PLAN)
    assert [line["each"] for line in forwards] == [1, 3]
    assert [line["drafts"] for line in rounds] == [0, "auto", 3]
    assert all(line["ms"] > 0 and 8 <= line["experts"] <= 128 for line in forwards)
    plain, auto, fixed = rounds
    assert (plain["accepted"], fixed["accepted"]) == (0, 3)
    assert auto["decision"]
    show("toy", forwards, rounds)
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(forwards) + len(rounds)


def test_the_engine_before_is_gone_when_the_next_is_made(subject, monkeypatch):
    """Two at once would hold their K/V twice, which at full size no machine was asked for."""
    monkeypatch.setattr(full_size, "LEARN_ROUNDS", 4)
    engine_at, made = full_size.engine_at, []

    def counted(*given):
        assert [each for each in made if each() is not None] == []
        engine = engine_at(*given)
        made.append(weakref.ref(engine))
        return engine

    calibration = subject.calibrate(1)
    monkeypatch.setattr(full_size, "engine_at", counted)
    full_size.round_lines(subject, 1, 40, replace(PLAN, drafts=(1,), repeats=2), calibration)
    assert len(made) == 2 * 3 + 1


def test_a_machine_that_is_too_small_is_refused_before_anything_is_drawn(monkeypatch, capsys):
    both = configs(Choice("26b"))
    assert too_large(both, Plan(), 2, limit=64 << 30) is None
    monkeypatch.setattr(full_size, "limit_here", lambda _: 8 << 30)
    monkeypatch.setattr(full_size, "Subject", lambda *_: pytest.fail("it has begun"))
    monkeypatch.setattr(sys, "argv", ["full_size", "--pair", "26b"])
    with pytest.raises(SystemExit) as left:
        full_size.main()
    said = capsys.readouterr()
    assert (left.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "8.59 GB are there" in said.err and "--shrink" in said.err


@pytest.mark.parametrize("option", ["--shrink=0", "--drafts=0", "--agreement=1.5", "--batches=0"])
def test_what_cannot_be_timed_is_refused_in_one_line(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["full_size", option])
    with pytest.raises(SystemExit) as left:
        full_size.main()
    said = capsys.readouterr()
    assert (left.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert option.split("=")[0] in said.err


def test_quick_gives_way_to_what_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["full_size", "--quick", "--batches", "2", "8"])
    assert full_size._parse() == (Choice("12b"), replace(full_size.QUICK, batches=[2, 8]))


def test_the_output_says_that_it_is_shrunken(subject, monkeypatch, capsys):
    forward = {"rows": 1, "each": 1, "context": 8, "ms": 2.0, "experts": None}
    monkeypatch.setattr(full_size, "Subject", lambda *_: subject)
    monkeypatch.setattr(full_size, "measure", lambda *_: ([forward], []))
    monkeypatch.setattr(sys, "argv", ["full_size", "--pair", "12b", "--shrink", "64", "--quick"])
    full_size.main()
    first, *_, last = capsys.readouterr().out.splitlines()
    assert "SHRUNKEN by 64" in first and json.loads(last)["shrink"] == 64
