"""mlx-vlm in a process of its own, plain and with its MTP rounds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_vlm.speculative.drafters import load_drafter
from mlx_vlm.utils import load_model

from bench.peers.child import Arrival, serve
from bench.peers.job import Drafts
from bench.peers.meter import Meter
from bench.peers.vlm import batch, single


class MlxVlm:
    """Its block size is ours and one more: it counts the pending token."""

    distribution = "mlx-vlm"
    note = None

    def __init__(self, target: str, drafter: str) -> None:
        self._model = load_model(Path(target))
        self._drafter, self._kind = load_drafter(drafter, kind="mtp")
        self.meter = Meter(self._model.language_model.model, _rows)

    def run(self, prompts: list[list[int]], tokens: int, drafts: Drafts) -> Iterator[Arrival]:
        """No id ends a reply: one row knows no end, and a batch asks a tokenizer that has none."""
        assert drafts != "auto", "mlx-vlm does not choose a depth"
        speculation: dict[str, Any] = {}
        if drafts:
            speculation = {
                "draft_model": self._drafter,
                "draft_kind": self._kind,
                "draft_block_size": drafts + 1,
            }
        if len(prompts) == 1:
            for token in single(self._model, tuple(prompts[0]), tokens, **speculation):
                yield 0, [token]
            return
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        ascending = [tuple(prompts[row]) for row in order]
        for place, token in batch(self._model, ascending, tokens, speculation):
            yield order[place], [token]


def _rows(inputs: Any = None, inputs_embeds: Any = None, *_: Any, **options: Any) -> int:
    return (inputs_embeds if inputs is None else inputs).shape[0]


if __name__ == "__main__":
    serve(MlxVlm)
