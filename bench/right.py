"""How many replies of the embedded pairs to held-out prompts does the grammar's checker find right?

Greedy and at temperature 0.7 (with the checkpoint's own top-k and top-p), all kinds of text drawn
alike. Prints each wrong reply's fault, then a table, then one JSON line.

    python -m bench.right --prompts 200 --seed 77
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import mtp_mlx
from bench.counts import positive
from mtp_mlx.measure.where import where
from tests.embedded import held_out

TEMPERATURES = (0.0, 0.7)
ROWS = 16


def measure(name: str, num_prompts: int, seed: int) -> list[dict[str, Any]]:
    """Right replies of one pair at each temperature, and the wrong ones by kind."""
    examples = held_out.examples(num_prompts, seed)
    found = []
    with mtp_mlx.load(name, draft_model="none", max_num_seqs=ROWS) as llm:
        for temperature in TEMPERATURES:
            options = {"temperature": temperature, "num_draft_tokens": 0}
            replies = held_out.run(llm, name, examples, seed, **options)
            wrong = Counter[str]()
            for example, reply in zip(examples, replies, strict=True):
                fault = held_out.fault(name, example, reply)
                if fault is not None:
                    wrong[example.kind] += 1
                    print(f"{name} {temperature} {example.last_user_message!r}: {fault}")
            right = num_prompts - wrong.total()
            found.append({"pair": name, "temperature": temperature, "right": right, "wrong": wrong})
    return found


def main() -> None:
    """Print the faults, the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=positive, default=200)
    parser.add_argument("--seed", type=int, default=77)
    arguments = parser.parse_args()
    results = []
    for name in held_out.NAMES:
        results += measure(name, arguments.prompts, arguments.seed)
    print(f"\nof {arguments.prompts} held-out prompts, seed {arguments.seed}")
    for result in results:
        by_kind = ", ".join(f"{kind} {count}" for kind, count in result["wrong"].most_common())
        print(f"{result['pair']:>8} {result['temperature']} {result['right']:>4}  wrong: {by_kind}")
    summary = {"prompts": arguments.prompts, "seed": arguments.seed, "results": results}
    print(json.dumps({"bench": "right", "machine": asdict(where()), **summary}))


if __name__ == "__main__":
    main()
