"""The evidence in one run: the benches in order on the built-in pairs.

Every bench is a process of its own, so that none meets another's caches or memory, and prints its
own table; then comes one table of all, and last a line of JSON for each: the machine first, then
command, seconds, exit code and what the bench itself printed last. `mtp-mlx bench` draws its plot
to build/bench.png, which git ignores. Exit code 1 where one failed.

    python -m bench.all                    make bench
    python -m bench.all --only auto serve  some of them
    python -m bench.all --smoke            the smallest sizes, which show nothing but that they run;
                                           those of which even these take minutes are left out
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.headlines import headline
from mtp_mlx.measure.tables import table
from mtp_mlx.measure.where import where

ROOT = Path(__file__).resolve().parents[1]
PLOT = "build/bench.png"  # below it
CURVES = "--batch-sizes 1,4,8 --depths 0,1,3,7,auto"  # that are drawn


@dataclass(frozen=True)
class Bench:
    """`python -m {module} {sizes}`; `smoke`: its smallest sizes, None where they take too long.
    A bench prints its results as JSON in its last line."""

    module: str
    sizes: str = ""
    smoke: str | None = ""

    @property
    def name(self) -> str:
        return self.module.removeprefix("bench.")

    def words(self, *, is_smoke: bool) -> list[str]:
        """Module and arguments."""
        sizes = self.smoke if is_smoke else self.sizes
        assert sizes is not None, f"{self.name} has no smoke"
        return [self.module, *sizes.split()]


# One a line, in the order in which they run. tests/bench/test_all.py fails for one that is missing.
BENCHES = (
    Bench("bench.parity", "", "--variant e2b"),
    Bench("bench.rounds", "--repeats 60", "--repeats 1"),
    Bench("bench.graph", "", "--pair tiny"),
    Bench("bench.draft_step", "--rows 1 4 8", "--repeats 1"),
    Bench("bench.auto", "--repeats 3", "--repeats 1 --pair tiny --rows 1"),
    Bench("bench.ragged", "--rounds 100 --peer --peer-tokens 50", "--rounds 1 --agreement 1"),
    Bench("bench.acceptance", "--prompts 15", "--prompts 1 --pair tiny"),
    Bench("bench.right", "--prompts 60", "--prompts 1"),
    Bench("bench.policy_time", "--rows 1 8", "--pair tiny --rows 1 --tokens 12"),
    Bench("bench.policy_sim", "--quick --jobs 2", "--every 1000"),
    Bench("bench.prefixes", "", "--turns 2"),
    Bench("bench.copies", "", "--quick"),
    Bench("bench.schema_replies", "--replies 40", "--replies 1 --pairs tiny"),
    Bench("bench.serve", "--clients 1 4 --requests 1 --repeats 3", None),
    Bench("bench.side_by_side", "--tokens 64 --repeats 3 --rows 1 8", None),
    Bench("bench.host_time", "--repeats 3", "--rows 1 --tokens 4 --repeats 1"),
    Bench("bench.start", "--repeats 3", "--quick"),
    Bench("bench.growth", "--quick", None),
    Bench("bench.full_size", "--pair 26b --shrink 16 --quick", None),
    Bench("bench.roofline", "--chips", "--quick"),
    Bench("bench.fit_table"),
    Bench("bench.fit_load", "", "--pair tiny --rows 1"),
    Bench("bench.proofs", "--only mutants waits client", "--only waits"),
    Bench("mtp_mlx", f"bench tiny --quick {CURVES} --json --plot {PLOT}", None),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a bench. `result`: its last line as JSON, None where that is none."""

    name: str
    command: str
    seconds: float
    exit_code: int
    result: Any

    @property
    def is_right(self) -> bool:
        return self.exit_code == 0 and self.result is not None


def last_json(output: str) -> Any:
    """The last line, if it is JSON."""
    lines = output.rstrip("\n").splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return None


def run(bench: Bench, *, is_smoke: bool) -> Outcome:
    """Run it, and pass on what it prints as it comes."""
    words = bench.words(is_smoke=is_smoke)
    started, lines = time.perf_counter(), []
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if not line.startswith(("{", "[")):  # the JSON comes with the others
                print(line, end="", flush=True)
    seconds = time.perf_counter() - started
    command = f"python -m {' '.join(words)}"
    return Outcome(bench.name, command, seconds, process.returncode, last_json("".join(lines)))


def summary(outcomes: list[Outcome]) -> str:
    """One line a bench: what it came to, and how long it took."""
    rows = [
        (each.name, f"{each.seconds:.0f}", _verdict(each), headline(each.name, each.result))
        for each in outcomes
    ]
    words = ("bench", "came to")
    return table(("bench", "s", "exit", "came to"), rows, words=words)


def _verdict(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.exit_code}, no JSON"
    return str(outcome.exit_code)


def main() -> int:
    """Run them, print the table and the JSON lines."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes")
    names = [bench.name for bench in BENCHES]
    parser.add_argument("--only", nargs="+", choices=names, help="some of them")
    arguments = parser.parse_args()
    wanted = [bench for bench in BENCHES if bench.name in (arguments.only or names)]
    if arguments.smoke:
        too_long = [bench.name for bench in wanted if bench.smoke is None]
        if arguments.only and too_long:
            parser.error(f"--smoke: {', '.join(too_long)} takes minutes even so; leave it out")
        wanted = [bench for bench in wanted if bench.smoke is not None]
    here = where()
    outcomes = []
    (ROOT / PLOT).parent.mkdir(exist_ok=True)
    for bench in wanted:
        print(f"\n--- {' '.join(bench.words(is_smoke=arguments.smoke))}", flush=True)
        outcomes.append(run(bench, is_smoke=arguments.smoke))
    total_s = sum(each.seconds for each in outcomes)
    print(f"\n{here}\n{summary(outcomes)}\n{total_s / 60:.1f} minutes\n")
    print(json.dumps({"bench": "all", "machine": asdict(here), "seconds": total_s}))
    for each in outcomes:
        print(json.dumps(asdict(each)))
    return int(not all(each.is_right for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
