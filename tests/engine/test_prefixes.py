"""Requests take up what earlier texts left: only what follows is run, and no bit of it differs."""

import random
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import pytest

from mtp_mlx.engine import engine as engine_module
from mtp_mlx.engine import round
from mtp_mlx.engine.engine import PREFILL_CHUNK, Airborne, Engine
from mtp_mlx.engine.invariants import check_invariants
from mtp_mlx.engine.memory import Memory
from mtp_mlx.model import backend
from mtp_mlx.request import CacheUse, Request, Sampling, Tokens
from tests.exact.pairs import Outcome, Pair, Run, embedded_pair, golden_pair, plain
from tests.golden import recipe

CHUNK = 16
WINDOW = 24  # of the embedded pairs; their rings hold 32 positions
CHEAP = "31b"  # a golden pair with a window of 8
PLENTY = 1 << 30
WARM = Sampling(temperature=0.8, seed=7)


def make(pair: Pair, slots: int = 2, kept: int = PLENTY, budget: int | None = None) -> Engine:
    engine = Engine(pair.target, pair.drafter, slots, CHUNK, budget)
    engine.keep_prompts(kept)
    return engine


def words(seed: int, length: int, vocab: int = 250) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(110, vocab) for _ in range(length))


def ask(prompt: Sequence[int], new: int = 6, **options) -> Request:
    chosen = {"sampling": Sampling(), "num_draft_tokens": 3} | options
    return Request(prompt=tuple(prompt), max_tokens=new, **chosen)


def reply(run: Run, request: Request) -> Outcome:
    """A request run to its end, alone or with what is there."""
    number = run.submit(request)
    while run.outcomes[number].end is None:
        run.step()
        check_invariants(run.engine)
    return run.outcomes[number]


def use_of(outcome: Outcome) -> CacheUse:
    use = outcome.rounds[0].cache_use
    assert use is not None and all(each.cache_use is None for each in outcome.rounds[1:])
    return use


def common(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))


@pytest.mark.parametrize(
    ("name", "drafts", "sampling", "thinks"),
    [
        ("tiny", 3, WARM, True),
        ("tiny", 0, Sampling(), False),
        pytest.param("tiny-moe", 7, Sampling(), True, marks=pytest.mark.slow),
        pytest.param("tiny-moe", 3, WARM, False, marks=pytest.mark.slow),
    ],
)
def test_every_turn_of_a_long_chat_runs_what_follows_the_last_border(
    name, drafts, sampling, thinks
):
    """Where it thinks, the next prompt leaves the thought out, as Gemma's templates do."""
    pair = embedded_pair(name)
    run = Run(make(pair))
    history, earlier = (2, *words(0, 20)), list[Sequence[int]]()
    prefilled = []
    for turn in range(10):
        request = ask(history + words(turn + 1, 9), 16, sampling=sampling, num_draft_tokens=drafts)
        seen = reply(run, request)
        shared = max((common(request.prompt, text) for text in earlier), default=0)
        assert use_of(seen).cached_tokens == shared // CHUNK * CHUNK
        prefilled.append(len(request.prompt) - use_of(seen).cached_tokens)
        if turn in (4, 9):
            assert seen.text == plain(pair.target, request, PREFILL_CHUNK).text
        earlier.append((*request.prompt, *seen.ids[:-1]))  # its last token was never run
        history = (*request.prompt, *seen.ids[5 if thinks else 0 :])
    assert len(request.prompt) > 3 * WINDOW
    assert max(prefilled[1:]) < 3 * CHUNK, prefilled


VARIANTS = [
    pytest.param(name, marks=() if name in ("e2b", "26b") else pytest.mark.slow)
    for name in recipe.VARIANTS
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_state_after_a_prompt_that_was_taken_up_is_that_of_a_cold_run(variant):
    """The state is what the drafter begins with, and what the first token is chosen from."""
    pair = golden_pair(variant)
    run = Run(make(pair))
    first = ask([2, *words(1, 40)], 30)
    text = [*first.prompt, *reply(run, first).ids]
    request = ask([*text[:-5], *words(2, 3)], 30)
    states, logits = [], []
    for engine in (run.engine, Engine(pair.target, pair.drafter, 1)):
        starting = Run(engine)
        number = starting.submit(request)
        while not starting.outcomes[number].ids:
            starting.step()
        hidden = engine.sequences[0].hidden
        assert hidden is not None
        states.append(hidden)
        logits.append(pair.target.logits(hidden[None]))
        starting.finish()
        assert starting.outcomes[number].text == plain(pair.target, request).text
        cached = use_of(starting.outcomes[number]).cached_tokens
        assert cached == (64 if engine is run.engine else 0)
    assert mx.array_equal(*states) and mx.array_equal(*logits)


@pytest.mark.parametrize("at", [5, CHUNK - 1, CHUNK, CHUNK + 1, 50])
def test_a_text_that_parts_earlier_is_taken_up_before_it_does(at):
    pair = golden_pair(CHEAP)
    run = Run(make(pair))
    prompt = (2, *words(3, 70))
    reply(run, ask(prompt))
    request = ask((*prompt[:at], *words(4, 30)))
    seen = reply(run, request)
    assert use_of(seen).cached_tokens == at // CHUNK * CHUNK
    assert seen.text == plain(pair.target, request).text
    if at < CHUNK:
        assert f"differs at token {at} " in (use_of(seen).miss_reason or "")


@pytest.mark.parametrize("length", [CHUNK, 2 * CHUNK, 5 * CHUNK])
def test_of_a_prompt_that_is_there_to_its_end_only_the_last_token_runs(length):
    pair = golden_pair(CHEAP)
    run = Run(make(pair))
    request = ask((2, *words(5, length - 1)), 8)
    first, second = reply(run, request), reply(run, request)
    assert use_of(first).cached_tokens == 0
    assert use_of(second).cached_tokens == length - 1
    assert first.text == second.text == plain(pair.target, request).text


def test_requests_that_come_together_share_their_system_prompt():
    pair = golden_pair(CHEAP)
    run = Run(make(pair, slots=4))
    system = (2, *words(6, 2 * WINDOW))
    requests = [
        ask((*system, *words(10 + index, 5 + index)), 12, sampling=sampling)
        for index, sampling in enumerate((Sampling(), WARM, Sampling(), WARM))
    ]
    numbers = [run.submit(request) for request in requests]
    run.finish()
    for number, request in zip(numbers, requests, strict=True):
        seen = run.outcomes[number]
        assert seen.text == plain(pair.target, request).text
        expected = 0 if number == numbers[0] else len(system) // CHUNK * CHUNK
        assert use_of(seen).cached_tokens == expected
    stats = run.engine.stats()
    assert stats.prompt_tokens == sum(len(request.prompt) for request in requests)
    assert stats.cached_tokens == 3 * (len(system) // CHUNK * CHUNK)


def test_a_request_that_asks_for_it_neither_reads_nor_leaves_anything():
    run = Run(make(golden_pair(CHEAP)))
    request = ask((2, *words(7, 60)), 10, cache=False)
    for _ in range(2):
        seen = reply(run, request)
        assert use_of(seen) == CacheUse(
            0, "off: the request asked for no prompt cache (cache=False)"
        )
    assert run.engine.stats().prompt_cache_bytes == 0
    reply(run, replace(request, cache=True))
    assert use_of(reply(run, request)).cached_tokens == 0


def test_an_engine_that_keeps_nothing_says_so():
    run = Run(make(golden_pair(CHEAP), kept=0))
    for _ in range(2):
        use = use_of(reply(run, ask((2, *words(7, 60)))))
        assert use.cached_tokens == 0 and "off" in (use.miss_reason or "")


@pytest.mark.parametrize("sampling", [Sampling(), WARM])
def test_a_cancelled_reply_leaves_its_committed_tokens_alone(sampling):
    pair = golden_pair(CHEAP)
    run = Run(make(pair))
    request = ask((2, *words(8, 20)), 200, sampling=sampling, num_draft_tokens=0)
    number = run.submit(request)
    while len(run.outcomes[number].ids) < 63:
        run.step()
    assert isinstance(run.engine._air, Airborne)  # a round is in the air
    run.cancel(number)
    written = (*request.prompt, *run.outcomes[number].ids)
    texts = [ids for ids, _, _ in run.engine.prefixes.borders.texts()]
    assert max(map(len, texts)) == (len(written) - 1) // CHUNK * CHUNK
    assert all(ids == written[: len(ids)] for ids in texts)
    following = ask((*written, *words(9, 4)), 12)
    seen = reply(run, following)
    assert seen.text == plain(pair.target, following).text
    assert use_of(seen).cached_tokens == len(written) // CHUNK * CHUNK


def test_a_prompt_with_nan_in_it_is_not_kept():
    pair = golden_pair("e2b")
    run = Run(make(pair))
    poisoned = pair.target.layers[1].post_feedforward_layernorm
    original = poisoned.weight
    try:
        poisoned.weight = original * mx.nan
        number = run.submit(ask((2, *words(1, 40))))
        run.finish()
        assert not run.outcomes[number].ids
    finally:
        poisoned.weight = original
    assert run.engine.stats().prompt_cache_bytes == 0


# --- memory --------------------------------------------------------------------------------------


def cost(pair: Pair, slots: int, tokens: int) -> tuple[int, int]:
    """Bytes of an engine's rings, and of a row of so many tokens."""
    ledger = Memory(pair.target.config.layers, pair.target.dtype.size, slots, None)
    return ledger.rings, ledger.cost(tokens)


def test_kept_texts_make_way_before_a_request_waits():
    pair = golden_pair(CHEAP)
    rings, row = cost(pair, 2, 200 + 8)
    run = Run(make(pair, budget=rings + 2 * row))
    for seed in range(4):
        reply(run, ask((2, *words(seed, 150)), 3))
    assert run.engine.memory.kept > 0
    numbers = [run.submit(ask((2, *words(seed, 190)), 10)) for seed in (20, 21)]
    run.step()
    assert not run.engine.waiting, "a request waits for texts that nobody reads"
    while not run.engine.is_idle:
        run.step()
        check_invariants(run.engine)
    for seed, number in zip((20, 21), numbers, strict=True):
        expected = plain(pair.target, ask((2, *words(seed, 190)), 10))
        assert run.outcomes[number].text == expected.text


def test_what_a_request_may_take_up_itself_makes_way_last():
    pair = golden_pair(CHEAP)
    rings, row = cost(pair, 1, 200 + 8)
    prompts = [(2, *words(seed, 150)) for seed in range(3)]
    run = Run(make(pair, slots=1, kept=PLENTY, budget=rings + 2 * row))
    for prompt in prompts:
        reply(run, ask(prompt, 3))
    oldest = next(p for p in prompts if run.engine.prefixes.borders.find(p).border)
    for prompt in prompts:
        if prompt != oldest:
            run.engine.prefixes.borders.find(prompt)
    assert use_of(reply(run, ask((*oldest, *words(9, 40)), 9))).cached_tokens > 0


def test_a_text_that_was_dropped_is_named_as_such():
    pair = golden_pair(CHEAP)
    prompts = [(2, *words(seed, 40)) for seed in range(6)]
    everything = Run(make(pair))
    reply(everything, ask(prompts[0]))
    run = Run(make(pair, kept=2 * everything.engine.memory.kept))
    for prompt in prompts:
        reply(run, ask(prompt))
    seen = reply(run, ask(prompts[0]))
    assert use_of(seen).cached_tokens == 0
    assert "evicted" in (use_of(seen).miss_reason or "")
    assert use_of(reply(run, ask(prompts[0]))).cached_tokens == 32


# --- the round -----------------------------------------------------------------------------------


@pytest.mark.parametrize("drafts", [0, 3])
def test_keeping_a_reply_waits_for_nothing_in_a_round(monkeypatch, drafts):
    pair = golden_pair(CHEAP)
    run = Run(make(pair, slots=3))
    counts = {"reads": 0, "evals": 0, "rounds": 0, "in a round": 0}

    def counted(what, function):
        def counting(*arguments):
            counts[what] += 1
            return function(*arguments)

        return counting

    monkeypatch.setattr(round, "read_ints", counted("reads", backend.read_ints))
    monkeypatch.setattr(engine_module, "land", counted("rounds", round.land))
    monkeypatch.setattr(mx, "eval", counted("evals", mx.eval))
    monkeypatch.setattr(mx, "synchronize", counted("evals", mx.synchronize))
    one_round = run.engine._round

    def watched():
        before = counts["evals"]
        events = one_round()
        counts["in a round"] += counts["evals"] - before
        return events

    monkeypatch.setattr(run.engine, "_round", watched)
    for seed in range(3):
        run.submit(ask((2, *words(seed, 10)), 60, num_draft_tokens=drafts))
    ids = [event for _ in range(120) for event in run.step() if isinstance(event, Tokens)]
    assert run.engine.is_idle and ids
    assert counts["reads"] == counts["rounds"] > 3  # the first token of each prompt lands too
    assert counts["in a round"] == 0
    kept = [text for text, _, _ in run.engine.prefixes.borders.texts()]
    assert len(kept) == 3 * (70 // CHUNK)
