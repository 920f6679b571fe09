"""Proof that drafting and batching change no text of a model, on this machine.

Every prompt is decoded plainly and alone; then plainly in batches; then with drafts, alone and in
batches, as many as asked for and as many as the policy chooses; greedy and sampled. What never
happened shows nothing: drafts must have been accepted, and a round must have had all rows of its
batch, or the report has no level and says what was missing. Where two texts part, the tokens'
scores tell rounding from a bug: two tokens whose scores lie closer than twice the kernels' error
(`engine.blocks`) are a *near-tie*, and either may win. Sampled rows use no top-k, top-p or min-p,
so that a score's distance from the best alone decides what rounding can do.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event

import numpy as np

from mtp_mlx.api import LLM, Prompt
from mtp_mlx.errors import EngineStopped, MtpError, RequestError
from mtp_mlx.reference.choose import gumbel, noise_key
from mtp_mlx.request import AUTO_DRAFT_TOKENS, MAX_DRAFT_TOKENS, Sampling, check_integer
from mtp_mlx.together import Case, Written, least_tokens, run_together
from mtp_mlx.verdict import Divergence, Exercise, Kind, Rounding, Text, VerifyReport

Progress = Callable[[str], None]

BATCH_SIZES = (1, 2, 3, 4, 8)
MAX_TOKENS = 64
MOST_TOKENS = 1 << 16
TEMPERATURES = (0.7, 1.0)  # of the sampled pass, by turns
FIRST_SEED = 1000
# Tokens of the longest text of the rounding: more than a window and a prompt chunk of 1,024.
LONG_TEXT = 1120
DECODED = 32  # tokens of a text that are decoded there

# Short and long, of several kinds, so that batches are ragged.
PROMPTS = (
    "Hello!",
    "Why is the sky blue?",
    "Tell me a story about a fox and a hen.",
    "Count from 3 to 12.",
    "Write a Python function that tells whether a number is prime.",
    "List five cities in Europe and one thing each is known for.",
    "Translate into French: The train leaves at seven, and we must not be late this time.",
    "What is 17 times 23? Show how you get there.",
    'Give the facts as a JSON object with the keys "name", "age" and "town": Mary is 31 and lives '
    "in Leeds.",
    "A farmer has some hens and some rabbits. Together they have 35 heads and 94 feet. How many of "
    "each are there? Explain every step, then check the result.",
    "Summarise in one sentence: The river rose for three days. On the first the lower fields were "
    "under water, on the second the road to the mill, and on the third the people of the village "
    "carried what they could to the church on the hill, where they stayed until the rain stopped "
    "and the water had gone back to its bed. Nobody was hurt, but it took them until the summer "
    "to clear the mud from the houses, and the mill never ran again.",
    "ok",
)


def verify(
    llm: LLM,
    prompts: Sequence[Prompt] | None = None,
    *,
    max_tokens: int | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    num_draft_tokens: int = AUTO_DRAFT_TOKENS,
    progress: Progress = lambda message: None,
) -> VerifyReport:
    """Compare texts with and without drafts, alone and in batches; see the module. Send the model
    nothing else meanwhile: "alone" must be alone.

    prompts: None takes a dozen built-in ones. max_tokens: with fewer than `least_tokens` of a batch
    its rows do not all meet, and the report says so; None is 64, or that where it is more.
    batch_sizes: 1 to the model's max_num_seqs; where it has no drafter, one must be above 1.
    `progress` hears what is done next, on this thread.

    Raises RequestError for a bad argument, EngineStopped where the engine fails, and what fails in
    a plain reply.
    """
    check_integer("num_draft_tokens", num_draft_tokens, 1, MAX_DRAFT_TOKENS)
    sizes = _checked_sizes(llm, batch_sizes)
    drafts = num_draft_tokens if llm.has_drafter else 0
    tokens = _checked_tokens(max_tokens, max(sizes), drafts)
    return _Run(llm, _ids(llm, prompts), tokens, sizes, drafts, progress).report()


def _checked_tokens(max_tokens: int | None, size: int, drafts: int) -> int:
    least = least_tokens(size, drafts)
    if max_tokens is None:
        return max(MAX_TOKENS, least)
    return check_integer("max_tokens", max_tokens, 1, MOST_TOKENS)


def as_prompts(llm: LLM, texts: Sequence[str]) -> list[Prompt]:
    """Texts as chat messages, or as they are for a model without a chat template."""
    if not llm.has_chat_template:
        return list(texts)
    return [[{"role": "user", "content": text}] for text in texts]


def _checked_sizes(llm: LLM, batch_sizes: Sequence[int]) -> tuple[int, ...]:
    slots = llm.stats().slots
    if not batch_sizes:
        raise RequestError("batch_sizes is empty; give at least one", param="batch_sizes")
    for size in batch_sizes:
        if check_integer("batch_sizes", size, 1, 1 << 30) > slots:
            raise RequestError(
                f"batch_sizes holds {size}, and the model was loaded for {slots} rows; load it "
                f"with max_num_seqs={size}",
                param="batch_sizes",
            )
    if not llm.has_drafter and max(batch_sizes) == 1:
        raise RequestError(
            "no drafter is loaded and the only batch size is 1, so there is nothing to compare; "
            "give a draft_model or a larger batch",
            param="batch_sizes",
        )
    return tuple(sorted(set(batch_sizes)))


def _ids(llm: LLM, prompts: Sequence[Prompt] | None) -> list[tuple[int, ...]]:
    """The prompts as token ids; a bad one is named by its number."""
    if prompts is None:
        prompts = as_prompts(llm, PROMPTS)
    if not prompts:
        raise RequestError("prompts is empty; give at least one", param="prompts")
    return [tuple(llm.prompt_ids(prompt)) for prompt in prompts]


class _Judge:
    """Finds how near to a tie two texts parted, from plain decoding of what they have in common."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._last: dict[Text, np.ndarray] = {}  # logits [V] after a text

    def gap(self, common: Text, tokens: tuple[int, int], sampling: Sampling) -> float:
        """By how much the lower of both tokens misses the best score after `common`, a prompt and
        the part of a reply that it got."""
        if common not in self._last:
            self._last[common] = self._llm._worker.call(
                lambda runtime, _: runtime.last_logits(common)
            )
        scores = _perturbed(self._last[common], len(common.ids), sampling)
        return float(scores.max() - min(scores[token] for token in tokens))


def _perturbed(logits: np.ndarray, position: int, sampling: Sampling) -> np.ndarray:
    """The scores [V] whose argmax is the token at `position`, without filters."""
    if sampling.is_greedy:
        return logits
    key = np.array([noise_key(sampling.seed, position)], dtype=np.uint32)
    return logits / sampling.temperature + gumbel(key, np.arange(len(logits)))[0]


def _greedy(prompt: int) -> Sampling:
    return Sampling()


def _sampled(prompt: int) -> Sampling:
    """By turns a little and fully warm, each prompt with a seed of its own."""
    return Sampling(temperature=TEMPERATURES[prompt % len(TEMPERATURES)], seed=FIRST_SEED + prompt)


class _Run:
    """One verification under way."""

    def __init__(
        self,
        llm: LLM,
        prompts: Sequence[tuple[int, ...]],
        max_tokens: int,
        sizes: tuple[int, ...],
        num_draft_tokens: int,
        progress: Progress,
    ) -> None:
        self.llm = llm
        self.prompts = prompts
        self.max_tokens = max_tokens
        self.sizes = sizes
        self.drafts = num_draft_tokens
        self.progress = progress
        self.judge = _Judge(llm)
        self.num_cases = 0
        self.exercises: dict[tuple[int, Kind], Exercise] = {}

    def report(self) -> VerifyReport:
        passes = {"greedy": self._cases(_greedy), "sampled": self._cases(_sampled)}
        alone = {name: self._alone(name, cases) for name, cases in passes.items()}
        rounding = self._measure(alone["greedy"])
        found: list[Divergence] = []
        for name, cases in passes.items():
            for size in self.sizes:
                found += self._batches(name, cases, alone[name], size, rounding)
        return VerifyReport(
            cases=self.num_cases,
            batch_sizes=self.sizes,
            num_draft_tokens=self.drafts,
            max_tokens=self.max_tokens,
            has_drafter=self.llm.has_drafter,
            exercises=tuple(self.exercises.values()),
            errors=rounding.errors,
            bound=rounding.bound,
            near_ties_per_1000=rounding.near_ties_per_1000(),
            divergences=tuple(found),
        )

    def _cases(self, sampling: Callable[[int], Sampling]) -> list[Case]:
        return [Case(number, ids, sampling(number)) for number, ids in enumerate(self.prompts)]

    def _alone(self, name: str, cases: Sequence[Case]) -> list[Written]:
        """The plain text of each case; raises what fails, naming the prompt."""
        texts = []
        for case in cases:
            self.progress(f"{name}: prompt {case.prompt + 1} of {len(cases)}, plain and alone")
            try:
                reply = self.llm.generate(case.ids, **case.options(0, self.max_tokens))
            except MtpError as error:
                error.args = (f"prompts[{case.prompt}]: {error}",)
                raise
            texts.append(Written.of(reply))
        return texts

    def _measure(self, replies: Sequence[Written]) -> Rounding:
        """The rounding, on the model's thread; other requests wait. Progress is told on this one;
        where that raises, the measurement ends at the next thing it would tell."""
        texts = self._texts(replies)
        told: SimpleQueue[str | None] = SimpleQueue()
        is_left = Event()

        def tell(message: str) -> None:
            if is_left.is_set():
                raise InterruptedError("nobody waits for the rounding")
            told.put(message)

        def measure() -> Rounding:
            return self.llm._worker.call(
                lambda runtime, _: runtime.measure_rounding(texts, self.sizes, tell)
            )

        with ThreadPoolExecutor(1) as waiting:
            answer = waiting.submit(measure)
            answer.add_done_callback(lambda _: told.put(None))
            try:
                while (message := told.get()) is not None:
                    self.progress(message)
            finally:
                is_left.set()
            return answer.result()

    def _texts(self, replies: Sequence[Written]) -> list[Text]:
        """What the rounding is measured on: a long text first, then prompts with their replies."""
        texts = [
            Text((*ids, *reply.tokens[:DECODED]), len(ids))
            for ids, reply in zip(self.prompts, replies, strict=True)
        ]
        most = self.llm.config.max_positions
        joined = [token for text in texts for token in text.ids]
        joined *= LONG_TEXT // len(joined) + 1
        long = tuple(joined[: min(LONG_TEXT, most)])
        fitting = [Text(text.ids[:most], text.start) for text in texts]
        return [Text(long, max(len(long) - DECODED, 1)), *fitting]

    def _batches(
        self,
        name: str,
        cases: Sequence[Case],
        alone: Sequence[Written],
        size: int,
        rounding: Rounding,
    ) -> Iterator[Divergence]:
        """Run all cases in batches of one size, plainly and with drafts; what parted."""
        for first in range(0, len(cases), size):
            rows = [(first + row) % len(cases) for row in range(size)]
            # The longest text first: it should still be written when the last row joins.
            rows.sort(key=lambda row: -len(alone[row].tokens))
            batch = [cases[row] for row in rows]
            plain = [alone[row] for row in rows]
            where = f"{name}: batches of {size}, prompt {first + 1} of {len(cases)}"
            if size > 1:
                self.progress(f"{where}, plain")
                seen = self._together(batch, [0] * size, "plain")
                yield from self._compare(batch, plain, seen, [0] * size, rounding)
                plain = seen
            for kind, lengths in self._draft_lengths(size):
                self.progress(f"{where}, {kind}")
                seen = self._together(batch, lengths, kind)
                yield from self._compare(batch, plain, seen, lengths, rounding)

    def _draft_lengths(self, size: int) -> list[tuple[Kind, Sequence[int | None]]]:
        """Drafts of each row: as asked for all, from that many down to none, and the policy's."""
        if not self.drafts:
            return []
        mixed = [self.drafts - row % (self.drafts + 1) for row in range(size)]
        runs: list[tuple[Kind, Sequence[int | None]]] = [("drafts", [self.drafts] * size)]
        if size > 1:
            runs.append(("drafts", mixed))
        return [*runs, ("auto", [None] * size)]

    def _together(
        self, batch: Sequence[Case], lengths: Sequence[int | None], kind: Kind
    ) -> list[Written]:
        """The texts of a batch. A row that fails has a text that ends early. Raises EngineStopped
        where a step fails: nothing else can be told of its rows."""
        try:
            seen, done = run_together(self.llm, batch, lengths, self.max_tokens, kind)
        except EngineStopped as error:
            error.args = (f"batches of {len(batch)}, {kind}: {error}",)
            raise
        key = (len(batch), kind)
        before = self.exercises.get(key)
        self.exercises[key] = done if before is None else before + done
        return seen

    def _compare(
        self,
        batch: Sequence[Case],
        plain: Sequence[Written],
        seen: Sequence[Written],
        lengths: Sequence[int | None],
        rounding: Rounding,
    ) -> Iterator[Divergence]:
        """The first divergence of each row that has one."""
        deepest = max(MAX_DRAFT_TOKENS if length is None else length for length in lengths)
        eps = rounding.eps(deepest + 1, len(batch))
        for case, one, other, length in zip(batch, plain, seen, lengths, strict=True):
            self.num_cases += 1
            at = one.parts_from(other)
            if at is None:
                continue
            yield Divergence(
                prompt=case.prompt,
                position=at,
                plain=one.token(at),
                found=other.token(at),
                plain_finish=one.finish,
                found_finish=other.finish,
                error=other.error,
                gap=self._gap(case, one, other, at),
                allowed=2 * eps / (1.0 if case.sampling.is_greedy else case.sampling.temperature),
                temperature=case.sampling.temperature,
                seed=case.sampling.seed,
                batch_size=len(batch),
                num_draft_tokens=length,
                against="plain" if deepest else "alone",
            )

    def _gap(self, case: Case, one: Written, other: Written, at: int) -> float | None:
        tokens = one.token(at), other.token(at)
        if tokens[0] is None or tokens[1] is None:
            return None
        common = Text((*case.ids, *one.tokens[:at]), len(case.ids))
        return self.judge.gap(common, (tokens[0], tokens[1]), case.sampling)
