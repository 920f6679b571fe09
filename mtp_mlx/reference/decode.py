"""Speculative decoding of one sequence, in plain loops: the specification of the engine.

The *target* writes the text; a small *drafter* guesses ahead, so that one forward of the target
can settle several tokens at once. At any time

    text     t_0 ... t_{n-1}   t_n           prompt and reply so far
    cache    t_0 ... t_{n-1}                 K/V of the n committed tokens
    seed                       t_n, hidden   the pending token, and the target's hidden state at n-1

and one round does four things:

1. Propose. From the seed the drafter guesses d_1 ... d_k, one after another.
2. Verify. One target forward over t_n, d_1 ... d_k at positions n ... n+k. Its output i says which
   token the target itself chooses for position n+i+1, given that the drafts before are right.
3. Accept. The drafts stay as long as they are what the target chooses. At the first that is not,
   the target's own token takes its place; if all are, the target's next token comes on top. A stop
   token, or the caller, may end the reply on the way: what follows is dropped.
4. Commit. t_n and the drafts kept are now part of the cache, the last token emitted is pending, and
   the hidden state from which it was chosen becomes the seed. Rejected drafts were written behind
   the new length, where nothing sees them; nothing has to be undone.

A token is chosen from logits with noise that depends on its position and the seed of the request
alone (`choose`). Both models draw the same noise, and each kept token is the target's choice given
the text before it: the reply is that of `plain_decode`, whatever the drafter proposes. In a thought
whose budget is spent the choice is the token that ends it (`Thinking`): a rule of the text alone.
So are penalties and a constraint: the history of a token is the text before it, the drafts that
were kept among it, whatever else was proposed.
Leviathan et al. 2023 (arXiv 2211.17192), with matching in place of weighing: Daliri et al. 2024
(arXiv 2408.07978).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mtp_mlx.errors import NumericalError
from mtp_mlx.reference.batch import Batch, Row
from mtp_mlx.reference.cache import Cache
from mtp_mlx.reference.choose import Choice, choose
from mtp_mlx.reference.drafter import Drafts
from mtp_mlx.reference.head import Logits
from mtp_mlx.reference.logprobs import log_probabilities
from mtp_mlx.reference.processors import Processors, allow, biases, counts, process
from mtp_mlx.reference.target import Target
from mtp_mlx.reference.view import draft_view
from mtp_mlx.request import (
    AUTO_DRAFT_TOKENS,
    NO_BUDGET,
    Logprob,
    Origin,
    Request,
    Sampling,
    Thinking,
    check_request,
    check_token_ids,
    nothing_allowed,
)

# Prompt tokens in one forward where the caller has no wish.
CHUNK = 256
GREEDY = Sampling()
SLOT = 0  # the only row of the cache


@dataclass(frozen=True)
class Round:
    """Tokens emitted by one round, or by the prefill; the fields are those of `request.Tokens`."""

    ids: tuple[int, ...]
    origins: tuple[Origin, ...]
    drafts: tuple[int, ...]
    accepted: int
    logprobs: tuple[Logprob, ...] = ()
    prompt_logprobs: tuple[Logprob | None, ...] = ()

    @property
    def drafted(self) -> int:
        return len(self.drafts)


@dataclass(frozen=True)
class Past:
    """What penalties count: the tokens of the prompt, and those of the reply so far."""

    prompt: tuple[int, ...] = ()
    reply: tuple[int, ...] = ()

    def after(self, *tokens: int) -> "Past":
        """The same with more tokens of the reply."""
        return Past(self.prompt, self.reply + tokens)


@dataclass(frozen=True)
class Seed:
    """What a round starts from: the pending token, the hidden state [D] of the one before, where
    the reply stands with its budget of thinking, and the past, the pending token included."""

    token: int
    hidden: np.ndarray
    thinking: Thinking = NO_BUDGET
    past: Past = Past()


def plain_decode(
    target: Target,
    prompt: Sequence[int],
    sampling: Sampling,
    max_tokens: int,
    stop_ids: frozenset[int] = frozenset(),
    *,
    chunk: int = CHUNK,
) -> list[int]:
    """The reply, one forward of the target for each token: what speculation must reproduce, where
    there is neither a budget of thinking nor a constraint."""
    asked = Request(
        prompt=tuple(prompt), sampling=sampling, max_tokens=max_tokens, stop_ids=stop_ids
    )
    limit = _token_limit(target, asked)
    cache = target.new_cache(1, 1)
    hidden = prefill(target, cache, prompt, chunk)[-1]
    past = Past(asked.prompt)
    while True:
        token, _ = choose_token(target, hidden, asked, past, NO_BUDGET)
        past = past.after(token)
        if token in stop_ids or len(past.reply) == limit:
            return list(past.reply)
        hidden = forward(target, cache, [token])[0]
        cache.commit(SLOT, 1)


def speculative_decode(
    target: Target, drafter: Drafts | None, request: Request, *, chunk: int
) -> Iterator[Round]:
    """The prefill's token, then one Round after another until the reply ends.

    Raises RequestError for a request that cannot be served, and NumericalError in the round in
    which the target's output for a token to be emitted is not finite.
    """
    limit = _token_limit(target, request)
    asked = request.num_draft_tokens
    depth = AUTO_DRAFT_TOKENS if asked is None else asked  # there is no policy here
    cache = target.new_cache(1, depth + 1)
    states = prefill(target, cache, request.prompt, chunk)
    past = Past(request.prompt)
    token, score = choose_token(target, states[-1], request, past, request.thinking)
    seed = Seed(token, states[-1], request.thinking.after(token), past.after(token))
    emitted, is_over = 1, _ends(request, token)
    yield Round(
        (token,), ("prefill",), (), 0, scores_of([score]), score_prompt(target, states, request)
    )
    while not is_over and emitted < limit:
        most = min(depth, limit - emitted - 1)
        drafts: list[int] = []
        if drafter is not None and most:
            drafts = draft(target, drafter, cache, seed, most, request.sampling)
        done, seed, is_over = verify(target, cache, seed, drafts, request)
        emitted += len(done.ids)
        yield done


def prefill(target: Target, cache: Cache, ids: Sequence[int], chunk: int) -> np.ndarray:
    """Commit `ids` to the empty cache, `chunk` tokens a forward; their hidden states [L, D]."""
    hidden = []
    for start in range(0, len(ids), chunk):
        piece = list(ids[start : start + chunk])
        hidden.append(forward(target, cache, piece, is_chunk=True))
        cache.commit(SLOT, len(piece))
    return np.concatenate(hidden)


def forward(
    target: Target, cache: Cache, ids: Sequence[int], *, is_chunk: bool = False
) -> np.ndarray:
    """Hidden states [T, D] of `ids` behind the committed tokens; their K/V are provisional."""
    rows = (Row(SLOT, cache.lengths[SLOT], len(ids)),)
    return target(Batch.of(rows, np.array(ids, dtype=np.int32), is_chunk=is_chunk), cache)


def draft(
    target: Target, drafter: Drafts, cache: Cache, seed: Seed, count: int, sampling: Sampling
) -> list[int]:
    """Step 1: `count` guesses for the tokens after the pending one.

    All steps look from one position and see the committed K/V; only the token and the drafter's own
    hidden state move on. Bias and penalties are those of the target, and make the drafter agree
    with it more often; a constraint is for the target alone.
    """
    view = draft_view(cache, (SLOT,))
    token, hidden, past = seed.token, seed.hidden[None], seed.past  # [1, D]
    guesses = []
    for step in range(count):
        embedded = target.embed(np.array([token]))
        scores, hidden = drafter.step(embedded, hidden, view)
        scores = processed(scores, sampling, past, target.config.vocab_size)
        position = cache.lengths[SLOT] + step + 1
        token = int(choose(scores, Choice([sampling], [position]))[0])
        past = past.after(token)
        guesses.append(token)
    return guesses


def verify(
    target: Target, cache: Cache, seed: Seed, drafts: list[int], request: Request
) -> tuple[Round, Seed, bool]:
    """Steps 2 to 4: what the round emits, the next seed, and whether the reply ends with it."""
    hidden = forward(target, cache, [seed.token, *drafts])  # [1 + drafts, D]
    kept: list[int] = []
    origins: list[Origin] = []
    scores: list[Logprob | None] = []
    is_over, thinking, past = False, seed.thinking, seed.past
    for index in range(len(drafts) + 1):
        token, score = choose_token(target, hidden[index], request, past, thinking)
        thinking, past = thinking.after(token), past.after(token)
        is_match = index < len(drafts) and drafts[index] == token
        kept.append(token)
        origins.append("draft" if is_match else "target" if drafts else "plain")
        scores.append(score)
        is_over = _ends(request, token)
        if is_over or not is_match:
            break
    cache.commit(SLOT, len(kept))  # the pending token and all kept ones but the last
    accepted = origins.count("draft")
    done = Round(tuple(kept), tuple(origins), tuple(drafts), accepted, scores_of(scores))
    return done, Seed(kept[-1], hidden[len(kept) - 1], thinking, past), is_over


def choose_token(
    target: Target, hidden: np.ndarray, request: Request, past: Past, thinking: Thinking
) -> tuple[int, Logprob | None]:
    """The target's token after `past`, from the hidden state [D] of its last one, and its
    log-probability where the request asks for it. A constraint takes it.

    Raises NumericalError where that state or its logits are not finite, and RequestError where the
    constraint allows no token.
    """
    raw = target.logits(hidden[None])
    position = len(past.prompt) + len(past.reply)
    if not (np.isfinite(hidden).all() and np.isfinite(raw).all()):
        raise NumericalError(f"the target's output for position {position} is not finite")
    constraint = request.constraint
    if thinking.is_spent:
        token = thinking.closes
    else:
        scores = processed(Logits(raw), request.sampling, past, raw.shape[1])
        if constraint is not None:
            scores = Logits(allow(scores.scores, [0], constraint.masks([])))
        if not np.isfinite(scores.scores.max()):
            raise nothing_allowed(len(past.reply))
        token = int(choose(scores, Choice([request.sampling], [position]))[0])
    if constraint is not None:
        constraint.take([token])
    asked = request.logprobs
    return token, None if asked is None else logprob(raw, token, asked)


def processed(logits: Logits, sampling: Sampling, past: Past, vocab_size: int) -> Logits:
    """The scores of one row after bias, penalties and bans."""
    if not sampling.has_processors:
        return logits
    bias = biases(sampling, vocab_size)[None]
    prompt, reply = (counts(ids, vocab_size)[None] for ids in (past.prompt, past.reply))
    return process(logits, Processors([0], [sampling], bias, prompt, reply))


def logprob(scores: np.ndarray, token: int, count: int) -> Logprob:
    """Of a token by its raw scores [1, V], and of the `count` best."""
    own, best, values = log_probabilities(scores, np.array([[token]]), count)
    pairs = zip(map(int, best[0]), map(float, values[0]), strict=True)
    return Logprob.of(float(own[0, 0]), pairs, count)


def score_prompt(
    target: Target, hidden: np.ndarray, request: Request
) -> tuple[Logprob | None, ...]:
    """Log-probabilities of the prompt's tokens by the states [L, D]; () unless they are asked for.

    The first token has none: nothing predicts it.
    """
    count = request.prompt_logprobs
    if count is None:
        return ()
    found: list[Logprob | None] = [None]
    for state, token in zip(hidden[:-1], request.prompt[1:], strict=True):
        scores = target.logits(state[None])
        if not np.isfinite(scores).all():
            raise NumericalError("the target's output for the prompt is not finite")
        found.append(logprob(scores, token, count))
    return tuple(found)


def scores_of(found: Sequence[Logprob | None]) -> tuple[Logprob, ...]:
    """Log-probabilities, where the request asks for them."""
    return tuple(each for each in found if each is not None)


def logits(target: Target, ids: Sequence[int], chunk: int = CHUNK) -> np.ndarray:
    """Teacher-forced logits [L, V]: row i scores the token after ids[i]."""
    check_token_ids("ids", list(ids), target.config.vocab_size)
    return target.logits(prefill(target, target.new_cache(1, 1), ids, chunk))


def propose(target: Target, drafter: Drafts, ids: Sequence[int], n: int) -> list[int]:
    """`n` greedy guesses for the tokens after `ids`, of which there are two or more."""
    check_token_ids("ids", list(ids), target.config.vocab_size)
    cache = target.new_cache(1, 1)
    hidden = prefill(target, cache, ids[:-1], CHUNK)[-1]
    return draft(target, drafter, cache, Seed(ids[-1], hidden), n, GREEDY)


def _ends(request: Request, token: int) -> bool:
    """Does the reply end with `token`? Asks `is_end` exactly once for each emitted token."""
    is_end = request.is_end(token)
    return is_end or token in request.stop_ids


def _token_limit(target: Target, request: Request) -> int:
    """New tokens that both the request and the context allow, at least one.

    The last token of a full context is emitted but never fed back. Raises RequestError.
    """
    context = target.config.max_positions
    check_request(request, target.config.vocab_size, context)
    return min(request.max_tokens, context - len(request.prompt))
