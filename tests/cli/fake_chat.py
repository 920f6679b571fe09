"""A chat with a model that says what a test wants: `python -m tests.cli.fake_chat`.

The first argument is JSON, a list of replies, each a list of rounds, each a list of [text, origin];
the rest is the command line's. "fail" in place of a round is a fault of the run, "gone" one that
ends the engine, "full" a chat that is too long.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import mtp_mlx.api
from mtp_mlx.cli.main import main
from mtp_mlx.errors import ContextLengthExceeded, EngineStopped
from mtp_mlx.reply import Chunk, EngineStats
from tests.cli.fake import FakeLLM, FakeStream


@dataclass(frozen=True)
class Config:
    max_positions: int = 4096


class Stream(FakeStream):
    def __init__(self, llm: "TalkingLLM", rounds: list) -> None:
        super().__init__(rounds, 7)
        self._llm = llm

    def __iter__(self) -> Iterator[Chunk]:
        if "gone" in self.rounds:
            self._llm.is_gone = True
            raise EngineStopped("the engine failed: out of luck")
        yield from super().__iter__()

    def abandon(self) -> None:
        """It does not last."""


class TalkingLLM(FakeLLM):
    """See api.LLM."""

    has_chat_template = True
    config = Config()

    def __init__(self, replies: list) -> None:
        super().__init__([])
        self.replies = list(replies)
        self.is_gone = False

    def stream(self, prompt: object, **options: object) -> Stream:
        rounds = self.replies.pop(0)
        if "full" in rounds:
            raise ContextLengthExceeded("the prompt has 5,000 tokens, the context is 4,096")
        return Stream(self, rounds)

    def check_options(self, **options: object) -> None:
        """All are fine."""

    def stats(self) -> EngineStats:
        if self.is_gone:
            raise EngineStopped("3 times in 60 s: out of luck")
        return super().stats()

    def close(self) -> None:
        """There is nothing to free."""


if __name__ == "__main__":
    replies = json.loads(sys.argv[1])
    mtp_mlx.api.load = lambda **options: TalkingLLM(replies)
    main(sys.argv[2:])
