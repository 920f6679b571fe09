"""Which query position suits a drafter: a scripted one is found out, a real one counted by hand."""

import mlx.core as mx
import numpy as np
import pytest

from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.forced import drafts
from mtp_mlx.engine.positions import BACKS, DEPTH, compare
from mtp_mlx.measured import PositionScore
from mtp_mlx.model.head import Logits
from mtp_mlx.request import Request, Sampling
from mtp_mlx.verdict import Text
from tests.exact.pairs import embedded_pair, golden_pair, run_together

CHUNK = 16
TEXTS = [
    Text((5, 6, 7, 8, 9, 10, 11, 12), 3),
    Text((20, 21, 22), 2),  # one reply token: no draft of it can be judged
    Text(tuple(range(30, 50)), 1),
]
WRONG = 3


class Scripted:
    """Drafts the texts' own tokens from position `length - back`, `right` of them a burst, and
    nonsense from elsewhere; wants what the last call of a burst gave as the next one's state."""

    def __init__(self, back: int, right: int, vocab_size: int) -> None:
        self.back, self.right, self.vocab_size = back, right, vocab_size
        self.views: dict[int, int] = {}  # id of a view -> steps from it
        self.held: list[object] = []

    def step(self, embedded, hidden, view):
        depth = self.views.get(id(view), 0)
        self.views[id(view)] = depth + 1
        self.held.append(view)  # an id is that of one view only
        scores = np.zeros((len(view.rows), self.vocab_size), np.float32)
        for row, position in enumerate(np.array(view.positions)):
            slot, length = view.rows[row].slot, view.rows[row].end
            place = length + 1 + depth
            ids = TEXTS[slot].ids
            knows = position == length - self.back and depth < self.right and place < len(ids)
            scores[row, ids[place] if knows else WRONG] = 1.0
        return Logits(mx.array(scores)), hidden


def quiet(message: str) -> None:
    """No progress."""


@pytest.mark.parametrize("back", BACKS)
def test_the_position_a_drafter_wants_is_found(back):
    target = golden_pair("31b").target
    scripted = Scripted(back, 2, target.config.vocab_size)
    scores = compare(target, scripted, TEXTS, 3, CHUNK, quiet)
    assert [score.back for score in scores] == list(BACKS)
    good = scores[back]
    # Bursts after reply tokens 3..6 of the first text, and 1..18 of the third.
    assert good.drafted == (4 + 18, 3 + 17, 2 + 16, 0)
    assert good.accepted == (4 + 18, 3 + 17, 0, 0)
    assert good.tokens_per_round == 3
    bad = scores[1 - back]
    assert (bad.drafted, bad.accepted) == ((22, 0, 0, 0), (0, 0, 0, 0))
    assert bad.tokens_per_round == 1


def test_what_is_counted_is_what_the_drafter_says_to_each_prefix():
    pair = embedded_pair("tiny")
    prompts = [(2, 40, 41, 42, 43, 44), (2, 60, 61, 62, 63, 64, 65, 66, 67)]
    requests = [
        Request(prompt=prompt, sampling=Sampling(), max_tokens=6, num_draft_tokens=0)
        for prompt in prompts
    ]
    outcomes = run_together(Engine(pair.target, None, 2), requests)
    texts = [
        Text((*prompt, *outcome.ids), len(prompt))
        for prompt, outcome in zip(prompts, outcomes, strict=True)
    ]
    drafted, accepted = [0] * DEPTH, [0] * DEPTH
    for text in texts:
        for end in range(text.start + 1, len(text.ids)):
            burst = drafts(pair.target, pair.drafter, text.ids[:end], DEPTH, CHUNK)
            for depth, (draft, token) in enumerate(zip(burst, text.ids[end:], strict=False)):
                drafted[depth] += 1
                if draft != token:
                    break
                accepted[depth] += 1
    seen = compare(pair.target, pair.drafter, texts, 1, CHUNK, quiet)[0]
    assert (seen.back, seen.drafted, seen.accepted) == (0, tuple(drafted), tuple(accepted))
    assert seen.accepted[0] > 0


def test_nothing_to_judge_is_no_error():
    target = golden_pair("31b").target
    score = compare(target, Scripted(0, 2, 9), TEXTS[1:2], 8, CHUNK, quiet)[0]
    assert (score.drafted, score.tokens_per_round) == ((0,) * DEPTH, 1.0)


def test_a_score_says_how_long_a_round_is():
    score = PositionScore(1, (10, 8, 4, 0), (8, 4, 0, 0))
    assert score.tokens_per_round == pytest.approx(1 + 0.8 + 0.4)
    assert score.name == "length - 1"
    assert score.to_json() == {
        "position": "length - 1",
        "tokens_per_round": score.tokens_per_round,
        "back": 1,
        "drafted": (10, 8, 4, 0),
        "accepted": (8, 4, 0, 0),
    }
    assert PositionScore(0, (1,), (1,)).name == "length"
