"""How a pair is run, as `load` was asked."""

from dataclasses import dataclass

from mtp_mlx.machine import MOST_BYTES, limit_bytes
from mtp_mlx.request import MAX_DRAFT_TOKENS, check_integer

MAX_NUM_SEQS = 64
MAX_PREFILL_CHUNK = 1 << 16
# A round then passes one chunk border at most.
MIN_PREFILL_CHUNK = MAX_DRAFT_TOKENS + 1


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Arguments of api.load, None for the backend's own default; RequestError where one is out of
    range."""

    max_num_seqs: int = 8
    dtype: str | None = None
    backend: str = "mlx"
    memory_limit: int | str | None = None
    prefill_chunk: int | None = None
    prompt_cache_bytes: int | None = None

    def __post_init__(self) -> None:
        check_integer("max_num_seqs", self.max_num_seqs, 1, MAX_NUM_SEQS)
        if self.memory_limit is not None:
            limit_bytes(self.memory_limit, MOST_BYTES)  # of what, is for the runtime to know
        if self.prefill_chunk is not None:
            low, high = MIN_PREFILL_CHUNK, MAX_PREFILL_CHUNK
            check_integer("prefill_chunk", self.prefill_chunk, low, high)
        if self.prompt_cache_bytes is not None:
            check_integer("prompt_cache_bytes", self.prompt_cache_bytes, 0, MOST_BYTES)
