"""Replies under JSON schemas and required calls, with the drafter on and off, in batches with rows
that have neither.

Each request is made twice, with drafts and without, in other batches: the texts must be equal, and
JSON valid by a checker of its own. Calls are complete or cut off by max_tokens, for nothing bounds
the text of their arguments. Prints a line a pair, then one JSON line; exits 1 where a reply was
wrong.

    python -m bench.schema_replies --replies 500
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jsonschema_rs

import mtp_mlx
from bench.counts import positive
from mtp_mlx.embedded import NAMES
from mtp_mlx.measure.where import where
from mtp_mlx.options import Keywords
from mtp_mlx.reply import Reply
from training import world
from training.world.toolbox import declaration

SEED = 6
ROWS = 8
MAX_TOKENS = 400  # every schema is met within
FEW_TOKENS = 48  # for the others
TEMPERATURES = (0.0, 0.0, 0.7, 1.0)
DRAFTS = (1, 2, 3, 5, 7, "auto")
TOOLS = [declaration("get_time"), declaration("add"), declaration("get_weather")]
TEXT = {"type": "string", "maxLength": 12}
FREE = 4  # of so many requests one has no constraint


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS = (
    _closed(name=TEXT, legs={"type": "integer", "minimum": 0, "maximum": 8}),
    _closed(city=TEXT, degrees={"type": "integer"}, sky={"enum": ["sunny", "rainy", "cloudy"]}),
    _closed(items={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}),
    _closed(answer={"anyOf": [{"type": "null"}, {"type": "boolean"}, TEXT]}, why=TEXT),
    _closed(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}, größe={"const": "groß"}),
    _closed(word=TEXT, letters={"type": "array", "items": {"$ref": "#/$defs/l"}, "maxItems": 5})
    | {"$defs": {"l": {"type": "string", "pattern": "^[a-z]$"}}},
)


@dataclass(frozen=True)
class Asked:
    """A request: its messages, what it asks for, and the schema of its text, if it has one."""

    messages: list[dict[str, Any]]
    options: Keywords
    schema: dict[str, Any] | None
    must_call: bool = False

    @property
    def is_free(self) -> bool:
        return self.schema is None and not self.must_call


@dataclass
class Figures:
    """What became of one pair's requests: `replies` under a schema, those of them that are `valid`,
    and their drafts; `calls` that were required, and those `cut` off; and of both those `equal`."""

    pair: str
    replies: int = 0
    valid: int = 0
    calls: int = 0
    cut: int = 0
    wrong_calls: int = 0
    equal: int = 0
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0
    seconds_plain: float = 0.0

    @property
    def is_right(self) -> bool:
        is_equal = self.equal == self.replies + self.calls
        return (
            is_equal and self.valid == self.replies and not self.wrong_calls and self.accepted > 0
        )


def requests(count: int, seed: int) -> list[Asked]:
    """`count` requests under a schema, and others among them, to held-out prompts."""
    source = random.Random(seed)
    found: list[Asked] = []
    for example in world.examples(seed, "held-out"):
        if example.messages[0]["role"] == "system":
            continue
        found.append(_request(example.messages, source))
        if sum(asked.schema is not None for asked in found) == count:
            return found
    raise AssertionError("the world never ends")


def _request(messages: list[dict[str, Any]], source: random.Random) -> Asked:
    options: Keywords = {
        "temperature": source.choice(TEMPERATURES),
        "seed": source.randrange(1 << 30),
        "max_tokens": FEW_TOKENS,
    }
    kind = source.randrange(FREE)
    if kind == 0:
        return Asked(messages, options, None)
    if kind == 1 and source.random() < 0.5:
        return Asked(messages, {**options, "tools": TOOLS, "tool_choice": "required"}, None, True)
    schema = source.choice(SCHEMAS)
    named = {"name": "reply", "schema": schema, "strict": True}
    options["max_tokens"] = MAX_TOKENS
    options["response_format"] = {"type": "json_schema", "json_schema": named}
    if source.random() < 0.2:
        options["think"] = True
        options["thinking_budget"] = source.choice((0, 3, 8))
    return Asked(messages, options, schema)


def is_valid(asked: Asked, reply: Reply) -> bool:
    """Is the reply what was asked for, by a checker of its own?"""
    if asked.schema is None:
        offered = {tool["function"]["name"] for tool in TOOLS}
        names = {call.name for call in reply.tool_calls}
        return reply.finish_reason == "tool_calls" and names <= offered and reply.warning is None
    if reply.finish_reason != "stop":
        return False
    try:
        return jsonschema_rs.is_valid(asked.schema, json.loads(reply.text))
    except ValueError:
        return False


def run(llm: mtp_mlx.LLM, asked: Sequence[Asked], drafts: Sequence[int | str]) -> list[Reply]:
    """The replies, in batches of as many as the model has rows; `drafts` in turn."""
    each: list[Keywords] = [
        {**one.options, "num_draft_tokens": drafts[at % len(drafts)]}
        for at, one in enumerate(asked)
    ]
    return llm.batch([one.messages for one in asked], each=each)


def measure(
    llm: mtp_mlx.LLM, name: str, count: int, seed: int, drafts: Sequence[int | str] = DRAFTS
) -> Figures:
    """All figures of one pair."""
    asked, found = requests(count, seed), Figures(name)
    started = time.perf_counter()
    replies = run(llm, asked, drafts)
    drafted = time.perf_counter()
    plain = run(llm, asked[::-1], (0,))[::-1]  # other neighbours as well
    found.seconds, found.seconds_plain = drafted - started, time.perf_counter() - drafted
    for one, reply, alone in zip(asked, replies, plain, strict=True):
        is_equal = outcome(reply) == outcome(alone)
        if one.is_free:
            assert is_equal, "a reply without a constraint changed"
            continue
        found.equal += is_equal
        if one.must_call:
            is_cut = reply.finish_reason == "length"
            found.calls += 1
            found.cut += is_cut
            found.wrong_calls += not is_cut and not is_valid(one, reply)
            continue
        found.replies += 1
        found.valid += is_valid(one, reply)
        found.drafted += reply.spec.drafted
        found.accepted += reply.spec.accepted
    return found


def outcome(reply: Reply) -> tuple[object, ...]:
    """What drafting may not change."""
    return reply.token_ids, reply.finish_reason, reply.error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=positive, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--pairs", nargs="+", default=list(NAMES))
    given = parser.parse_args()
    results = []
    for name in given.pairs:
        with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
            found = measure(llm, name, given.replies, given.seed)
        results.append(found)
        share = found.accepted / max(found.drafted, 1)
        print(
            f"{name}: {found.valid} of {found.replies} valid; {found.calls} required calls, "
            f"{found.cut} cut off, {found.wrong_calls} wrong; {found.equal} of both equal to the "
            f"same request without drafts; {found.accepted:,} of {found.drafted:,} drafts accepted "
            f"({share:.2f}); {found.seconds:.1f} s, without drafts {found.seconds_plain:.1f} s",
            flush=True,
        )
    print(
        json.dumps(
            {
                "bench": "schema_replies",
                "machine": asdict(where()),
                "seed": given.seed,
                "rows": ROWS,
                "pairs": [asdict(r) for r in results],
            }
        )
    )
    sys.exit(not all(found.is_right for found in results))


if __name__ == "__main__":
    main()
