"""The figures of a reply as aligned lines."""

from collections.abc import Iterable

from mtp_mlx.reply import EngineStats, Reply, SpecStats

LABEL_WIDTH = 16
MIB = 1 << 20


def aligned(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values in two columns."""
    return "\n".join(f"{label:<{LABEL_WIDTH}}{value}" for label, value in rows)


def by_position(spec: SpecStats) -> str:
    """Accepted drafts of those made, for the first, second, ... draft of a round."""
    pairs = zip(spec.per_position, spec.drafted_per_position, strict=True)
    return " ".join(f"{accepted}/{drafted}" for accepted, drafted in pairs) or "none drafted"


def describe_speculation(spec: SpecStats) -> list[tuple[str, str]]:
    """What the drafter was good for."""
    rows = [
        ("drafts accepted", f"{spec.accepted} of {spec.drafted}"),
        ("by position", by_position(spec)),
        ("tokens a round", f"{spec.tokens_per_round:.2f}"),
    ]
    return rows if spec.parked is None else [*rows, ("drafting ended", spec.parked)]


def describe_engine(stats: EngineStats) -> list[tuple[str, str]]:
    """The last round's decision, and what the model's experts share."""
    rows = [] if stats.decision is None else [("last round", stats.decision)]
    if stats.experts_per_layer is None:
        return rows
    shares = [
        f"{share:.0%} of the {whose}' choices read anyway"
        for whose, share in (
            ("other rows", stats.expert_overlap_rows),
            ("drafts", stats.expert_overlap_drafts),
        )
        if share is not None
    ]
    return [*rows, ("experts a layer", "; ".join([f"{stats.experts_per_layer:.1f}", *shares]))]


def describe(reply: Reply, peak_memory_bytes: int, engine: EngineStats) -> str:
    """All figures of a reply, for --stats."""
    timings = reply.timings
    rows = [
        ("tokens", f"{reply.usage.completion_tokens}, prompt {reply.usage.prompt_tokens}"),
        ("first token", f"{timings.first_token_s:.2f} s"),
        ("tokens/s", f"{timings.tokens_per_s:.1f}"),
        *describe_speculation(reply.spec),
        *describe_engine(engine),
        ("seed", str(reply.seed)),
        ("peak memory", f"{peak_memory_bytes / MIB:,.1f} MiB"),
    ]
    return aligned(rows)
