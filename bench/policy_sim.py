"""How well does the policy choose draft lengths? It is driven on synthetic machines and rows.

Without options: every regime, profile and batch of the design's tables, and twenty regimes more
(own_regimes.json). Prints a line for each case, the goals with the cases that miss them, the time
of a decision, and one JSON line. With --regimes the cases of a file instead; with --json only a
JSON list of the cases' figures.

    python -m bench.policy_sim --jobs 2
    python -m bench.policy_sim --regimes FILE.json --json
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

from bench import sim_file, sim_regimes, sim_report
from bench.counts import positive
from bench.sim_machine import Case
from bench.sim_policy import Policy
from bench.sim_run import Result, compare
from mtp_mlx.measure.where import where

OWN = Path(__file__).with_name("own_regimes.json")
# Rows of the batch for which the time of a decision is reported.
TIMED_ROWS = 8


def simulate(case: Case) -> tuple[Result, list[float]]:
    """The figures of one case, and the seconds of its decisions at a batch of eight."""
    policy = Policy(case)
    result = compare(case, policy)
    result = replace(result, exact_over_best_fixed=sim_report.exact_over_best_fixed(case))
    return result, policy.timed(TIMED_ROWS)


def run(cases: list[Case], jobs: int) -> tuple[list[Result], list[float]]:
    """All cases, on `jobs` processes, in their order; and the times of all decisions."""
    if jobs == 1:
        pairs = [simulate(case) for case in cases]
    else:
        with get_context("spawn").Pool(jobs) as pool:
            pairs = pool.map(simulate, cases, chunksize=1)
    return [result for result, _ in pairs], [second for _, times in pairs for second in times]


def figures(result: Result) -> dict[str, float | str]:
    """The public figures of a case; throughputs in tokens per unit time, at the same batch where
    rows finish apart (sim_run.py says why; the table's last column is plain tokens over time)."""
    return {
        "name": result.name,
        "plain": result.plain,
        "best_fixed": result.best_fixed,
        "best_fixed_depth": result.best_fixed_depth,
        "ours": result.ours,
        "ours_over_plain": result.over_plain,
        "ours_over_best_fixed": result.over_best_fixed,
    }


def report(results: list[Result], times: list[float]) -> None:
    """Print the table, the goals, and one JSON line."""
    for line in [*sim_report.table(results), "", *sim_report.kinds(results), ""]:
        print(line)
    for line in sim_report.lines(results):
        print(line)
    summary = {
        "bench": "policy_sim",
        "machine": asdict(where()),
        "cases": len(results),
        "worst_over_plain": min(r.over_plain for r in results),
        "mean_over_best_fixed": statistics.fmean(r.over_best_fixed for r in results),
    }
    if times:
        summary["decision_ms"] = 1e3 * statistics.median(times)
        print(f"\na decision at batch {TIMED_ROWS} takes {summary['decision_ms']:.2f} ms (median)")
    print(json.dumps(summary))


def main() -> int:
    """Parse, simulate, print; 2 for a file that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regimes", type=Path, help="simulate the cases of this JSON file")
    parser.add_argument("--json", action="store_true", help="print only the list of figures")
    parser.add_argument("--jobs", type=positive, default=1, help="processes to run on")
    parser.add_argument("--quick", action="store_true", help="a dozenth of the cases")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="one case of N")
    arguments = parser.parse_args()
    try:
        if arguments.regimes is not None:
            cases = sim_file.read(arguments.regimes)
        else:
            cases = sim_regimes.builtin() + sim_file.read(OWN)
    except sim_file.BadRegime as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.quick:
        cases = sim_report.quick_cases(cases)
    cases = cases[:: arguments.every]
    results, times = run(cases, arguments.jobs)
    if arguments.json:
        print(json.dumps([figures(result) for result in results]))
    else:
        report(results, times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
