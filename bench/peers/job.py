"""What an engine's process is asked for and what it answers, a JSON line each."""

from dataclasses import dataclass
from typing import Literal

Drafts = int | Literal["auto"]


@dataclass(frozen=True)
class Job:
    """Greedy replies of exactly `tokens` ids to `prompts`, all asked at once; `drafts` a round, 0
    for plain decoding. `counts`: count instead of timing (see meter.py)."""

    prompts: list[list[int]]
    tokens: int
    drafts: Drafts
    counts: bool = False


@dataclass(frozen=True)
class Done:
    """`whole_s`: from asking to the last id on the host. Decoding is what comes after every row has
    its first id: `decode_tokens` ids in `decode_s`, and `decode_cpu_s` of all threads. Where a run
    is counted it ends with the round in which the first row has all its ids; the counts are of this
    part, and `eval_s`, the seconds inside MLX's eval. `peak_bytes`: MLX's own, with the weights."""

    texts: list[list[int]]
    whole_s: float
    decode_tokens: int
    decode_s: float
    decode_cpu_s: float
    peak_bytes: int
    forwards: int
    rows: int
    reads: int
    eval_s: float

    @property
    def whole_tokens(self) -> int:
        return sum(map(len, self.texts))
