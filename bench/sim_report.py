"""What the simulator's results must reach, goal by goal, and the cases that miss."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench import sim_regimes
from bench.sim_machine import Case
from bench.sim_run import Result
from mtp_mlx.engine.policy import search

# The exact allocation must beat the best common depth by this before ours must beat it at all.
CLEARLY = 1.02


@dataclass(frozen=True)
class Goal:
    """One requirement: `figure` of each case it applies to must reach `least`."""

    name: str
    least: float
    applies: Callable[[Result], bool]
    figure: Callable[[Result], float]
    is_mean: bool = False


def _clear(result: Result) -> bool:
    return result.exact_over_best_fixed is not None and result.exact_over_best_fixed >= CLEARLY


GOALS = (
    Goal("not below plain", 0.98, lambda r: r.kind != "own", lambda r: r.over_plain),
    Goal("own regimes not below plain", 0.97, lambda r: r.kind == "own", lambda r: r.over_plain),
    Goal("mean of the best fixed depth", 0.99, lambda r: True, lambda r: r.over_best_fixed, True),
    Goal(
        "stationary rows",
        0.97,
        lambda r: r.kind == "stationary",
        lambda r: r.over_best_fixed,
    ),
    Goal(
        "stationary rows after the start-up",
        0.98,
        lambda r: r.kind == "stationary",
        lambda r: r.late_over_best_fixed,
    ),
    Goal(
        "mixed rows where the exact allocation is clearly better",
        1.0,
        lambda r: r.kind == "mixed" and _clear(r),
        lambda r: r.over_best_fixed,
    ),
    Goal(
        "mixed rows elsewhere",
        0.99,
        lambda r: r.kind == "mixed" and not _clear(r),
        lambda r: r.over_best_fixed,
    ),
    Goal(
        "switch, decay, drift",
        0.90,
        lambda r: r.kind in ("switch", "decay", "drift"),
        lambda r: r.over_best_fixed,
    ),
)


def exact_over_best_fixed(case: Case) -> float | None:
    """What the best lengths by row gain over the best common depth, if acceptance were known.

    None unless all rows are there from the start to the end and never change.
    """
    if case.horizon is None or any(len(row.phases) > 1 for row in case.rows):
        return None
    candidates = []
    for row in case.rows:
        rates = row.phases[0][1]
        every = tuple(rates[min(j, len(rates) - 1)] for j in range(case.k_max))
        values = search.survival(every, case.k_max)
        candidates.append(search.Candidate(values, values, values))
    machine, batch = case.machine, len(case.rows)
    forward = tuple(machine.forward(batch + n, batch) for n in range(batch * case.k_max + 1))
    prices = search.Prices(
        forward, (0.0,) * len(forward), 0.0, machine.d0, machine.d1, machine.host
    )
    rows = tuple(candidates)
    common = max(
        search.priced(rows, (depth,) * batch, prices).rate for depth in range(case.k_max + 1)
    )
    return search.best(rows, prices, search.UNLIMITED).rate / common


def lines(results: list[Result]) -> list[str]:
    """One line a goal with its figures, and one for every case that misses it."""
    out = []
    for goal in GOALS:
        cases = [r for r in results if goal.applies(r)]
        if not cases:
            continue
        figures = [goal.figure(r) for r in cases]
        mean, worst = statistics.fmean(figures), min(figures)
        value = mean if goal.is_mean else worst
        verdict = "met" if value >= goal.least else "MISSED"
        whom = "mean" if goal.is_mean else "each"
        out.append(
            f"{goal.name:<56} {whom} >= {goal.least:.2f}  {verdict:<6}"
            f"  mean {mean:.4f}  worst {worst:.4f}  of {len(cases)}"
        )
        if not goal.is_mean:
            missed = sorted((goal.figure(r), r.name) for r in cases if goal.figure(r) < goal.least)
            out += [f"    {name:<40} {figure:.4f}" for figure, name in missed]
    return out


def table(results: list[Result]) -> list[str]:
    """One line a case."""
    head = (
        f"{'case':<40} {'plain':>7} {'fixed':>7} {'k':>2} {'ours':>7} {'/plain':>7} {'/fixed':>7} "
        f"{'clock':>7}"
    )
    return [head] + [
        f"{r.name:<40} {r.plain:>7.3f} {r.best_fixed:>7.3f} {r.best_fixed_depth:>2} {r.ours:>7.3f} "
        f"{r.over_plain:>7.3f} {r.over_best_fixed:>7.3f} {r.by_the_clock:>7.3f}"
        for r in results
    ]


def kinds(results: list[Result]) -> list[str]:
    """One line a kind of case."""
    out = []
    for kind in sorted({r.kind for r in results}):
        cases = [r for r in results if r.kind == kind]
        over = [r.over_best_fixed for r in cases]
        worst = min(r.over_plain for r in cases)
        out.append(
            f"{kind:<12} {len(cases):>4} cases, of best fixed: mean {statistics.fmean(over):.4f} "
            f"worst {min(over):.4f}; of plain: worst {worst:.4f}"
        )
    return out


def quick_cases(cases: list[Case]) -> list[Case]:
    """One case in a dozen, in every regime."""
    step = len(sim_regimes.MIXES) * 3
    return cases[::step]
