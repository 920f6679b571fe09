"""What a pair will take on this machine, from its headers or from the published shapes alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mtp_mlx.api import LLM
from mtp_mlx.backends import find_pair, open_pair, require_mlx
from mtp_mlx.config import TargetConfig
from mtp_mlx.errors import ModelNotFound, RequestError
from mtp_mlx.fit import MAX_BLOCK, PREFILL_CHUNK, Plan, Stored, make_plan, spell
from mtp_mlx.hub.find import find_model, title
from mtp_mlx.hub.names import alias_for
from mtp_mlx.machine import Budget
from mtp_mlx.options import Keywords
from mtp_mlx.pair_names import DRAFTER_SUFFIX
from mtp_mlx.request import MAX_DRAFT_TOKENS
from mtp_mlx.shapes import Published, published

# What a chat without a model is proposed, the first that fits; and what is only listed.
PROPOSED = ("26b-4bit", "12b-4bit", "e4b-4bit", "e2b-4bit")
LISTED = ("31b-4bit",)
CHATS, CHAT_TOKENS = 4, 8192
SHARE = 0.8  # of the budget that weights, drafter and K/V may take
BF16_BYTES = 2
HEAT = 4.0
REHEARSALS = 2  # when values are freed depends on threads, and with it the peak
REPLY_TOKENS = 12  # of the last text that a rehearsal writes: a round of the longest drafts or two


@dataclass(frozen=True)
class Subject:
    """A pair as far as a plan must know it. is_here: its files were read, not the shapes that are
    published under its name."""

    name: str
    draft_name: str | None
    config: TargetConfig
    tensors: tuple[tuple[Stored, ...], tuple[Stored, ...]]
    is_here: bool


@dataclass(frozen=True)
class Estimate:
    """A plan for this machine; `dtype` is that of the activations."""

    subject: Subject
    plan: Plan
    budget: Budget
    dtype: str

    @property
    def bound(self) -> str:
        """What sets the plan's limit, in words."""
        total = spell(self.budget.total)
        if self.plan.limit < self.budget.available:
            return f"of {total}, by --memory-limit or what this process holds"
        return f"{self.budget.bound}, {total}"


@dataclass(frozen=True)
class Offer:
    """A published pair beside a budget: bytes of its files, and of weights, drafter and the K/V of
    4 chats of 8k tokens. fits: it leaves a fifth of the budget and what a load sets aside."""

    name: str
    download: int
    needed: int
    fits: bool


@dataclass(frozen=True)
class Suggestion:
    """What to run within `budget` bytes: the pairs that fit and are proposed, the best first, and
    all pairs, the largest first."""

    budget: int
    fitting: tuple[Offer, ...]
    offers: tuple[Offer, ...]

    @property
    def best(self) -> Offer | None:
        return next(iter(self.fitting), None)


def suggest(budget: int, itemsize: int = BF16_BYTES) -> Suggestion:
    """The pair that suits `budget` bytes; itemsize: bytes of an activation, 4 on CPU."""
    listed = [_offer(name, budget, itemsize) for name in LISTED]
    proposed = [_offer(name, budget, itemsize) for name in PROPOSED]
    fitting = tuple(offer for offer in proposed if offer.fits)
    return Suggestion(budget, fitting, (*listed, *proposed))


def suggest_here(memory_limit: int | str | None = None) -> Suggestion:
    """The same for this machine as it is now; memory_limit: see api.load."""
    require_mlx()
    from mtp_mlx.engine.runtime import limit_here
    from mtp_mlx.model.load import compute_dtype

    small = _published(PROPOSED[-1])
    itemsize = compute_dtype(small.target, small.target_tensors, None).size
    return suggest(limit_here(memory_limit), itemsize)


def _offer(name: str, budget: int, itemsize: int) -> Offer:
    pair = _published(name)
    tensors = (pair.target_tensors, pair.drafter_tensors)
    plan = make_plan(pair.target, tensors, CHATS, itemsize, budget, CHAT_TOKENS)
    needed = plan.weights + plan.drafter + plan.windows + plan.texts
    stored = make_plan(pair.target, tensors, 1, BF16_BYTES, budget)
    fits = needed <= SHARE * budget and plan.fits
    return Offer(name, stored.weights + stored.drafter, needed, fits)


def _published(name: str) -> Published:
    pair = published(name)
    assert pair is not None, f"{name} is in the table"
    return pair


def find_subject(model: str | Path, draft_model: str | Path | None) -> Subject:
    """The pair that is here, or the published one of that name. Raises CheckpointError."""
    try:
        target = find_model(model)
    except ModelNotFound:
        alias = alias_for(str(model))
        found = published(str(model) if alias is None else alias.name)
        if found is None:
            raise
        return _without_files(found, draft_model)
    pair = find_pair(target, draft_model)
    opened = open_pair(pair)
    drafter = opened.drafter
    return Subject(
        name=title(pair.target),
        draft_name=None if pair.drafter is None else title(pair.drafter),
        config=opened.target.config,
        tensors=(_values(opened.target.tensors.values()), ())
        if drafter is None
        else (_values(opened.target.tensors.values()), _values(drafter.tensors.values())),
        is_here=True,
    )


def _values(tensors: Iterable[Stored]) -> tuple[Stored, ...]:
    return tuple(tensors)


def _without_files(found: Published, draft_model: str | Path | None) -> Subject:
    """The published pair, with its own drafter or without."""
    if draft_model not in (None, "none", "auto"):
        raise RequestError(
            f"{found.name} is not here, and is planned from its published shape with its own "
            f"drafter; leave out draft_model {str(draft_model)!r}, or give none",
            param="draft_model",
        )
    is_plain = draft_model != "auto"
    return Subject(
        name=found.name,
        draft_name=None if is_plain else f"{found.name.split('-')[0]}{DRAFTER_SUFFIX}",
        config=found.target,
        tensors=(found.target_tensors, () if is_plain else found.drafter_tensors),
        is_here=False,
    )


def estimate(
    subject: Subject,
    rows: int,
    tokens: int,
    dtype: str | None = None,
    memory_limit: int | str | None = None,
) -> Estimate:
    """What `rows` texts of `tokens` tokens take on this machine. Raises RequestError."""
    require_mlx()
    import mlx.core as mx

    from mtp_mlx.engine.runtime import limit_here
    from mtp_mlx.machine import budget_of
    from mtp_mlx.model.load import compute_dtype

    longest = subject.config.max_positions
    if not 0 < tokens <= longest:
        raise RequestError(
            f"context must be 1 to {longest:,} tokens for {subject.name}, found {tokens:,}",
            param="context",
        )
    limit = limit_here(memory_limit)
    compute = compute_dtype(subject.config, subject.tensors[0], dtype)
    plan = make_plan(subject.config, subject.tensors, rows, compute.size, limit, tokens)
    spelled = str(compute).removeprefix("mlx.core.")
    return Estimate(subject, plan, budget_of(mx.device_info()), spelled)


def rehearse(llm: LLM, rows: int, tokens: int) -> int:
    """The most memory in use while a loaded pair writes `rows` texts of `tokens` tokens at once,
    with the longest drafts.

    Prompts are read one after the other while those before are answered: the first has the longest
    reply, so that all rows are there when the last and longest prompt is read. Hot replies seldom
    end by themselves.
    """
    steps = -(-tokens // PREFILL_CHUNK)
    replies = [REPLY_TOKENS + (rows - 1 - row) * steps * MAX_BLOCK for row in range(rows)]
    lengths = [max(tokens - reply, 1) for reply in replies]
    vocab, drafts = llm.config.vocab_size, MAX_DRAFT_TOKENS if llm.has_drafter else 0
    prompts = [
        [(7 * place + 13 * row) % vocab for place in range(length)]
        for row, length in enumerate(lengths)
    ]
    each: list[Keywords] = [{"max_tokens": max(tokens - length, 1)} for length in lengths]
    # Without what is kept of texts, which the plan's peak does not count.
    for _ in range(REHEARSALS):
        llm.batch(
            prompts, each=each, num_draft_tokens=drafts, temperature=HEAT, seed=0, cache=False
        )
    return llm.peak_memory_bytes()
