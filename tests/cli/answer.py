"""What a run of the command line leaves behind."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def body(self) -> dict:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict]:
        """The objects of --jsonl."""
        return [json.loads(line) for line in self.out.splitlines()]
