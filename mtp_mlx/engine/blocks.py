"""How the width of a block and the rows beside it change a target's logits, teacher-forced.

Kernels choose their form by the number of tokens and rows of a forward. Decoding known texts once
one token at a time, alone, and once in blocks, side by side, shows by how much the results differ;
the K/V that the blocks wrote are part of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mtp_mlx.engine.forced import prefill
from mtp_mlx.model.backend import on_gpu
from mtp_mlx.model.batch import Batch, Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.target import Target
from mtp_mlx.request import MAX_DRAFT_TOKENS
from mtp_mlx.verdict import BlockError, Rounding, Text, error_bound

WIDEST = MAX_DRAFT_TOKENS + 1
WIDTHS = range(1, WIDEST + 1)
# Texts that are decoded alone in every width; more run side by side.
NUM_ALONE = 4
USUAL_SHARE = 0.999  # of the logits of a position: the others may stray


@dataclass(frozen=True)
class Prompts:
    """A cache whose first slots hold the texts' prompts; the others are free to decode in."""

    target: Target
    texts: tuple[Text, ...]
    cache: Cache

    @staticmethod
    def read(target: Target, texts: Sequence[Text], free: int, chunk: int) -> "Prompts":
        """Run every prompt once, in chunks as the engine does, and leave `free` slots."""
        cache = target.new_cache(len(texts) + free, WIDEST)
        for slot, text in enumerate(texts):
            prefill(target, cache, text.ids[: text.start], chunk, slot)
        return Prompts(target, tuple(texts), cache)

    def decode(self, chosen: Sequence[int], block: int) -> list[mx.array]:
        """Logits [L - start, V] of the chosen texts, decoded side by side, `block` tokens each at
        a time: row j predicts the token at start + j + 1."""
        first = len(self.texts)
        ids = {first + row: self.texts[text].ids for row, text in enumerate(chosen)}
        for slot, text in zip(ids, chosen, strict=True):
            self.cache.copy(text, slot)
        parts: dict[int, list[mx.array]] = {slot: [] for slot in ids}
        while rows := self._next_blocks(ids, block):
            tokens = [token for row in rows for token in ids[row.slot][row.start : row.end]]
            hidden = self.target(Batch.of(rows, mx.array(tokens)), self.cache)
            scores = self.target.logits(hidden)
            mx.eval(scores)
            at = 0
            for row in rows:
                self.cache.commit(row.slot, row.length)
                parts[row.slot].append(scores[at : at + row.length])
                at += row.length
        for slot in ids:
            self.cache.release(slot)
        return [mx.concatenate(part) for part in parts.values()]

    def _next_blocks(self, ids: dict[int, tuple[int, ...]], block: int) -> tuple[Row, ...]:
        """The next block of each text that has not ended."""
        left = {slot: len(own) - self.cache.lengths[slot] for slot, own in ids.items()}
        return tuple(
            Row(slot, self.cache.lengths[slot], min(block, count))
            for slot, count in left.items()
            if count
        )


def measure(
    target: Target,
    texts: Sequence[Text],
    sizes: Sequence[int],
    chunk: int,
    progress: Callable[[str], None],
) -> Rounding:
    """Compare blocks of 1 to 8 tokens, alone and in batches of `sizes` texts (which come round
    again where a batch is larger), with one token at a time, alone."""
    progress("rounding: prompts")
    num_used = min(max(*sizes, NUM_ALONE), len(texts))
    prompts = Prompts.read(target, texts[:num_used], max(sizes), chunk)
    plain = []
    for text in range(num_used):
        progress(f"rounding: text {text + 1} of {num_used}, one token at a time")
        plain += prompts.decode([text], 1)
    errors = []
    for size in sorted({1, *sizes}):
        for block in WIDTHS:
            if (size, block) == (1, 1):
                continue
            progress(f"rounding: {size} rows, blocks of {block}")
            if size == 1:
                chosen = list(range(min(NUM_ALONE, num_used)))
                seen = [prompts.decode([text], block)[0] for text in chosen]
            else:
                chosen = [row % num_used for row in range(size)]
                seen = prompts.decode(chosen, block)
            errors.append(_compare(block, size, [plain[text] for text in chosen], seen))
    # On a GPU MLX may round the inputs of float32 products to TF32's 11 bits.
    is_float32 = target.dtype == mx.float32 and not on_gpu()
    largest = max(float(np.array(mx.abs(scores).max())) for scores in plain)
    bound = error_bound(largest, is_float32=is_float32)
    gaps = np.concatenate([np.array(_top2_gaps(scores)) for scores in plain])
    return Rounding(tuple(errors), bound, gaps)


def last_logits(target: Target, text: Text, chunk: int) -> np.ndarray:
    """Logits [V] after a text, as plain decoding of it alone computes them."""
    cache = target.new_cache(1, WIDEST)
    hidden = prefill(target, cache, text.ids[: text.start], chunk)[-1]
    for place in range(text.start, len(text.ids)):
        hidden = target(Batch.of((Row(0, place, 1),), mx.array([text.ids[place]])), cache)
        mx.eval(hidden)
        cache.commit(0, 1)
    return np.array(target.logits(hidden[-1:]))[0]


def _compare(
    block: int, rows: int, plain: Sequence[mx.array], seen: Sequence[mx.array]
) -> BlockError:
    one, other = mx.concatenate(list(plain)), mx.concatenate(list(seen))  # [n, V]
    errors = mx.abs(one - other)
    errors = mx.where(mx.isfinite(errors), errors, mx.inf)
    num_above = max(round((1 - USUAL_SHARE) * errors.shape[-1]), 1)
    usual = float(np.median(np.array(mx.topk(errors, num_above, axis=-1).min(axis=-1))))
    differs = one.argmax(-1) != other.argmax(-1)
    is_far = differs & (_top2_gaps(one) > 2 * usual)
    return BlockError(
        block=block,
        rows=rows,
        positions=one.shape[0],
        largest=float(np.array(errors.max())),
        usual=usual,
        disagreements=int(np.array(differs.sum())),
        far_disagreements=int(np.array(is_far.sum())),
    )


def _top2_gaps(scores: mx.array) -> mx.array:
    """Best less second best of each row: [n, V] -> [n]."""
    best = mx.topk(scores, 2, axis=-1)
    return best.max(axis=-1) - best.min(axis=-1)
