"""The command line with a model that replies what a test wants: `python -m tests.cli.fake`.

The first argument is JSON, a list of rounds, each a list of [text, origin] or [text, origin, kind],
all of one kind; the rest is the command line's. A round of kind "tool" is the arguments of a call.
"hang" in place of a round waits there, for an interrupt; "fail" is a fault of the run.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import TracebackType

import mtp_mlx.api
from mtp_mlx.backends import Pair
from mtp_mlx.cli.main import main
from mtp_mlx.errors import NumericalError
from mtp_mlx.reply import (
    Chunk,
    EngineStats,
    Reply,
    RoundCosts,
    SpecStats,
    Timings,
    Token,
    Usage,
)
from mtp_mlx.text.calls import ToolCall

COSTS = RoundCosts((0.02, 0.03), 0.001, 0.002, 0.0005)


class FakeStream:
    """See api.Stream."""

    prompt_ids = (2,)

    def __init__(self, rounds: list, seed: int) -> None:
        self.rounds = rounds
        tokens = [token for turn in rounds if isinstance(turn, list) for token in turn]
        calls = [text for text, _, *kind in tokens if kind == ["tool"]]
        self.reply = Reply(
            text="".join(text for text, _, *kind in tokens if kind in ([], ["content"])),
            token_ids=tuple(range(len(tokens))),
            finish_reason="stop",
            seed=seed,
            spec=SpecStats(2, 6, 3, (2, 1, 0), (2, 2, 2), 2.5, 2),
            usage=Usage(1, len(tokens)),
            timings=Timings(0.25, 0.5, 12.0),
            plain_tokens_per_s=50.0,
            tool_calls=tuple(ToolCall("call_1", "f", text) for text in calls),
        )

    def __iter__(self) -> Iterator[Chunk]:
        for place, turn in enumerate(self.rounds):
            if turn == "hang":
                print("hanging", file=sys.stderr, flush=True)
                time.sleep(60)
            if turn == "fail":
                raise NumericalError("the target gave NaN or infinity")
            tokens = [Token(place, text, origin, place) for text, origin, *_ in turn]
            kind = turn[0][2] if len(turn[0]) > 2 else "content"
            yield Chunk("".join(token.text for token in tokens), tuple(tokens), kind=kind)
        yield Chunk("", (), "stop")


class FakeLLM:
    """See api.LLM."""

    note = None
    pair = Pair(Path("fake"), None, None)

    def __init__(self, rounds: list) -> None:
        self.rounds = rounds

    def stream(self, prompt: object, *, seed: int | None, **options: object) -> FakeStream:
        return FakeStream(self.rounds, 7 if seed is None else seed)

    def peak_memory_bytes(self) -> int:
        return 3 << 20

    def stats(self) -> EngineStats:
        counts = dict.fromkeys((field.name for field in fields(EngineStats)), 0)
        shares = {"experts_per_layer": 5.25, "expert_overlap_drafts": 0.375}
        texts = {"decision": "drafts 3,2", "expert_overlap_rows": None, "costs": COSTS}
        return EngineStats(**(counts | shares | texts))  # ty: ignore[invalid-argument-type]

    def __enter__(self) -> "FakeLLM":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


if __name__ == "__main__":
    rounds = json.loads(sys.argv[1])
    mtp_mlx.api.load = lambda **options: FakeLLM(rounds)
    main(sys.argv[2:])
