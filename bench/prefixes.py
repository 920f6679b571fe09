"""Turn after turn of a chat: tokens that are run, and seconds to the first token, warm and cold.

On the embedded `tiny`, whose window is 24 tokens; prompts are token ids, so that nothing but the
cache differs. Prints a table, then one JSON line.

    python -m bench.prefixes
"""

import argparse
import json
import random
from dataclasses import asdict

import mtp_mlx
from bench.counts import positive
from mtp_mlx.measure.where import where

CHUNK, TURNS, WORDS, REPLY = 64, 10, 60, 40


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=positive, default=TURNS)
    arguments = parser.parse_args()
    draw = random.Random(0)
    rows = []
    names = ("turn", "prompt", "cached", "run", "warm s", "cold s", "text")
    widths = (4, 7, 7, 5, 8, 8, 6)
    print(" ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)))
    with mtp_mlx.load("tiny", prefill_chunk=CHUNK) as llm:
        ids = [2]
        for turn in range(1, arguments.turns + 1):
            ids += [draw.randrange(110, 250) for _ in range(WORDS)]
            warm = llm.generate(ids, temperature=0, max_tokens=REPLY)
            cold = llm.generate(ids, temperature=0, max_tokens=REPLY, cache=False)
            cached, text = warm.usage.cached_tokens, warm.token_ids == cold.token_ids
            row = {"turn": turn, "prompt_tokens": len(ids), "cached_tokens": cached}
            row |= {"warm_s": warm.timings.first_token_s, "cold_s": cold.timings.first_token_s}
            rows.append(row | {"is_same": text})
            print(
                f"{turn:>4} {len(ids):>7} {cached:>7} {len(ids) - cached:>5} "
                f"{row['warm_s']:>8.3f} {row['cold_s']:>8.3f} {'same' if text else 'PARTS':>6}"
            )
            ids += warm.token_ids
    print(
        json.dumps({"bench": "prefixes", "machine": asdict(where()), "chunk": CHUNK, "rows": rows})
    )


if __name__ == "__main__":
    main()
