"""mlx-lm in a process of its own: one row by generate_step, more by BatchGenerator. No drafter: it
knows no MTP, and drops batching once it has a drafter."""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.utils import load_model

from bench.peers.child import Arrival, serve
from bench.peers.job import Drafts
from bench.peers.meter import Meter


class MlxLm:
    """Needs no drafter."""

    distribution = "mlx-lm"
    note = None

    def __init__(self, target: str, drafter: str) -> None:
        self._model, _ = load_model(Path(target))
        self.meter = Meter(
            self._model.language_model.model, lambda inputs, *_, **options: inputs.shape[0]
        )

    def run(self, prompts: list[list[int]], tokens: int, drafts: Drafts) -> Iterator[Arrival]:
        """No id ends a reply: generate_step knows no end, and the batch is given no stop tokens."""
        assert drafts == 0, "mlx-lm drafts nothing here"
        return (
            self._alone(prompts[0], tokens) if len(prompts) == 1 else self._batch(prompts, tokens)
        )

    def _alone(self, prompt: list[int], tokens: int) -> Iterator[Arrival]:
        for token, _ in generate_step(mx.array(prompt), self._model, max_tokens=tokens):
            yield 0, [int(token)]

    def _batch(self, prompts: list[list[int]], tokens: int) -> Iterator[Arrival]:
        rows = len(prompts)
        generator = BatchGenerator(self._model, completion_batch_size=rows, prefill_batch_size=rows)
        row_of = {uid: row for row, uid in enumerate(generator.insert(prompts, [tokens] * rows))}
        left = rows
        while left:
            for response in generator.next_generated():
                yield row_of[response.uid], [int(response.token)]
                left -= response.finish_reason is not None
        generator.close()


if __name__ == "__main__":
    serve(MlxLm)
