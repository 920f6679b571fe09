"""What a draft step costs beside a plain target step, on the embedded pairs, batch 1.

A draft step is a third of a chain of three, from launch until its tokens are known; a plain step is
one engine step without drafts. Both are repeated in turn in one run, and medians compared. Prints a
table, then one JSON line.

    python -m bench.draft_step
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict

import mlx.core as mx

from bench.counts import positive
from bench.rounds import running_engine
from mtp_mlx.embedded import NAMES
from mtp_mlx.engine.draft import propose
from mtp_mlx.engine.engine import Engine
from mtp_mlx.measure.where import where
from tests.exact.pairs import embedded_pair

CHAIN = 3


def measure(name: str, repeats: int) -> dict[str, float | str]:
    """Median milliseconds of both steps, and their ratio."""
    pair = embedded_pair(name)
    plain = running_engine(Engine(pair.target, None, max_num_seqs=1), 1, 0)
    drafting = running_engine(Engine(pair.target, pair.drafter, max_num_seqs=1), 1, CHAIN)
    rows = tuple(row for row in drafting.slots if row is not None)
    seconds: dict[str, list[float]] = {"plain": [], "draft": []}
    for _ in range(repeats):
        started = time.perf_counter()
        plain.step()
        mx.synchronize()  # the next step is already queued: its work belongs here, not to the draft
        seconds["plain"].append(time.perf_counter() - started)
        started = time.perf_counter()
        draft = propose(pair.target, pair.drafter, drafting.cache, rows, (CHAIN,))
        mx.eval(draft.tokens, draft.is_sound)
        seconds["draft"].append((time.perf_counter() - started) / CHAIN)
    step, own = (1e3 * statistics.median(seconds[key]) for key in ("plain", "draft"))
    return {"pair": name, "plain_ms": step, "draft_ms": own, "ratio": own / step}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=200)
    parser.add_argument("--pair", choices=NAMES, action="append")
    arguments = parser.parse_args()
    rows = [measure(name, arguments.repeats) for name in arguments.pair or NAMES]
    print(f"{'pair':>10} {'plain step ms':>14} {'draft step ms':>14} {'ratio':>6}")
    for row in rows:
        print("{pair:>10} {plain_ms:>14.2f} {draft_ms:>14.2f} {ratio:>6.3f}".format(**row))
    print(json.dumps({"bench": "draft_step", "machine": asdict(where()), "rows": rows}))


if __name__ == "__main__":
    main()
