"""Constraints in the engine: whom they concern, when they are asked, how a reply ends by one."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from mtp_mlx.engine.engine import PREFILL_CHUNK, Engine
from mtp_mlx.errors import RequestError
from mtp_mlx.reference.runtime import NumpyEngine
from mtp_mlx.request import Constraint, Failed, Finished, Request, Sampling, Thinking
from tests.constraints import Steps, words
from tests.exact.pairs import Outcome, golden_pair, golden_twin, oracle_engine, plain, run_together
from tests.golden import recipe
from tests.oracle import agreeing, always

VARIANT = "31b"
LENGTH = 12
VOCAB = 256


def asked(index: int = 0, constraint: Constraint | None = None, **changes) -> Request:
    prompt = tuple(int(token) for token in recipe.prompt(3 + index, 90 + index))
    made = Request(
        prompt=prompt,
        sampling=Sampling(temperature=float(index % 2), seed=index),
        max_tokens=LENGTH,
        constraint=constraint,
    )
    return replace(made, **changes)


@cache
def alone(request: Request) -> Outcome:
    return plain(golden_pair(VARIANT).target, request)


def drafted(request: Request, agreement: float = 1.0, num_drafts: int = 5) -> Outcome:
    """Alone with a drafter that knows the text."""
    target = golden_pair(VARIANT).target
    text = alone(request).ids
    script = agreeing(agreement, 1)
    engine, _ = oracle_engine(target, [text], script, 1, PREFILL_CHUNK)
    return run_together(engine, [replace(request, num_draft_tokens=num_drafts)])[0]


@dataclass
class Faulty:
    """Allows all, until it raises or answers nonsense at a call."""

    fault: str
    calls_left: int

    def masks(self, drafts) -> np.ndarray:
        self.calls_left -= 1
        rows = len(drafts) + 1
        if self.calls_left < 0 and self.fault == "masks":
            raise ZeroDivisionError("the masks broke")
        if self.calls_left < 0 and self.fault == "shape":
            return np.zeros((rows, 3), dtype=np.uint32)
        if self.calls_left < 0 and self.fault == "type":
            return np.zeros((rows, VOCAB // 32), dtype=np.int64)
        return words(np.ones((rows, VOCAB), dtype=bool))

    def take(self, tokens) -> None:
        if self.calls_left < 1 and self.fault == "take":
            raise ZeroDivisionError("the taking broke")


@pytest.mark.parametrize("fault", ["masks", "shape", "type", "take"])
@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("num_drafts", [0, 3])
def test_a_constraint_that_breaks_ends_its_own_reply_alone(fault, calls, num_drafts):
    pair = golden_pair(VARIANT)
    others = [asked(1), asked(2, Steps(2))]
    expected = [alone(other).whole for other in others]
    engine = Engine(pair.target, pair.drafter, max_num_seqs=3)
    requests = (*others, asked(0, Faulty(fault, calls)))
    rows = [replace(row, num_draft_tokens=num_drafts) for row in requests]
    *fine, broken = run_together(engine, rows)
    assert [each.whole for each in fine] == expected
    assert isinstance(broken.end, Failed)
    kind = ZeroDivisionError if fault in ("masks", "take") else ValueError
    assert isinstance(broken.end.error, kind)
    assert bool(broken.ids) == bool(calls)


@pytest.mark.parametrize("num_allowed", [0, 1, 4, 11])
@pytest.mark.parametrize("num_drafts", [0, 1, 5])
def test_where_no_token_is_allowed_the_reply_fails_after_what_was(num_allowed, num_drafts):
    constraint = Steps(2, ends_after=num_allowed)
    found = drafted(asked(1, constraint), num_drafts=num_drafts)
    assert found.ids == alone(asked(1, Steps(2))).ids[:num_allowed]
    assert isinstance(found.end, Failed)
    assert isinstance(found.end.error, RequestError)
    assert f"allows no token after {num_allowed} tokens" in str(found.end.error)


def test_bans_may_leave_nothing_of_what_is_allowed():
    banned = tuple(range(0, VOCAB, 2))
    sampling = Sampling(banned=banned)
    found = drafted(asked(0, Steps(2), sampling=sampling))
    assert len(found.ids) == 1  # odd; an even one must follow
    assert isinstance(found.end, Failed)
    assert "take back the bans" in str(found.end.error)


def test_a_constraint_is_asked_about_the_drafts_and_takes_what_is_kept():
    target = golden_pair(VARIANT).target
    text = alone(asked(1, Steps(2))).ids
    for script, blocks in (
        (always("right"), [4, 4, 3]),  # the last round has 3 tokens left
        (always("wrong"), [4] * 8 + [3, 2, 1]),
    ):
        engine, _ = oracle_engine(target, [text], script, 1, PREFILL_CHUNK)
        constraint = Steps(2)
        request_id = engine.submit(asked(1, constraint, num_draft_tokens=3))
        while not engine.is_idle:
            engine.step()
        assert request_id == 1
        assert constraint.taken == text
        assert [len(drafts) + 1 for drafts in constraint.asked] == [1, *blocks]  # prompt, rounds


@pytest.mark.parametrize("agreement", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("left", [0, 1, 3])
def test_where_a_budget_decides_no_constraint_is_asked(agreement, left):
    """The token that ends the thought fits the constraint or the reply fails; both are a rule of
    the text, whatever the drafts."""
    ended = set()
    for index in range(6):
        rule = Thinking(opens=1, closes=7 + index, left=left, is_open=True)
        request = asked(index, Steps(2), thinking=rule)
        own, found = alone(request), drafted(request, agreement)
        assert found.ids == own.ids
        assert type(found.end) is type(own.end)
        ended.add(type(own.end))
        assert own.ids[left:][:1] in ([], [rule.closes])
    assert ended == ({Finished, Failed} if left else {Finished})


def test_the_twin_takes_constraints_budgets_and_history_as_the_engine_does():
    """Tokens of both forms, of requests that mix all of them."""
    pair, twin = golden_pair(VARIANT), golden_twin(VARIANT)
    rows = []
    for index in range(6):
        sampling = Sampling(
            temperature=(0.0, 3.0)[index % 2],
            seed=index,
            repetition_penalty=(1.0, 1.5, 0.7)[index % 3],
            frequency_penalty=0.4 * (index % 2),
            logit_bias=((index, 2.0),),
            banned=(9, 10),
        )
        constraint = Steps(2 + index % 2) if index % 2 else None
        rows.append(asked(index, constraint, sampling=sampling, logprobs=3, num_draft_tokens=index))
    ours = run_together(Engine(pair.target, pair.drafter, 4), rows)
    theirs = run_together(NumpyEngine(*twin, 4), rows)
    for own, other in zip(ours, theirs, strict=True):
        assert own.ids == other.ids
        for mine, its in zip(own.logprobs, other.logprobs, strict=True):
            assert abs(mine.logprob - its.logprob) < 1e-3
