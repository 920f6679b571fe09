"""How well the embedded drafters draft, on held-out prompts of the world they were trained on.

For each pair, greedy and at temperature 0.7: acceptance by draft position and tokens a round for 1
to 6 drafts, over all texts and by kind of text (there by position at 6), and right replies by the
grammar's checker, which drafts cannot change; also how often the drafter's first token is the
target's own along the held-out replies of a quarter of the prompts, teacher-forced.
Prints tables, then one JSON line.

    python -m bench.acceptance --prompts 96
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import mtp_mlx
from bench.counts import positive
from mtp_mlx.measure.where import where
from mtp_mlx.reply import Reply
from tests.embedded import held_out
from training import world

DEPTHS = range(1, 7)
TEMPERATURES = (0.0, 0.7)
SEED = 11
ROWS = 8


def counted(replies: Iterable[Reply], depth: int) -> dict[str, Any]:
    """Acceptance by position, where a draft was made, and tokens a round over all rounds."""
    accepted, drafted = [0] * depth, [0] * depth
    tokens = rounds = 0
    for reply in replies:
        spec = reply.spec
        for place, (right, tried) in enumerate(
            zip(spec.per_position, spec.drafted_per_position, strict=True)
        ):
            accepted[place] += right
            drafted[place] += tried
        tokens += len(reply.token_ids) - 1
        rounds += spec.rounds
    shares = [
        right / tried if tried else 0.0 for right, tried in zip(accepted, drafted, strict=True)
    ]
    return {"per_position": shares, "tokens_per_round": tokens / max(rounds, 1), "rounds": rounds}


def agreement(llm: mtp_mlx.LLM, name: str, examples: Sequence[world.Example]) -> float:
    """Share of held-out reply tokens where the first draft is the target's argmax."""
    same = total = 0
    for example in examples:
        text = held_out.writer(name).text(example)
        start = len(held_out.writer(name).prompt(example))
        best = llm.logits(text.ids).argmax(axis=-1)
        for at in range(start, len(text.ids) - 1):
            same += llm.propose(text.ids[: at + 1], 1)[0] == best[at]
            total += 1
    return same / total


def measure(name: str, num_prompts: int) -> dict[str, Any]:
    """All figures of one pair."""
    examples = held_out.examples(num_prompts, SEED)
    with mtp_mlx.load(name, max_num_seqs=ROWS) as llm:
        cells = []
        for temperature in TEMPERATURES:
            for depth in DEPTHS:
                options = {"temperature": temperature}
                replies = held_out.run(llm, name, examples, SEED, num_draft_tokens=depth, **options)
                cell = {"temperature": temperature, "drafts": depth, **counted(replies, depth)}
                cell["right"] = right_share(name, examples, replies)
                cell["kinds"] = by_kind(examples, replies, depth)
                cells.append(cell)
        agrees = agreement(llm, name, examples[: agreement_prompts(num_prompts)])
    return {"pair": name, "prompts": num_prompts, "agreement": agrees, "cells": cells}


def agreement_prompts(num_prompts: int) -> int:
    """How many of the prompts agreement is measured on: token by token, it is slow."""
    return max(num_prompts // 4, 1)


def right_share(name: str, examples: Sequence[world.Example], replies: Sequence[Reply]) -> float:
    faults = [held_out.fault(name, e, r) for e, r in zip(examples, replies, strict=True)]
    return faults.count(None) / len(faults)


def by_kind(
    examples: Sequence[world.Example], replies: Sequence[Reply], depth: int
) -> dict[str, Any]:
    """The figures of `counted` for each kind of text."""
    groups: dict[str, list[Reply]] = defaultdict(list)
    for example, reply in zip(examples, replies, strict=True):
        groups[example.kind].append(reply)
    return {kind: counted(group, depth) for kind, group in sorted(groups.items())}


def show(result: dict[str, Any]) -> None:
    """The tables of one pair."""
    print(f"\n{result['pair']}, {result['prompts']} held-out prompts")
    agrees, few = result["agreement"], agreement_prompts(result["prompts"])
    print(f"first draft = target's argmax along {few} held-out replies: {agrees:.3f}")
    print(f"{'temp':>5} {'drafts':>6} {'tokens a round':>15}  accepted by position")
    for cell in result["cells"]:
        shares = " ".join(f"{share:.2f}" for share in cell["per_position"])
        line = f"{cell['temperature']:>5} {cell['drafts']:>6} {cell['tokens_per_round']:>15.2f}"
        print(f"{line}  {shares}")
    for temperature in TEMPERATURES:
        show_kinds(temperature, [c for c in result["cells"] if c["temperature"] == temperature])


def show_kinds(temperature: float, cells: Sequence[dict[str, Any]]) -> None:
    """By kind: tokens a round for each number of drafts, and acceptance by position at the most."""
    print(f"temperature {temperature}: {cells[0]['right']:.3f} of the replies are right")
    print(
        f"{'kind':>12}  tokens a round, {DEPTHS[0]} to {DEPTHS[-1]} drafts    accepted by position"
    )
    for kind in cells[-1]["kinds"]:
        rounds = " ".join(f"{cell['kinds'][kind]['tokens_per_round']:.2f}" for cell in cells)
        shares = " ".join(f"{x:.2f}" for x in cells[-1]["kinds"][kind]["per_position"])
        print(f"{kind:>12}  {rounds}    {shares}")


def main() -> None:
    """Print the tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=positive, default=96)
    parser.add_argument("--pair", choices=held_out.NAMES, action="append")
    arguments = parser.parse_args()
    results = []
    for name in arguments.pair or held_out.NAMES:
        results.append(measure(name, arguments.prompts))
        show(results[-1])
    print(json.dumps({"bench": "acceptance", "machine": asdict(where()), "pairs": results}))


if __name__ == "__main__":
    main()
