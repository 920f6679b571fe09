"""A pair with drafts beside the same pair without, and beside another server, in one run.

For every batch size the same questions are answered plainly, with each asked-for number of drafts
and, where one is given, by the other server: in turn, there and back, repeat after repeat.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mtp_mlx.api import LLM, Prompt
from mtp_mlx.backends import Runtime
from mtp_mlx.errors import RequestError
from mtp_mlx.hub.find import title
from mtp_mlx.measure.chats import batch_of
from mtp_mlx.measure.client import Server
from mtp_mlx.measure.figures import Progress, interleaved
from mtp_mlx.measure.ours import Ours, on_mlx
from mtp_mlx.measure.report import PLAIN, SERVER, Drafts, Line, Reading, Report, Settings
from mtp_mlx.measure.sample import Sample
from mtp_mlx.measure.where import where
from mtp_mlx.measured import Measured
from mtp_mlx.proof import as_prompts

WARM_TOKENS = 8
COST_REPEATS = 25  # of each verify, as far as the time goes

Case = tuple[int, bool]  # rows of a batch, and whether all are asked the same


def compare(
    llm: LLM,
    texts: Sequence[str],
    settings: Settings,
    server: Server | None = None,
    progress: Progress = lambda message: None,
) -> Report:
    """Measure a loaded pair, and a server beside it, with some questions. Send it nothing else
    meanwhile.

    Raises RequestError for drafts without a drafter, too few questions, and a server's faults.
    """
    if not llm.has_drafter:
        settings = replace(settings, depths=_without_drafter(settings))
    if server is not None and not llm.has_chat_template:
        raise RequestError(
            "the model has no chat template, and the server is asked for chats; leave --against "
            "out, or give a checkpoint with a chat_template.jinja",
            param="against",
        )
    batch_of(texts, max(settings.batch_sizes), is_alike=False)  # are there enough?
    run = _Run(llm, Ours(llm), texts, settings, server, progress)
    readings = [run.reading(rows) for rows in settings.batch_sizes]
    cases = [
        (rows, is_alike)
        for rows in settings.batch_sizes
        for is_alike in ((False, True) if rows > 1 else (False,))
    ]
    lines = [line for case in enumerate(cases) for line in run.lines(*case)]
    drafter = llm.pair.drafter
    costs = run.costs() if llm.has_drafter else None
    return Report(
        model=title(llm.pair.target),
        draft_model=None if drafter is None else title(drafter),
        dtype=llm._worker.call(lambda runtime, _: on_mlx(runtime).dtype),
        note=llm.note,
        where=where(),
        settings=settings,
        server=None if server is None else server.url,
        readings=tuple(readings),
        lines=tuple(lines),
        costs=() if costs is None else costs.points,
        cost_host_s=0.0 if costs is None else costs.calibration.host_s,
    )


def _without_drafter(settings: Settings) -> tuple[int | str, ...]:
    """Plain decoding is all there is. Raises RequestError where drafts were asked for."""
    asked = [depth for depth in settings.depths if depth != PLAIN]
    if asked:
        raise RequestError(
            f"depths holds {asked[0]} and no drafter is loaded; give one (--draft-model), or leave "
            "depths at 0",
            param="depths",
        )
    return (PLAIN,)


@dataclass(frozen=True)
class _Run:
    """What all measurements of a run share."""

    llm: LLM
    ours: Ours
    texts: Sequence[str]
    settings: Settings
    server: Server | None
    progress: Progress

    def reading(self, rows: int) -> Reading:
        """Prompts of text that differ from their first token on."""
        self.progress(f"reading prompts, batch {rows}")
        prompts = self._long_prompts(rows)
        self.ours.read(prompts)  # a first time may compile
        [samples] = interleaved([lambda _: self.ours.read(prompts)], self.settings.repeats)
        return Reading(rows, len(prompts[0]), samples)

    def _long_prompts(self, rows: int) -> list[list[int]]:
        own = [self.llm.prompt_ids(prompt) for prompt in as_prompts(self.llm, self.texts)]
        ids = [token for prompt in own for token in prompt]
        length = min(self.settings.prompt_tokens, self.llm.config.max_positions - 1)
        shift = max(len(ids) // rows, 1)
        return [[ids[(row * shift + at) % len(ids)] for at in range(length)] for row in range(rows)]

    def lines(self, number: int, case: Case) -> list[Line]:
        """Each way to decode the batches of a case, over the same repeats."""
        rows, is_alike = case
        kinds: list[Drafts] = list(self.settings.all_depths)
        if self.server is not None:
            kinds.append(SERVER)
        first = number * (2 * self.settings.repeats + 1)
        for drafts in kinds:  # a first time may compile, and the policy has nothing to go by
            self._write(case, drafts, WARM_TOKENS, first)
        tokens = self.settings.max_tokens
        trials: list[Callable[[int], Sample]] = [
            lambda turn, drafts=drafts: self._write(case, drafts, tokens, first + 1 + turn)
            for drafts in kinds
        ]
        found = dict(zip(kinds, interleaved(trials, self.settings.repeats), strict=True))
        served, plain = found.get(SERVER), found[PLAIN]
        return [
            Line(rows, is_alike, drafts, samples, plain, served)
            for drafts, samples in found.items()
        ]

    def _write(self, case: Case, drafts: Drafts, max_tokens: int, number: int) -> Sample:
        """One batch. Where a server is asked too, each number has chats of its own, or the server's
        prompt cache would have them."""
        rows, is_alike = case
        own = None if self.server is None else number
        texts = batch_of(self.texts, rows, is_alike=is_alike, number=own)
        kind = "identical prompts" if is_alike else "distinct prompts"
        self.progress(f"batch {rows}, {kind}, {_spell(drafts)}, {number}")
        if drafts == SERVER:
            assert self.server is not None
            chats = [[{"role": "user", "content": text}] for text in texts]
            return self.server.write(chats, max_tokens)
        prompts: list[Prompt] = as_prompts(self.llm, texts)
        return self.ours.write(prompts, drafts, max_tokens)

    def costs(self) -> Measured:
        """A verify by its tokens, as `mtp-mlx tune` times it."""

        def work(runtime: Runtime) -> Measured:
            seconds = self.settings.cost_s
            return on_mlx(runtime).measure_costs(seconds, COST_REPEATS, self.progress)

        return self.llm._worker.call(lambda runtime, _: work(runtime))


def _spell(drafts: Drafts) -> str:
    return "plain" if drafts == PLAIN else SERVER if drafts == SERVER else f"{drafts} drafts"
