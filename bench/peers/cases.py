"""What bench.side_by_side measures, and what it makes of it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.peers.job import Done, Drafts, Job
from bench.peers.process import LM, OWN, VLM, Process

# Of eight rows; fewer rows take the first. All but two are longer than the window of 24.
LENGTHS = {"equal": (96,) * 8, "mixed": (24, 150, 40, 90, 56, 114, 32, 180)}
# One row alone says little of a drafter: so many prompts are decoded one after another.
ALONE = 3
BASE = LM  # ratios are of its plain decoding


@dataclass(frozen=True)
class Variant:
    """An engine and how it drafts."""

    engine: str
    drafts: Drafts

    @property
    def name(self) -> str:
        if self.drafts == 0:
            return f"{self.engine} plain"
        return f"{self.engine} {self.drafts}" if self.engine == OWN else f"{self.engine} MTP"


def variants(engines: Sequence[str], depths: Sequence[int], peer_drafts: int) -> list[Variant]:
    """Those of the engines that are here, each once: a depth of 0 is plain decoding."""
    peers = [Variant(LM, 0), Variant(VLM, 0), Variant(VLM, peer_drafts)]
    own: list[Drafts] = [0, "auto", *depths]
    ours = [Variant(OWN, drafts) for drafts in own]
    return [variant for variant in dict.fromkeys((*peers, *ours)) if variant.engine in engines]


@dataclass(frozen=True)
class Case:
    """`batches` of prompts, each asked when the one before is done."""

    rows: int
    lengths: str
    batches: tuple[list[list[int]], ...]

    @staticmethod
    def of(rows: int, lengths: str, prompts: list[list[int]]) -> "Case":
        if rows == 1:
            return Case(rows, lengths, tuple([prompt] for prompt in prompts[:ALONE]))
        return Case(rows, lengths, (prompts[:rows],))

    @property
    def prompts(self) -> list[list[int]]:
        return [prompt for batch in self.batches for prompt in batch]


@dataclass
class Seen:
    """All runs of a variant in a case, a list of batches each: the timed ones and the counted."""

    timed: list[list[Done]] = field(default_factory=list)
    counted: list[Done] = field(default_factory=list)

    @property
    def decode(self) -> list[float]:
        """Tokens a second while decoding, in each repeat."""
        return [
            sum(done.decode_tokens for done in run) / sum(done.decode_s for done in run)
            for run in self.timed
        ]

    @property
    def whole(self) -> list[float]:
        """The same with the prompts: from asking to the last id."""
        return [
            sum(done.whole_tokens for done in run) / sum(done.whole_s for done in run)
            for run in self.timed
        ]

    @property
    def cpu_per_token(self) -> list[float]:
        """Seconds of all cores, a token, while decoding."""
        return [
            sum(done.decode_cpu_s for done in run) / sum(done.decode_tokens for done in run)
            for run in self.timed
        ]

    def total(self, what: str) -> int:
        return sum(vars(done)[what] for done in self.counted)

    def wrong(self, right: Sequence[list[int]]) -> int:
        """Rows that in any run were not what they should be."""
        texts = [
            [text for done in run for text in done.texts]
            for run in (*self.timed, self.counted)
            if run
        ]
        return sum(any(run[row] != right[row] for run in texts) for row in range(len(right)))


def run(process: Process, case: Case, tokens: int, drafts: Drafts, counts: bool) -> list[Done]:
    """One variant, once."""
    return [process.run(Job(batch, tokens, drafts, counts)) for batch in case.batches]


Median = dict[str, float]


def spread(values: Sequence[float]) -> Median:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
