"""What `mtp-mlx fit` expects a built-in pair to take, beside the peak that is measured.

Each case is a process of its own, as a user starts it: load the pair, write so many texts of so
many tokens at once, compare. Memory is counted by MLX. Prints a table, then one JSON line.

    python -m bench.fit_load
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from itertools import product
from typing import Any

from mtp_mlx.embedded import NAMES
from mtp_mlx.measure.where import where

ROWS, CONTEXTS = (1, 8), (64, 500)


def case(pair: str, rows: int, context: int) -> dict[str, Any]:
    """One run of the command."""
    words = ["fit", pair, "--load", "--batch", str(rows), "--ctx", str(context), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mtp_mlx", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(done.stdout)
    sizes = {"expected_bytes": found["peak_expected"], "measured_bytes": found["peak_measured"]}
    return {"pair": pair, "rows": rows, "context": context, **sizes, "off": found["error"]}


def main() -> None:
    """Print the table and the JSON line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pair", choices=NAMES, action="append")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), choices=range(1, 9))
    asked = parser.parse_args()
    lines = []
    print(f"{'pair':>10}{'rows':>6}{'context':>9}{'expected MB':>13}{'measured MB':>13}{'off':>8}")
    for pair, rows, context in product(asked.pair or NAMES, asked.rows, CONTEXTS):
        lines.append(case(pair, rows, context))
        sizes = [lines[-1][name] / 1e6 for name in ("expected_bytes", "measured_bytes")]
        print(
            f"{pair:>10}{rows:>6}{context:>9}{sizes[0]:>13.2f}{sizes[1]:>13.2f}"
            f"{lines[-1]['off']:>+8.1%}",
            flush=True,
        )
    print(json.dumps({"bench": "fit_load", "machine": asdict(where()), "lines": lines}))


if __name__ == "__main__":
    main()
