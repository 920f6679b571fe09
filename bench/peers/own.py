"""Our engine in a process of its own: as `mtp_mlx.load` sets it up, asked for token ids."""

from collections.abc import Iterator
from pathlib import Path

from bench.peers.child import Arrival, serve
from bench.peers.job import Drafts
from bench.peers.meter import Meter
from mtp_mlx.checkpoint import open_drafter, open_target
from mtp_mlx.engine.runtime import MlxRuntime
from mtp_mlx.loading import Loading
from mtp_mlx.request import Failed, Request, Sampling, Tokens


class Own:
    """One engine for all jobs, so that its policy goes on learning; no prompt is cached."""

    distribution = "mtp-mlx"

    def __init__(self, target: str, drafter: str) -> None:
        opened = open_target(Path(target))
        drafts = open_drafter(Path(drafter), opened.config)
        runtime = MlxRuntime(opened, drafts, Loading(dtype="float32"))
        self._engine = runtime.new_engine()  # this measures what "auto" decides by
        self.note = runtime.note
        self.meter = Meter(self._engine.target, lambda batch, *_: len(batch.rows))

    def run(self, prompts: list[list[int]], tokens: int, drafts: Drafts) -> Iterator[Arrival]:
        """No id ends a reply: `stop_ids` is empty."""
        asked = None if drafts == "auto" else drafts
        rows = {}
        for row, prompt in enumerate(prompts):
            request = Request(
                prompt=tuple(prompt),
                sampling=Sampling(),
                max_tokens=tokens,
                num_draft_tokens=asked,
                cache=False,
            )
            rows[self._engine.submit(request)] = row
        while not self._engine.is_idle:
            for event in self._engine.step():
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Tokens):
                    yield rows[event.request_id], list(event.ids)


if __name__ == "__main__":
    serve(Own)
