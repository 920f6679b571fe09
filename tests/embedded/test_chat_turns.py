"""Ten turns of a chat on `tiny`, thinking or not: what is read again, and that no text changes."""

from itertools import takewhile

import pytest

import mtp_mlx
from tests.embedded import held_out

CHUNK, TURNS, WINDOW = 16, 10, 24
SEED = 5
COLD = (6, TURNS)  # turns that are compared with a cold run


def common(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@pytest.mark.parametrize("think", [False, True])
def test_a_turn_runs_what_follows_the_last_border_that_it_shares(think):
    questions = [
        example.last_user_message
        for example in held_out.examples(TURNS, SEED, ["sums", "spelling", "stories"])
    ]
    messages, texts = [{"role": "system", "content": "Be kind and brief."}], []
    options = {"think": think, "seed": SEED, "max_tokens": 30}
    with mtp_mlx.load("tiny", prefill_chunk=CHUNK) as llm:
        for turn, question in enumerate(questions, 1):
            messages.append({"role": "user", "content": question})
            prompt = llm.prompt_ids(messages, think=think)
            warm = llm.chat(messages, **options)
            if turn in COLD:
                cold = llm.chat(messages, cache=False, **options)
                assert (warm.token_ids, warm.text) == (cold.token_ids, cold.text)
            shared = max((common(prompt, text) for text in texts), default=0)
            assert warm.usage.cached_tokens == shared // CHUNK * CHUNK
            # Of a reply all but its last token is in the cache.
            texts.append([*prompt, *warm.token_ids[:-1]])
            messages.append(warm.to_message())
    assert len(prompt) > 3 * WINDOW and warm.usage.cached_tokens > len(prompt) // 2
    assert bool(warm.reasoning) == think
