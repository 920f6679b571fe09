"""The figures of a reply in the shapes that clients read: OpenAI's usage, llama.cpp's timings,
vLLM's metrics, and our own. Of several choices, one prompt counts once and all replies count."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mtp_mlx.reply import Reply
from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.asks import Ask

Json = dict[str, Any]
MS = 1000.0


def figures(ask: Ask, served: Served, replies: Sequence[Reply]) -> Json:
    """All of them, for the reply that holds these choices."""
    return {
        "usage": usage(ask, replies),
        "timings": timings(ask, replies),
        "metrics": {"speculative_decoding": speculation(replies)},
        "mtp": own(ask, served, replies),
    }


def usage(ask: Ask, replies: Sequence[Reply]) -> Json:
    """OpenAI's. Rejected drafts were never sent, so they are no completion tokens."""
    prompts = replies[:: ask.n]
    prompt_tokens = sum(reply.usage.prompt_tokens for reply in prompts)
    completion_tokens = sum(reply.usage.completion_tokens for reply in replies)
    accepted = sum(reply.spec.accepted for reply in replies)
    drafted = sum(reply.spec.drafted for reply in replies)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sum(reply.usage.cached_tokens for reply in prompts),
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": sum(reply.usage.reasoning_tokens for reply in replies),
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
            "audio_tokens": 0,
        },
    }


def timings(ask: Ask, replies: Sequence[Reply]) -> Json:
    """llama.cpp's names. The speed is that of the tokens after the first; choices run side by
    side, so the longest time is theirs."""
    prompts = replies[:: ask.n]
    cached = sum(reply.usage.cached_tokens for reply in prompts)
    read = sum(reply.usage.prompt_tokens for reply in prompts) - cached
    written = sum(reply.usage.completion_tokens for reply in replies)
    later = sum(max(reply.usage.completion_tokens - 1, 0) for reply in replies)
    prompt_s = max(reply.timings.prompt_s for reply in prompts)
    written_s = max(reply.timings.generation_s for reply in replies)
    return {
        "prompt_n": read,
        "cache_n": cached,
        "prompt_ms": round(prompt_s * MS, 3),
        "prompt_per_token_ms": _per(prompt_s * MS, read),
        "prompt_per_second": _per(read, prompt_s),
        "predicted_n": written,
        "predicted_ms": round(written_s * MS, 3),
        "predicted_per_token_ms": _per(written_s * MS, later),
        "predicted_per_second": _per(later, written_s),
        "draft_n": sum(reply.spec.drafted for reply in replies),
        "draft_n_accepted": sum(reply.spec.accepted for reply in replies),
        "draft_rounds": sum(_rounds(reply) for reply in replies),
    }


def speculation(replies: Sequence[Reply]) -> Json:
    """vLLM's: steps are rounds that had drafts; the histogram is of drafts accepted in one."""
    steps = sum(_rounds(reply) for reply in replies)
    drafted = sum(reply.spec.drafted for reply in replies)
    accepted = sum(reply.spec.accepted for reply in replies)
    histogram: Counter[int] = Counter()
    for reply in replies:
        reached = (_rounds(reply), *reply.spec.per_position, 0)
        for count, (here, further) in enumerate(itertools.pairwise(reached)):
            histogram[count] += here - further
    return {
        "mean_acceptance_length": 1 + _per(accepted, steps),
        "draft_acceptance_rate": _per(accepted, drafted),
        "acceptance_histogram": {
            str(count): times for count, times in sorted(histogram.items()) if times
        },
        "num_spec_steps": steps,
        "num_accepted_draft_tokens": accepted,
        "num_draft_tokens": drafted,
        "num_spec_tokens": max(len(reply.spec.drafted_per_position) for reply in replies),
    }


def own(ask: Ask, served: Served, replies: Sequence[Reply]) -> Json:
    """What only this program tells."""
    prompts = replies[:: ask.n]
    misses = [reply.cache.miss_reason for reply in prompts if reply.cache.miss_reason]
    warnings = dict.fromkeys(reply.warning for reply in replies if reply.warning)
    estimates = [reply.plain_tokens_per_s for reply in replies if reply.plain_tokens_per_s]
    return {
        "seed": ask.seed,
        "exactness": served.exactness,
        "parked": next((reply.spec.parked for reply in replies if reply.spec.parked), None),
        "plain_tps_estimate": round(estimates[0], 3) if estimates else None,
        "queue_ms": round(max(reply.timings.queue_s for reply in replies) * MS, 3),
        "warning": "; ".join(warnings) or None,
        "cache": {
            "hit_tokens": sum(reply.usage.cached_tokens for reply in prompts),
            "miss_reason": misses[0] if misses else None,
        },
    }


def _rounds(reply: Reply) -> int:
    """Rounds that had drafts."""
    return next(iter(reply.spec.drafted_per_position), 0)


def _per(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0
