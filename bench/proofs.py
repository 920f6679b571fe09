"""What the tests prove, as figures: those of README that come of tests, each with what it said.

Runs the commands one after another, as anybody may run them alone, and picks the line with the
count out of what they print. Prints a table, then one JSON line. Exit code 1 where one failed, or
printed no such line.

    python -m bench.proofs --only mutants waits client    some minutes
    python -m bench.proofs                                all, an hour and more
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_mlx.measure.tables import table
from mtp_mlx.measure.where import where

ROOT = Path(__file__).resolve().parents[1]
LAW = "exactness law: .*"
PASSED = r"\d+ passed.*"


@dataclass(frozen=True)
class Proof:
    """`python -m {words}`; `pattern`: the lines of its output that tell the figure."""

    name: str
    words: str
    pattern: str

    @property
    def command(self) -> str:
        return f"python -m {self.words}"


PROOFS = (
    Proof("law", "pytest -q -n 2 tests/exact/test_law.py", LAW),
    Proof("pairs", "pytest -q -n 2 tests/embedded/test_law.py", LAW),
    Proof("mutants", "tests.law.mutants", r"\d+ of \d+ mutants killed"),
    Proof("waits", "pytest -q tests/test_contracts.py -k waits", PASSED),
    Proof("client", "pytest -q tests/openai_client", PASSED),
    Proof("load", "tests.load", "(?:steady|burst|churn|aborted|drained).*"),
    Proof("soak", "tests.load --soak 600", "soak.*"),
)


@dataclass(frozen=True)
class Outcome:
    """`said`: the lines that tell the figure."""

    name: str
    command: str
    seconds: float
    exit_code: int
    said: list[str]

    @property
    def is_proved(self) -> bool:
        return self.exit_code == 0 and bool(self.said)


def run(proof: Proof) -> Outcome:
    """Run it to its end; what a failed one printed goes to stderr."""
    started = time.perf_counter()
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *proof.words.split()],
        cwd=ROOT,
        env=mine,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = re.findall(f"^ *({proof.pattern})$", done.stdout, re.MULTILINE)
    seconds = time.perf_counter() - started
    outcome = Outcome(proof.name, proof.command, seconds, done.returncode, found)
    if not outcome.is_proved:
        print(done.stdout, file=sys.stderr)
    return outcome


def main() -> int:
    """Print the table and the JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [proof.name for proof in PROOFS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    asked = parser.parse_args()
    outcomes = []
    for proof in [proof for proof in PROOFS if proof.name in asked.only]:
        print(f"--- {proof.command}", file=sys.stderr, flush=True)
        outcomes.append(run(proof))
    heads = ("proof", "s", "exit", "said")
    rows = [
        (each.name if line == 0 else "", f"{each.seconds:.0f}", str(each.exit_code), said)
        for each in outcomes
        for line, said in enumerate(each.said or ["nothing"])
    ]
    print(table(heads, rows, words=("proof", "said")))
    found = [asdict(each) for each in outcomes]
    print(json.dumps({"bench": "proofs", "machine": asdict(where()), "proofs": found}))
    return int(not all(each.is_proved for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
