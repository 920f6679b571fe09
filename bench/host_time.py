"""What the host itself takes of a round, beside two plain steps of mlx-lm.

Host time is what passes outside MLX's eval while all rows decode: the graph is built, tokens are
looked at, the next round is decided. It is the same clock for both engines, around whatever begins
a computation or waits for one (bench/peers/meter.py); each engine has a process of its own, they
run in turn, greedily, and every reply has `--tokens` ids. A round of ours is one forward of the
target, with its drafts.

    make peers
    python -m bench.host_time
"""

import argparse
import contextlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.counts import at_least, positive
from bench.peers import environment, process
from bench.peers.cases import LENGTHS, Case, Variant, run, spread
from bench.peers.job import Done
from bench.peers.process import LM, OWN
from bench.peers.prompts import prompts
from bench.ratios import compared, told
from mtp_mlx.embedded import NAMES
from mtp_mlx.measure.where import where

PLAIN = Variant(LM, 0)
OURS = (Variant(OWN, 0), Variant(OWN, 1), Variant(OWN, 3), Variant(OWN, "auto"))
ROWS = (1, 8)
STEPS = 2.0  # of mlx-lm, plain: a round may take their host time
WARM_UP = 16
MS = 1e3


def host_s(runs: list[Done]) -> float:
    """Seconds of a forward outside MLX's eval."""
    outside = sum(done.decode_s - done.eval_s for done in runs)
    return outside / sum(done.forwards for done in runs)


def measure(
    engines: dict[str, process.Process], case: Case, tokens: int, repeats: int
) -> dict[Variant, list[float]]:
    """Host seconds a forward of each variant, by repeat, interleaved."""
    chosen = [each for each in (PLAIN, *OURS) if each.engine in engines]
    for each in chosen:
        run(engines[each.engine], case, WARM_UP, each.drafts, counts=False)
    seen: dict[Variant, list[float]] = {each: [] for each in chosen}
    for repeat in range(repeats):
        for each in chosen if repeat % 2 == 0 else reversed(chosen):
            found = run(engines[each.engine], case, tokens, each.drafts, counts=True)
            seen[each].append(host_s(found))
    return seen


def lines(pair: str, rows: int, seen: dict[Variant, list[float]]) -> list[dict[str, Any]]:
    """What is shown of a case: `over_two_steps` is at most 1 where the bar is met."""
    found = []
    for each, values in seen.items():
        over = None
        if each != PLAIN and PLAIN in seen:
            over = compared(values, [STEPS * base for base in seen[PLAIN]])
        found.append(
            {
                "pair": pair,
                "rows": rows,
                "variant": each.name,
                "host_s": spread(values),
                "over_two_steps": over,
            }
        )
    return found


def show(line: dict[str, Any]) -> None:
    host, over = line["host_s"], line["over_two_steps"]
    beside = "-" if over is None else told(over)
    span = f"{MS * host['lowest']:.2f}-{MS * host['highest']:.2f}"
    print(
        f"{line['pair']:>10}{line['rows']:>6}{line['variant']:>16}{MS * host['median']:>10.2f}"
        f"{span:>14}{beside:>22}",
        flush=True,
    )


def main() -> int:
    """Print the table and the JSON line; 2 where a process fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=NAMES, default="tiny")
    parser.add_argument("--rows", type=int, nargs="+", choices=range(1, 9), default=list(ROWS))
    parser.add_argument("--tokens", type=at_least(2), default=128, help="new ones of each row")
    parser.add_argument("--repeats", type=positive, default=5)
    asked = parser.parse_args()
    try:
        return beside(asked)
    except process.Failed as error:
        print(f"bench.host_time: {error}", file=sys.stderr)
        return 2


def beside(asked: argparse.Namespace) -> int:
    """All that is asked for, from processes to JSON."""
    present = [name for name in (LM, OWN) if name in process.installed()]
    if LM not in present:
        print(f"{LM}: {environment.ABSENT}")
    print("host time a forward, ms")
    print(
        f"{'pair':>10}{'rows':>6}{'variant':>16}{'median':>10}{'low-high':>14}{'/ 2 of mlx-lm':>22}"
    )
    found = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        folders = process.write_pairs(asked.pair, folder)
        engines = {
            name: stack.enter_context(process.running(name, folders[name], folder / "cache", None))
            for name in present
        }
        texts = prompts(asked.pair, LENGTHS["equal"])
        for rows in asked.rows:
            case = Case.of(rows, "equal", texts)
            case = Case(rows, case.lengths, case.batches[:1])
            for line in lines(
                asked.pair, rows, measure(engines, case, asked.tokens, asked.repeats)
            ):
                found.append(line)
                show(line)
    print(
        json.dumps(
            {
                "bench": "host_time",
                "machine": asdict(where()),
                "tokens": asked.tokens,
                "lines": found,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
