"""What GET /v1/status answers: how the server stands at this moment, and no text of any request."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtp_mlx import __version__
from mtp_mlx.reply import EngineStats
from mtp_mlx.server.metrics import Metrics
from mtp_mlx.snapshot import RoundStats, RowStatus, Snapshot


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What stays as it is while a server runs: the names of its models, the exactness level that
    was shown for them here, and the most requests that wait. `since`: when it began, on the
    monotonic clock."""

    model: str
    draft_model: str | None
    exactness: str | None
    queue_limit: int
    since: float = field(default_factory=time.monotonic)


def status(
    snapshot: Snapshot, facts: Facts, metrics: Metrics, ids: Mapping[int, str]
) -> dict[str, Any]:
    """The JSON. `ids`: the server's names of the engine's requests; a row that is not the server's
    has none."""
    now = time.monotonic()
    stats, rounds = snapshot.stats, snapshot.rounds
    return {
        "model": facts.model,
        "draft_model": facts.draft_model,
        "version": __version__,
        "exactness": facts.exactness,
        "slots": stats.slots,
        "running": stats.running,
        "prefilling": stats.prefilling,
        "waiting": stats.waiting,
        "queue_limit": facts.queue_limit,
        "rows": [_row(row, ids) for row in snapshot.rows],
        "tokens_per_s": snapshot.tokens_per_s,
        "plain_tokens_per_s": rounds.plain_tokens_per_s if stats.running else None,
        "depth": list(rounds.depths) if stats.running else [],
        "acceptance_by_position": _acceptance(rounds),
        "parked": rounds.parked,
        "memory": _memory(snapshot, stats),
        "uptime_s": now - facts.since,
        "last_round_age_s": snapshot.stalled_s(now),
        "stopped": snapshot.stopped,
        "requests": {
            "total": metrics.ended,
            "cancelled": metrics.cancelled,
            "refused": metrics.refusals,
        },
    }


def _row(row: RowStatus, ids: Mapping[int, str]) -> dict[str, Any]:
    return {
        "slot": row.slot,
        "id": ids.get(row.id),
        "state": row.state,
        "prompt_tokens": row.prompt_tokens,
        "prompt_done": row.prompt_done,
        "tokens": row.tokens,
        "tokens_per_s": row.tokens_per_s,
        "drafted": row.drafted,
        "accepted": row.accepted,
        "depth": row.depth,
    }


def _acceptance(rounds: RoundStats) -> list[float]:
    """The share of drafts that were accepted, of those at the first position, the second, ..."""
    pairs = zip(rounds.accepted_per_position, rounds.drafted_per_position, strict=True)
    return [accepted / drafted for accepted, drafted in pairs if drafted]


def _memory(snapshot: Snapshot, stats: EngineStats) -> dict[str, int | None]:
    return {
        "kv_reserved_bytes": stats.kv_reserved_bytes,
        "kv_budget_bytes": stats.kv_budget_bytes,
        "prompt_cache_bytes": stats.prompt_cache_bytes,
        "prompt_cache_budget_bytes": stats.prompt_cache_budget_bytes,
        "active_bytes": snapshot.active_bytes,
        "peak_bytes": snapshot.peak_bytes,
    }
