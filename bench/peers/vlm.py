"""mlx-vlm's side of bench/ragged.py: runs in an environment with mlx-vlm, and with nothing of ours.

Reads one JSON object from stdin (folders `target` and `drafter`, `prompts`, new `tokens` of each,
`drafts` a round, `agreement`, `batches`) and prints one: its version, a line for each batch size.
The oracle takes the place of its drafting: draft j is the row's plain token with the probability
given, else a wrong one. A row's plain text is mlx-vlm's own, of the row alone.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_vlm.generate.ar import BatchGenerator, generate_step
from mlx_vlm.speculative import mtp
from mlx_vlm.speculative.drafters import load_drafter
from mlx_vlm.utils import load_model

Text = tuple[int, ...]


class NeverStops:
    """A processor whose tokenizer ends no reply."""

    def __init__(self) -> None:
        self.tokenizer = self
        self.stopping_criteria = self

    def __call__(self, token: int) -> bool:
        return False

    def add_eos_token_ids(self, ids: Iterable[int] | None) -> None:
        """There are none."""


@dataclass
class Oracle:
    """Drafts for the rows of one batch: rows[i] is prompt and plain reply of row i.

    `rounds` lists (accepted of a row, drafts, rows) of every round; its acceptance is lockstep.
    """

    agreement: float
    vocab_size: int
    seed: str
    rows: Sequence[tuple[Text, Text]] = ()
    active: list[int] = field(default_factory=list)
    rounds: list[tuple[float, int, int]] = field(default_factory=list)

    def start(self, rows: Sequence[tuple[Text, Text]]) -> None:
        self.rows, self.active = rows, list(range(len(rows)))

    def block(self, positions: Sequence[int], block_size: int, dtype: mx.Dtype) -> mx.array:
        """Drafts [rows, block_size - 1] after rows with so many committed tokens."""
        drafts = [
            [self._draft(row, position + 1 + step) for step in range(block_size - 1)]
            for row, position in zip(self.active, positions, strict=True)
        ]
        return mx.array(drafts, dtype=dtype)

    def _draft(self, row: int, place: int) -> int:
        prompt, reply = self.rows[row]
        index = place - len(prompt)
        right = reply[index] if index < len(reply) else 0
        name = f"{self.seed}/{len(self.rows)}/{len(prompt)}/{place}"
        if random.Random(name).random() < self.agreement:
            return right
        return (right + 1) % self.vocab_size

    def keep(self, rows: mx.array) -> None:
        """The rows that go on, as numbers of the active ones."""
        self.active = [self.active[row] for row in rows.tolist()]

    def attach(self, drafter: Any) -> None:
        """Take the place of the drafter in mlx-vlm's round loops."""

        def draft_active(_, bonus, hidden, size, sampler, dtype, positions, **options):
            return self.block([int(position) for position in positions], size, dtype)

        def draft_single(bonus, hidden, cache, size, sampler, dtype=mx.int32, **options):
            return self.block([int(drafter._kv_offset)], size, dtype)

        def record(model, accepted, drafts):
            self.rounds.append((float(accepted), int(drafts), len(self.active)))
            recorded(model, accepted, drafts)

        recorded = mtp._record_speculative_round
        mtp._record_speculative_round = record
        mtp._mtp_draft_block_active = draft_active
        drafter.draft_block = draft_single
        drafter.filter_batch = self.keep


def single(model: Any, prompt: Text, tokens: int, **speculation: Any) -> Iterator[int]:
    """A greedy reply to one prompt, alone, as it comes; nothing ends it early."""
    ids = mx.array([prompt])
    step = generate_step(ids, model, None, None, max_tokens=tokens, temperature=0.0, **speculation)
    return (int(token) for token, _ in step)


def batch(
    model: Any, prompts: Sequence[Text], tokens: int, speculation: dict[str, Any]
) -> Iterator[tuple[int, int]]:
    """Greedy replies to prompts of ascending lengths, together: (row, token) as they come."""
    rows = len(prompts)
    generator = BatchGenerator(
        model.language_model,
        NeverStops(),
        prefill_batch_size=rows,
        completion_batch_size=rows,
        compute_logprobs=False,
        greedy_sampling=True,
        **speculation,
    )
    embedded = [model.get_input_embeddings(mx.array([p]), None).to_dict() for p in prompts]
    uids = generator.insert([list(p) for p in prompts], [tokens] * rows, embedded)
    row_of = {uid: row for row, uid in enumerate(uids)}
    while generator.has_work:
        for response in generator.next()[1]:
            if response.token is not None:
                yield row_of[response.uid], int(response.token)
    generator.close()


def together(
    model: Any, prompts: Sequence[Text], tokens: int, speculation: dict[str, Any]
) -> list[Text]:
    """The same, whole."""
    replies: list[list[int]] = [[] for _ in prompts]
    for row, token in batch(model, prompts, tokens, speculation):
        replies[row].append(token)
    return [tuple(reply) for reply in replies]


def run(task: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each batch size."""
    model = load_model(Path(task["target"]))
    drafter, kind = load_drafter(task["drafter"], kind="mtp")
    vocab_size = model.language_model.model.embed_tokens.weight.shape[0]
    oracle = Oracle(task["agreement"], vocab_size, seed="ragged")
    speculation = {
        "draft_model": drafter,
        "draft_kind": kind,
        "draft_block_size": task["drafts"] + 1,
    }
    prompts, tokens = [tuple(prompt) for prompt in task["prompts"]], task["tokens"]
    alone = {prompt: tuple(single(model, prompt, tokens)) for prompt in prompts}
    oracle.attach(drafter)
    lines = []
    for rows in task["batches"]:
        oracle.rounds.clear()
        wrong = count = emitted = 0
        for first in range(0, len(prompts), rows):
            chosen = sorted(prompts[first : first + rows], key=len)
            oracle.start([(prompt, alone[prompt]) for prompt in chosen])
            if rows == 1:
                replies = [tuple(single(model, chosen[0], tokens, **speculation))]
            else:
                replies = together(model, chosen, tokens, speculation)
            wrong += sum(reply != alone[p] for p, reply in zip(chosen, replies, strict=True))
            count += len(chosen)
            emitted += sum(len(reply) - 1 for reply in replies)
        whole = [(kept, many) for kept, drafts, many in oracle.rounds if drafts == task["drafts"]]
        total = sum(many for _, many in whole)
        lines.append(
            {
                "rows": rows,
                "rounds": total,
                "accepted": sum(kept * many for kept, many in whole) / total,
                "forwards_per_token": sum(many for *_, many in oracle.rounds) / emitted,
                "wrong": wrong,
                "of": count,
            }
        )
    return lines


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps({"version": version("mlx-vlm"), "lines": run(asked)}))
