"""Snapshots and replies made by hand, for what shows them."""

import time
from dataclasses import fields

from mtp_mlx.reply import EngineStats, Reply, SpecStats, Timings, Usage
from mtp_mlx.snapshot import PHASES, BatchStats, RoundStats, RowStatus, Snapshot

COUNTS = {each.name: 0 for each in fields(EngineStats)}
STATS = EngineStats(
    **COUNTS
    | {
        "slots": 8,
        "running": 2,
        "prefilling": 1,
        "waiting": 4,
        "kv_reserved_bytes": 250,
        "kv_budget_bytes": 1000,
        "decision": "drafts 3,2",
        "drafted": 10,
        "accepted": 7,
        "rounds": 5,
        "plain_rounds": 1,
        "prompt_tokens": 90,
        "cached_tokens": 30,
        "experts_per_layer": 5.5,
        "costs": None,
    }
)
ROUNDS = RoundStats(
    seconds=dict.fromkeys(PHASES, 0.5),
    batches=(
        BatchStats(1, 2, (1, 0, 0, 1, 0, 0, 0, 0), 0, 0.0, 0.0),
        BatchStats(2, 3, (0, 1, 2, 3, 0, 0, 0, 0), 12, 1.0, 8.0),
    ),
    drafted_per_position=(5, 3, 2, 0, 0, 0, 0),
    accepted_per_position=(4, 2, 1, 0, 0, 0, 0),
    depths=(3, 2),
    plain_tokens_per_s=40.0,
    parked="parked, drafting would not pay: N=3 costs 2.10x",
    parked_kind="would_not_pay",
    parked_rounds={"would_not_pay": 3, "no_row_may_draft": 1},
)
ROWS = (
    RowStatus(11, 0, "decode", 5, 5, 20, 6, 4, 3, 25.5),
    RowStatus(12, 1, "decode", 9, 9, 3, 4, 3, 2, None),
    RowStatus(13, 2, "prefill", 70, 64),
    RowStatus(14, None, "queued", 6),
)


def snapshot(**changes) -> Snapshot:
    """An engine at work, a moment ago."""
    now = time.monotonic()
    values = {
        "at": now,
        "last_step_at": now,
        "steps": 50,
        "tokens": 23,
        "stats": STATS,
        "rows": ROWS,
        "rounds": ROUNDS,
        "tokens_per_s": 61.5,
        "active_bytes": 700,
        "peak_bytes": 900,
    }
    return Snapshot(**values | changes)


class FakeLLM:
    """See server.metrics.Shown."""

    device = "a chip"

    def __init__(self, shown: Snapshot) -> None:
        self.shown = shown

    def snapshot(self) -> Snapshot:
        return self.shown


def reply(drafted: int = 0, accepted: int = 0, **changes) -> Reply:
    spec = SpecStats(4, drafted, accepted, (), (), 2.0, 4, changes.pop("parked", None))
    values = {
        "text": "a text",
        "token_ids": (7, 8, 9),
        "finish_reason": "stop",
        "seed": 1,
        "spec": spec,
        "usage": Usage(5, 3),
        "timings": Timings(0.3, 0.5, 6.0, 0.1, 0.2),
    }
    return Reply(**values | changes)
