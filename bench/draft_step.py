"""What a draft step costs beside a plain target step, on the embedded pairs, by number of rows.

A draft step is a third of a chain of three, for all rows at once, from launch until its tokens are
known. A plain step is one engine step without drafts as it decodes, the next one always queued
behind it: of a run of four the first fills the pipeline and is not timed, and what is left queued
behind the last is awaited before a draft is timed. Both are repeated in turn in one run; medians,
quartiles and the ratio of the same repeats are shown, unless it is within their noise. Prints a
table, then one JSON line.

    python -m bench.draft_step --rows 1 4 8
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict
from typing import Any

import mlx.core as mx

from bench.counts import positive
from bench.peers.child import check_preloaded
from bench.ratios import compared, told
from bench.rounds import NEW_TOKENS, quartiles, running_engine
from mtp_mlx.embedded import NAMES
from mtp_mlx.engine.draft import propose
from mtp_mlx.engine.engine import Engine
from mtp_mlx.measure.where import where
from tests.exact.pairs import embedded_pair

CHAIN = 3
STEPS = 3  # timed of a run
MOST_REPEATS = NEW_TOKENS // (STEPS + 1) - 1  # then rows have written all they may


def plain_s(engine: Engine) -> float:
    """A plain step of all rows, in the midst of others."""
    engine.step()
    started = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    took = time.perf_counter() - started
    mx.synchronize()  # the next one is queued: its work belongs to no draft
    return took / STEPS


def measure(name: str, rows: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of both steps, their quartiles, and their ratio."""
    pair = embedded_pair(name)
    plain = running_engine(Engine(pair.target, None, max_num_seqs=rows), rows, 0)
    drafting = running_engine(Engine(pair.target, pair.drafter, max_num_seqs=rows), rows, CHAIN)
    sequences = tuple(row for row in drafting.slots if row is not None)
    seconds: dict[str, list[float]] = {"plain": [], "draft": []}
    for _ in range(repeats):
        seconds["plain"].append(plain_s(plain))
        started = time.perf_counter()
        draft = propose(pair.target, pair.drafter, drafting.cache, sequences, (CHAIN,) * rows)
        mx.eval(draft.tokens, draft.is_sound)
        seconds["draft"].append((time.perf_counter() - started) / CHAIN)
    times = {f"{key}_ms": 1e3 * statistics.median(own) for key, own in seconds.items()}
    spans = {f"{key}_quartiles_ms": quartiles(own) for key, own in seconds.items()}
    share = compared(seconds["draft"], seconds["plain"])
    return {"pair": name, "rows": rows, **times, **spans, "over_plain": share}


def main() -> int:
    """Print the table and the JSON line; 2 and one line where a library is not preloaded."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=positive, default=60)
    parser.add_argument("--pair", choices=NAMES, action="append")
    parser.add_argument("--rows", type=positive, nargs="+", default=[1])
    parser.add_argument("--preloaded", metavar="LIBRARY", help="refuse to run without it")
    asked = parser.parse_args()
    if asked.repeats > MOST_REPEATS:
        reason = f"--repeats is {asked.repeats}, above {MOST_REPEATS}"
        print(f"bench.draft_step: {reason}", file=sys.stderr)
        return 2
    try:
        check_preloaded(asked.preloaded)
    except RuntimeError as error:
        print(f"bench.draft_step: {error}", file=sys.stderr)
        return 2
    lines = []
    heads = (f"{step + ' step ms':>15}{'quartiles':>14}" for step in ("plain", "draft"))
    print(f"{'pair':>10}{'rows':>5}{''.join(heads)}{'ratio':>19}")
    for name in asked.pair or NAMES:
        for rows in asked.rows:
            line = measure(name, rows, asked.repeats)
            lines.append(line)
            print(shown(line), flush=True)
    print(json.dumps({"bench": "draft_step", "machine": asdict(where()), "lines": lines}))
    return 0


def shown(line: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [f"{line['pair']:>10}{line['rows']:>5}"]
    for key in ("plain", "draft"):
        lower, upper = line[f"{key}_quartiles_ms"]
        cells.append(f"{line[f'{key}_ms']:>15.2f}{f'{lower:.2f}-{upper:.2f}':>14}")
    return "".join(cells) + f"{told(line['over_plain']):>19}"


if __name__ == "__main__":
    sys.exit(main())
