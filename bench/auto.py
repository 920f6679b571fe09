"""Is `auto` ever slower than plain decoding? Both on the embedded pairs, in turn, in one run.

For batches of 1, 4 and 8 rows, with prompts of equal and of mixed lengths, the same requests run
with `num_draft_tokens` "auto" and 0, in the order A B B A, in one loaded model whose policy goes on
learning. The ratio of a case is the median over the repeats of plain seconds over auto seconds, and
not told where it is within their noise. Prints a table with what the policy decided last, then one
JSON line. Exit code 1 where a median is below 0.98, told or not.

    python -m bench.auto --repeats 9
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import mtp_mlx
from bench.counts import positive
from bench.ratios import compared, told
from mtp_mlx.embedded import NAMES
from mtp_mlx.measure.where import where
from tests.embedded import held_out

BATCHES = (1, 4, 8)
LEAST = 0.98
SEED = 21
MAX_TOKENS = 96
# Kinds with longer replies: a reply of six tokens is all prefill.
KINDS = ("stories", "lists", "counting", "python", "json")


def prompts(name: str, rows: int, lengths: str) -> list[list[int]]:
    """Held-out prompts: of one length, or as different as they come."""
    examples = held_out.examples(40 * rows, SEED, KINDS)
    encoded = sorted((held_out.writer(name).prompt(e) for e in examples), key=len)
    if lengths == "mixed":
        return [encoded[index * (len(encoded) - 1) // max(rows - 1, 1)] for index in range(rows)]
    middle = (len(encoded) - rows) // 2
    return [prompt[-len(encoded[middle]) :] for prompt in encoded[middle : middle + rows]]


def timed(
    llm: mtp_mlx.LLM, chosen: Sequence[Sequence[int]], drafts: int | str
) -> tuple[float, list[mtp_mlx.Reply]]:
    """Wall seconds of a batch, and its replies."""
    started = time.perf_counter()
    replies = llm.batch(chosen, temperature=0.0, max_tokens=MAX_TOKENS, num_draft_tokens=drafts)
    return time.perf_counter() - started, replies


def measure(llm: mtp_mlx.LLM, name: str, rows: int, lengths: str, repeats: int) -> dict[str, Any]:
    """One case."""
    chosen = prompts(name, rows, lengths)
    plain, auto, drafted = [], [], 0
    for repeat in range(repeats):
        spent: dict[int | str, float] = {0: 0.0, "auto": 0.0}
        texts = {}
        for drafts in ("auto", 0, 0, "auto") if repeat % 2 else (0, "auto", "auto", 0):
            took, replies = timed(llm, chosen, drafts)
            spent[drafts] += took
            texts[drafts] = [reply.token_ids for reply in replies]
            if drafts == "auto":
                drafted = sum(reply.spec.drafted for reply in replies)
        assert texts[0] == texts["auto"], "drafting has changed a text"
        plain.append(spent[0])
        auto.append(spent["auto"])
    decision = next(
        (reply.spec.parked for reply in timed(llm, chosen, "auto")[1] if reply.spec.parked),
        llm.stats().decision,
    )
    return {
        "pair": name,
        "rows": rows,
        "lengths": lengths,
        "over_plain": compared(plain, auto),
        "drafted": drafted,
        "decision": decision,
    }


def main() -> int:
    """Print the table and the JSON line; 1 where auto has lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=9)
    parser.add_argument("--pair", choices=NAMES, action="append")
    parser.add_argument("--rows", type=positive, nargs="+", default=BATCHES)
    arguments = parser.parse_args()
    results = []
    print(f"{'pair':>9} {'rows':>4} {'lengths':>7} {'auto/plain':>18}")
    for name in arguments.pair or NAMES:
        with mtp_mlx.load(name, max_num_seqs=max(arguments.rows)) as llm:
            for rows in arguments.rows:
                for lengths in ("equal", "mixed") if rows > 1 else ("equal",):
                    case = measure(llm, name, rows, lengths, arguments.repeats)
                    results.append(case)
                    begin = "{pair:>9} {rows:>4} {lengths:>7}".format(**case)
                    print(f"{begin} {told(case['over_plain']):>18}  {case['decision']}")
    print(json.dumps({"bench": "auto", "machine": asdict(where()), "cases": results}))
    return int(min(case["over_plain"]["median"] for case in results) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
