"""Random models whose cache holds a long context that nobody had to prefill, and what their rounds
allocate."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.sequence import Sequence
from mtp_mlx.model.batch import Row
from mtp_mlx.model.drafter import Drafter, Drafts
from mtp_mlx.model.target import Target
from mtp_mlx.reply import NOT_READ
from mtp_mlx.request import Request, Sampling
from mtp_mlx.shapes import Shapes
from tests import tiny_configs

# Room for new tokens, so that no buffer grows while memory is measured.
ROOM = 512


@dataclass(frozen=True)
class Shape:
    """A model by its layers (S sliding, F full) and the published model it is modelled on.

    Keys of one position are wide, and query heads few, so that one layer's keys outweigh all that
    attention allocates for its scores.
    """

    variant: str
    pattern: str
    window: int
    heads: int
    kv_heads: int
    full_kv_heads: int
    head_dim: int
    full_head_dim: int


SMALL = Shape("31b", "SSFSSF", 64, 2, 2, 2, 16, 64)
DEEP = Shape("26b", "SSSSSF" * 5, 64, 2, 2, 2, 16, 64)
# Its rings are its largest buffers.
WIDE_WINDOW = Shape("31b", "SSSSSF", 1 << 15, 2, 2, 2, 64, 16)


def make_pair(shape: Shape, seed: int = 0) -> tuple[Target, Drafter]:
    """Target and drafter with random weights."""
    random = np.random.default_rng(seed)
    target, drafter = make_target(shape, random), tiny_configs.drafter_dict(shape.variant)
    drafter["text_config"] |= _geometry(shape)
    config = read_drafter(drafter, "long-assistant/config.json").paired_with(target.config)
    return target, Drafter(config, _weights(random, tiny_configs.drafter_shapes(config)))


def make_target(shape: Shape, random: np.random.Generator) -> Target:
    """A target alone, whose layers may be all of one kind."""
    values = tiny_configs.target_dict(shape.variant)
    kinds = {"S": tiny_configs.SLIDING, "F": tiny_configs.FULL}
    values["text_config"] |= _geometry(shape) | {
        "layer_types": [kinds[letter] for letter in shape.pattern],
        "num_hidden_layers": len(shape.pattern),
    }
    config = read_target(values, "long/config.json")
    return Target(config, _weights(random, tiny_configs.target_shapes(config)))


def _geometry(shape: Shape) -> dict[str, Any]:
    """What both text configs say of attention."""
    return {
        "sliding_window": shape.window,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_global_key_value_heads": shape.full_kv_heads,
        "head_dim": shape.head_dim,
        "global_head_dim": shape.full_head_dim,
        "max_position_embeddings": 1 << 17,
    }


def _weights(random: np.random.Generator, shapes: Shapes) -> dict[str, mx.array]:
    return {key: _draw(random, key, size) for key, size in shapes.items()}


def _draw(random: np.random.Generator, key: str, shape: tuple[int, ...]) -> mx.array:
    if "norm" in key or key.endswith(("scale", "scalar")):
        return mx.ones(shape)
    return mx.array(random.standard_normal(shape, dtype=np.float32) * shape[-1] ** -0.5)


def filled(buffer: mx.array) -> mx.array:
    """A buffer of this shape: one random vector, over and over, which costs little to make."""
    one = mx.random.normal(buffer.shape[-1:], buffer.dtype)
    return mx.contiguous(mx.broadcast_to(one, buffer.shape))


def engine_at(
    target: Target,
    drafter: Drafts | None,
    lengths: tuple[int, ...],
    num_draft_tokens: int | None,
    room: int = ROOM,
    fill: Callable[[mx.array], mx.array] = filled,
) -> Engine:
    """An engine whose rows run at `lengths` committed tokens and may emit half of `room` more.

    fill: the made-up contents of a buffer of such a shape and type.
    """
    engine = Engine(target, drafter, max_num_seqs=len(lengths))
    for slot, length in enumerate(lengths):
        assert engine.memory.reserve(slot, length + room)
        engine.cache.begin((Row(slot, 0, length + room),), is_chunk=True)
        engine.cache.commit(slot, length)
        engine.slots[slot] = _running(target, slot, length, num_draft_tokens, room // 2)
    for full in engine.cache.full.values():
        full.keys = [fill(b) for b in full.keys if b is not None]
        full.values = [fill(b) for b in full.values if b is not None]
    for ring in engine.cache.window.values():
        ring.keys, ring.values = fill(ring.keys), fill(ring.values)
    mx.eval(buffers(engine), [s.hidden for s in engine.sequences])
    return engine


def reading_engine_at(target: Target, length: int, chunk: int) -> Engine:
    """An engine whose only row has a last chunk of its prompt to read, behind `length` tokens."""
    engine = engine_at(target, None, (length,), 0, room=2 * chunk)
    (sequence,) = engine.sequences
    sequence.request = replace(sequence.request, prompt=(2,) * (length + chunk))
    sequence.tokens = list(sequence.request.prompt)
    sequence.is_running, sequence.cache_use = False, NOT_READ
    engine.chunk = chunk
    return engine


def _running(
    target: Target, slot: int, length: int, num_draft_tokens: int | None, max_tokens: int
) -> Sequence:
    """A sequence that has `length` tokens in the cache and one pending."""
    request = Request(
        prompt=(2,) * length,
        sampling=Sampling(),
        max_tokens=max_tokens,
        num_draft_tokens=num_draft_tokens,
    )
    return Sequence(
        id=slot + 1,
        request=request,
        budget=request.max_tokens,
        slot=slot,
        tokens=[*request.prompt, 3 + slot],
        num_prefilled=length,
        hidden=mx.random.normal(
            (target.config.hidden_size,), target.dtype, key=mx.random.key(slot)
        ),
        is_running=True,
    )


def buffers(engine: Engine) -> list[mx.array]:
    """Every key and value buffer of the cache."""
    cache = engine.cache
    found = [b for layer in cache.full.values() for b in (*layer.keys, *layer.values)]
    found += [b for ring in cache.window.values() for b in (ring.keys, ring.values)]
    return [buffer for buffer in found if buffer is not None]


def addresses(engine: Engine) -> list[int]:
    """Where every buffer lies in memory; a buffer that was copied lies elsewhere."""
    return [np.asarray(buffer).ctypes.data for buffer in buffers(engine)]


def largest_buffer_bytes(engine: Engine) -> int:
    """Size of the largest buffer: the keys of one full layer, or of all rings of a window layer."""
    return max(buffer.nbytes for buffer in buffers(engine))


def peak_growth_bytes(engine: Engine, num_steps: int) -> int:
    """How far memory in use rises above its level before the steps, at the worst moment."""
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(num_steps):
        engine.step()
    mx.synchronize()
    return mx.get_peak_memory() - before
