"""The figures of a reply in a chat: one line below it, and the answer to /why.

Every figure is one that the engine measured; what was not measured is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mtp_mlx.cli.stats import MIB, by_position
from mtp_mlx.reply import EngineStats, Reply, RoundCosts

GIB = 1 << 30
MS = 1e3


@dataclass(frozen=True)
class Answer:
    """A reply with what the engine knew when it ended. `depths`: drafts of each round, in order;
    `context`: positions that the model has."""

    reply: Reply
    depths: tuple[int, ...]
    engine: EngineStats
    peak_memory_bytes: int
    context: int

    @property
    def plain_tokens_per_s(self) -> float | None:
        """What plain decoding would have given, for a reply that drafted."""
        return self.reply.plain_tokens_per_s if self.reply.spec.drafted else None


def stats_line(answer: Answer, width: int) -> str:
    """The line below a reply; broken between figures where the terminal is narrower."""
    reply, spec = answer.reply, answer.reply.spec
    if reply.finish_reason == "cancelled" and not reply.usage.completion_tokens:
        return "stopped before the first token; /retry sends the message again"
    parts = [f"{reply.usage.completion_tokens} tok"]
    if reply.timings.tokens_per_s:
        plain = answer.plain_tokens_per_s
        beside = "" if plain is None else f" (plain ~{plain:.3g})"
        parts.append(f"{reply.timings.tokens_per_s:.1f} tok/s{beside}")
    if spec.drafted:
        made = f"drafts {spec.accepted}/{spec.drafted} accepted"
        parts.append(f"{made}, {spec.tokens_per_round:.1f} tok/round")
    elif spec.rounds:
        parts.append("no drafts")
    parts += [f"TTFT {reply.timings.first_token_s:.2f} s", memory(answer.peak_memory_bytes)]
    return _packed([*parts, *_end(answer)], width)


def _packed(parts: Sequence[str], width: int) -> str:
    """Parts on one line, or on as many as they need."""
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]} · {part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return "\n".join(lines)


def memory(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def _end(answer: Answer) -> list[str]:
    """Why it ended, where the model did not end it."""
    usage = answer.reply.usage
    match answer.reply.finish_reason:
        case "cancelled":
            return ["stopped"]
        case "length" if usage.total_tokens >= answer.context:
            return [f"the context of {answer.context:,} tokens is full: /undo, or /clear"]
        case "length":
            return [f"cut at {usage.completion_tokens:,} tokens: /set max_tokens N"]
    return []


def explain(answer: Answer) -> list[tuple[str, str]]:
    """The answer to /why."""
    reply, spec, costs = answer.reply, answer.reply.spec, answer.engine.costs
    rows = [("prompt", _prompt(reply))]
    if reply.cache.miss_reason is not None:
        rows.append(("why no more kept", reply.cache.miss_reason))
    if spec.rounds:
        rows += [
            ("rounds", f"{spec.rounds}, {spec.tokens_per_round:.2f} tokens each"),
            ("drafts by round", runs(answer.depths)),
            ("by position", by_position(spec)),
        ]
    choice = answer.engine.decision
    if spec.parked is not None and not (choice or "").startswith(spec.parked):
        rows.append(("drafting ended", spec.parked))
    if choice is not None:
        rows.append(("last choice", choice))
    return [*rows, *_costs(costs)]


def _prompt(reply: Reply) -> str:
    tokens, kept = reply.usage.prompt_tokens, reply.usage.cached_tokens
    first = f"first token after {reply.timings.first_token_s:.2f} s"
    return f"{tokens:,} tokens, {kept:,} of them kept from before, {first}"


def runs(depths: Sequence[int]) -> str:
    """Counts in their order, equal neighbours together: 3 ×12, 0, 2 ×4."""
    found = [(depth, len(list(group))) for depth, group in groupby(depths)]
    return ", ".join(f"{depth} ×{count}" if count > 1 else f"{depth}" for depth, count in found)


def _costs(costs: RoundCosts | None) -> list[tuple[str, str]]:
    if costs is None:
        return [("costs", "not measured, so drafts are as many as were asked for")]
    first = costs.forward_s[0]
    forwards = ", ".join(
        f"{count}: {seconds * MS:.2f} ms ({seconds / first:.2f}x)"
        for count, seconds in enumerate(costs.forward_s, 1)
    )
    drafting = f"{costs.depth_s * MS:.2f} ms a step, {costs.token_s * MS:.2f} ms a draft"
    return [
        ("a forward of", forwards),
        ("drafting", f"{drafting}, {costs.host_s * MS:.2f} ms of the host"),
        ("plain", f"~{costs.plain_tokens_per_s:.3g} tokens/s by these figures"),
    ]
