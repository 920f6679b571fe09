"""E26: the history of a place is the tokens before it and the drafts in front of it, no others.

The scripted pair writes text by a table, so that a plain loop here says what it must be: without
forward, cache or rounds.
"""

from dataclasses import replace

import numpy as np
import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.request import Request, Sampling
from tests.constraints import Steps, copied
from tests.law.scripted import (
    VOCAB_SIZE,
    ScriptedDrafter,
    ScriptedTarget,
    draft_table,
    make_engine,
    serve,
    target_table,
)

# Every token likes to come again, so that penalties on the last one decide.
TABLE = target_table(5) + np.float32(2.5) * np.eye(VOCAB_SIZE, dtype=np.float32)
LENGTH = 24
ROWS = 8
KINDS = ("equal", "close", "poor", "disjoint")


def requests(num_drafts: int) -> list[Request]:
    """Greedy rows whose texts would run in circles without penalties; of all kinds."""
    made = []
    for index in range(ROWS):
        sampling = Sampling(
            repetition_penalty=(1.0, 1.4, 0.6, 1.1)[index % 4],
            presence_penalty=(0.0, 0.8, -0.5, 0.3)[index // 2 % 4],
            frequency_penalty=(0.35, 0.0, 0.0)[index % 3],
            logit_bias=((index, 1.5), (15, -1.0)) if index % 2 else (),
            banned=(3,) if index % 4 == 1 else (),
        )
        prompt = (index % 5, 7, 7, index)
        made.append(Request(prompt=prompt, sampling=sampling, max_tokens=LENGTH,
                            num_draft_tokens=num_drafts))  # fmt: skip
    return made


def written(request: Request) -> list[int]:
    """The text of a greedy request by its definition, in float32 as the model's scores are."""
    sampling, text = request.sampling, list(request.prompt)
    while len(text) < len(request.prompt) + request.max_tokens:
        scores = TABLE[text[-1]].copy()
        reply = text[len(request.prompt) :]
        for token, bias in sampling.logit_bias:
            scores[token] += np.float32(bias)
        for token in set(text):
            strength = np.float32(sampling.repetition_penalty)
            scores[token] = (
                scores[token] / strength if scores[token] > 0 else scores[token] * strength
            )
        for token in set(reply):
            scores[token] -= np.float32(sampling.frequency_penalty) * np.float32(reply.count(token))
            scores[token] -= np.float32(sampling.presence_penalty)
        scores[list(sampling.banned)] = -np.inf
        text.append(int(scores.argmax()))
    return text[len(request.prompt) :]


def pair(kind: str | None, num_slots: int = ROWS) -> Engine:
    table = None if kind is None else draft_table(kind, TABLE, Sampling(temperature=1.0, top_k=4))
    drafter = None if table is None else ScriptedDrafter(table)
    return make_engine(ScriptedTarget(TABLE), drafter, num_slots)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_drafts", [1, 3, 7])
def test_penalties_count_kept_tokens_and_the_drafts_in_front(kind: str, num_drafts: int) -> None:
    asked = requests(num_drafts)
    replies = serve(pair(kind, 5), asked)
    assert [reply.ids for reply in replies] == [written(request) for request in asked]
    rounds = [each for reply in replies for each in reply.rounds]
    drafted, accepted = (sum(each[place] for each in rounds) for place in (0, 1))
    assert drafted > 0
    if kind == "equal":  # the drafter counts too: what it is not told, it would get wrong
        assert accepted == drafted
    elif kind != "disjoint":
        assert 0 < accepted < drafted


def test_plain_rounds_do_not_run_ahead_of_a_history() -> None:
    asked = requests(0)
    assert [reply.ids for reply in serve(pair(None), asked)] == list(map(written, asked))


def test_the_penalties_of_these_rows_matter() -> None:
    """Else the tests above would pass with penalties that do nothing."""
    bare = [replace(request, sampling=Sampling()) for request in requests(0)]
    pairs = zip(requests(0), bare, strict=True)
    differing = [written(one) != written(other) for one, other in pairs]
    assert sum(differing) >= ROWS // 2


def steps(num_drafts: int, seed: int) -> list[Request]:
    """Constrained rows of all kinds beside free ones."""
    made = requests(num_drafts)
    return [
        replace(
            request,
            sampling=replace(request.sampling, temperature=float(index % 2), seed=seed + index),
            constraint=Steps(2 + index % 2, VOCAB_SIZE) if index % 4 else None,
        )
        for index, request in enumerate(made)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_that_of_its_place(kind: str) -> None:
    """Each place is asked with the drafts in front of it, whatever becomes of those behind."""
    plain = serve(pair(None), [copied(request) for request in steps(0, 3)])
    for num_drafts in (1, 4, 7):
        asked = [copied(request) for request in steps(num_drafts, 3)]
        replies = serve(pair(kind, 5), asked)
        for reply, own, request in zip(replies, plain, asked, strict=True):
            assert reply.ids == own.ids
            if isinstance(request.constraint, Steps):
                assert request.constraint.taken == reply.ids
                pairs = zip(reply.ids, reply.ids[1:], strict=False)
                assert all((two - one - 1) % request.constraint.modulus == 0 for one, two in pairs)
