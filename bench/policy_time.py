"""What deciding costs: the policy's time a round, beside the round, on the embedded pairs.

Rows of held-out prompts run with `auto` in an engine whose planner is timed: allocate before a
round, observe after it, as the engine calls them. A decision that is made while the round before
is in the air costs the device nothing; it is counted all the same. Prints a table, then one JSON
line.

    python -m bench.policy_time
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict
from typing import Any

from bench.counts import at_least, positive
from mtp_mlx.embedded import NAMES
from mtp_mlx.engine.calibrate import calibrate
from mtp_mlx.engine.engine import Engine
from mtp_mlx.engine.planner import Decision, PolicyPlanner
from mtp_mlx.engine.policy import Outcome, RowInput, Shadow, Timing
from mtp_mlx.engine.timing import Bench
from mtp_mlx.measure.where import where
from mtp_mlx.request import MAX_DRAFT_TOKENS, Request, Sampling
from tests.embedded import held_out
from tests.exact.pairs import Pair, embedded_pair

BATCHES = (1, 4, 8)
SEED = 5
MAX_TOKENS = 160
CALIBRATION_S, REPEATS = 2.0, 3


class Timed(PolicyPlanner):
    """A planner that notes the seconds of its own work."""

    spent = 0.0

    def plan(self, rows: tuple[RowInput, ...], in_the_air: int = 0) -> Decision:
        started = time.perf_counter()
        decision = super().plan(rows, in_the_air)
        self.spent += time.perf_counter() - started
        return decision

    def learn(
        self,
        decision: Decision,
        outcomes: tuple[Outcome, ...],
        timing: Timing,
        shadows: tuple[Shadow, ...],
    ) -> None:
        started = time.perf_counter()
        super().learn(decision, outcomes, timing, shadows)
        self.spent += time.perf_counter() - started


def measure(name: str, pair: Pair, rows: int, max_tokens: int) -> dict[str, Any]:
    """Median milliseconds of deciding and of a round, over the rounds of a full batch."""
    bench = Bench(pair.target, pair.drafter, rows, MAX_DRAFT_TOKENS, time.perf_counter)
    planner = Timed(calibrate(bench, CALIBRATION_S, REPEATS), rows, MAX_DRAFT_TOKENS)
    engine = Engine(pair.target, pair.drafter, rows, planner=planner)
    for example in held_out.examples(3 * rows, SEED, ["stories"]):
        prompt = tuple(held_out.writer(name).prompt(example))
        engine.submit(
            Request(
                prompt=prompt, sampling=Sampling(), max_tokens=max_tokens, num_draft_tokens=None
            )
        )
    deciding, rounds = [], []
    while not engine.is_idle:
        before, started = planner.spent, time.perf_counter()
        engine.step()
        took = time.perf_counter() - started
        if engine.stats().running == rows:
            deciding.append(planner.spent - before)
            rounds.append(took)
    share = sum(deciding) / sum(rounds)
    own, whole = (1e3 * statistics.median(times) for times in (deciding, rounds))
    return {"pair": name, "rows": rows, "decision_ms": own, "round_ms": whole, "share": share}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=NAMES, action="append")
    parser.add_argument("--rows", type=positive, nargs="+", default=BATCHES)
    parser.add_argument(
        "--tokens", type=at_least(2), default=MAX_TOKENS, help="new ones of each row"
    )
    arguments = parser.parse_args()
    results = [
        measure(name, embedded_pair(name), rows, arguments.tokens)
        for name in arguments.pair or NAMES
        for rows in arguments.rows
    ]
    print(f"{'pair':>9} {'rows':>4} {'decision ms':>12} {'round ms':>9} {'share':>6}")
    for row in results:
        line = "{pair:>9} {rows:>4} {decision_ms:>12.3f} {round_ms:>9.2f} {share:>6.1%}"
        print(line.format(**row))
    print(json.dumps({"bench": "policy_time", "machine": asdict(where()), "rows": results}))


if __name__ == "__main__":
    main()
