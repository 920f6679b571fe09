"""The calibration of a pair on this machine: what is timed, in which order, and what follows.

Repeats are interleaved, one of each trial and then again, so that heat or other work that comes and
goes falls on all alike; a figure is the median of its repeats, after a warm-up that may compile.
What the policy compares costs by comes first: where time is short, the other points of the curve
are left to interpolation. Its end is always measured: beyond it there would be nothing but a guess.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from mtp_mlx.engine.policy import Calibration, Experts
from mtp_mlx.engine.timing import Bench, Clock
from mtp_mlx.measured import Measured, Point

# Token counts in the order in which they are worth measuring: plain, a drafting chat, both sides
# of the steps that kernels have (5-6, 12-13, 32-33), the widest of 8 rows; then what lies between,
# and the rounds of many rows.
COUNTS = (1, 4, 8, 2, 5, 6, 3, 16, 12, 13, 32, 64, 10, 24, 33, 18, 25, 40, 48, 56)
COUNTS += (128, 256, 512, 96, 192, 384)
MOST_TOKENS = max(COUNTS)  # wider forwards are never timed
# Always timed, besides the widest: a plain step, a drafting chat, and a point between it and the
# end, or the curve of a slow machine would be one straight line.
NEEDED = (1, 4, 16)
MOST_CHECKED = 8  # tokens of a forward that a load times again: wider ones take too long
NUM_CHECKED = 3  # the first so many of COUNTS tell whether a stored calibration still holds
MIN_REPEATS = 3  # a median of fewer hides no stall
# A wide forward that takes longer than this and than the whole budget is timed once: on a CPU that
# of a large model may take a minute.
SLOW_S = 2.0
# Rows and depths of the timed drafts.
DRAFT_ROWS, DRAFT_DEPTHS = (1, 4, 8), (1, 4)
# Waiting for the host never takes more of a forward than this; more is noise.
MOST_HOST_SHARE = 0.9
# Where random tokens read so few more experts than equal ones, an expert's price cannot be told.
MIN_MORE = 0.5
# 80 % of normally distributed values lie within so many standard deviations.
SHARE_WITHIN, DEVIATIONS_WITHIN = 0.8, 1.2816

Progress = Callable[[str], None]
Label = tuple[str, int, int]  # what, tokens or rows, depth


@dataclass
class Trial:
    """One thing to time, and its seconds so far; `is_over`: it is not to be repeated."""

    label: Label
    run: Callable[[], float]
    taken: list[float] = field(default_factory=list)
    is_over: bool = False

    def again(self) -> None:
        self.taken.append(self.run())

    @property
    def seconds(self) -> float:
        return statistics.median(self.taken)


@dataclass(frozen=True)
class Drift:
    """How many times as long as a calibration says things take now: forwards (the median of a few),
    and a forward of few tokens with three draft steps before it. `spread`: see Calibration."""

    forward: float
    round: float
    spread: float


def reach(max_tokens: int) -> int:
    """Tokens of the widest forward that is timed for rounds of up to `max_tokens`: a calibration
    that ends below says nothing of them."""
    return min(max_tokens, MOST_TOKENS)


def calibrate(bench: Bench, budget_s: float, repeats: int) -> Calibration:
    """The calibration alone; see `measure`."""
    return measure(bench, budget_s, repeats).calibration


def measure(
    bench: Bench, budget_s: float, repeats: int, progress: Progress = lambda message: None
) -> Measured:
    """Time a pair for about `budget_s` seconds: as many of the curve's points as can be repeated
    three times, then up to `repeats` of all. A slow machine takes longer, for the curve's ends and
    two points between (wide ones once at least), the drafts and the experts are always measured.

    A mixture of experts is timed with other tokens in each row, and with the same token and context
    in all rows, which reads the experts of one.
    """
    trials, repeats = _run(bench, budget_s, repeats, progress)
    host_s = max(trials["verify", 1, 0].seconds - trials["plain", 1, 0].seconds, 0.0)
    forwards = sorted((t for t in trials.values() if t.label[0] == "verify"), key=lambda t: t.label)
    points = tuple(
        Point(trial.label[1], _without(host_s, trial.seconds), spread_of([trial.taken]))
        for trial in forwards
    )
    experts = None
    if bench.experts is not None:
        progress("timing: experts")
        experts = _price(bench, trials["routed", bench.num_routed, 0])
    depth_s, token_s = _fit_drafts([t for t in trials.values() if t.label[0] == "draft"])
    calibration = Calibration(
        verify=tuple((point.tokens, point.seconds) for point in points),
        draft_depth_s=depth_s,
        draft_token_s=token_s,
        host_s=host_s,
        spread=spread_of([trial.taken for trial in trials.values()]),
        repeats=repeats,
        experts=experts,
    )
    return Measured(calibration, points)


def drift(bench: Bench, known: Calibration) -> Drift:
    """Time three forwards and the draft steps of one row again."""
    held = dict(known.verify)
    widest = min(bench.max_tokens, MOST_CHECKED)
    counts = [count for count in COUNTS if count in held and count <= widest][:NUM_CHECKED]
    forwards = [_forward(bench, count) for count in counts]
    shallow, deep = (_drafting(bench, 1, depth) for depth in DRAFT_DEPTHS)
    trials = [*forwards, shallow, deep]
    for trial in trials:
        trial.run()
    for _ in range(MIN_REPEATS):
        for trial in trials:
            trial.again()
    expected = [held[count] + known.host_s for count in counts]
    ratios = [t.seconds / seconds for t, seconds in zip(forwards, expected, strict=True)]
    # Their difference, for what a burst begins with is not known.
    steps_s = max(deep.seconds - shallow.seconds, 0.0)
    num_steps = DRAFT_DEPTHS[1] - DRAFT_DEPTHS[0]
    known_s = num_steps * (known.draft_depth_s + known.draft_token_s)
    check = min(1, len(counts) - 1)  # the forward of few drafts
    return Drift(
        forward=statistics.median(ratios),
        round=(steps_s + forwards[check].seconds) / (known_s + expected[check]),
        spread=spread_of([trial.taken for trial in trials]),
    )


def spread_of(samples: Sequence[Sequence[float]]) -> float:
    """Relative standard deviation of one timing, from repeats of several things.

    Taken from the deviation from their medians that 80 % keep within: a stall now and then, which
    a median ignores, does not count, but a machine that is disturbed all the time does.
    """
    deviations: list[float] = []
    for taken in samples:
        middle = statistics.median(taken)
        own = sorted(abs(seconds / middle - 1) for seconds in taken)
        deviations += own[1:]  # the median's own, or nearly, says nothing
    if not deviations:
        return 0.0
    return float(np.quantile(deviations, SHARE_WITHIN)) / DEVIATIONS_WITHIN


def _run(
    bench: Bench, budget_s: float, repeats: int, progress: Progress
) -> tuple[dict[Label, Trial], int]:
    """All trials by label, and how often the least repeated of them was run; those that are too
    slow to be repeated do not count."""
    clock, started = bench.clock, bench.clock()
    needed, optional = _trials(bench)
    trials, pass_s = [], 0.0
    for number, trial in enumerate([*needed, *optional]):
        progress(f"warming up: {_spell(trial.label)}")
        once_s = _once(trial, clock, max(budget_s, SLOW_S))
        left_s = (MIN_REPEATS - 1) * (pass_s + once_s)
        fits = clock() - started + left_s <= budget_s
        if number >= len(needed) and not fits:
            break
        trials.append(trial)
        pass_s += once_s
    done = 1
    while done < repeats:
        if done >= MIN_REPEATS and clock() - started + pass_s > budget_s:
            break
        progress(f"timing: {done + 1} of up to {repeats}")
        for trial in trials:
            if not trial.is_over:
                trial.again()
        done += 1
    least = min(len(trial.taken) for trial in trials if not trial.is_over)
    return {trial.label: trial for trial in trials}, least


def _once(trial: Trial, clock: Clock, slow_s: float) -> float:
    """Warm up, then the first repeat; the seconds for which that one keeps the machine, for the
    warm-up may compile. A wide forward that takes more than `slow_s` is over after the warm-up."""
    started = clock()
    first = trial.run()
    what, count, _ = trial.label
    if what == "verify" and count >= NEEDED[-1] and clock() - started > slow_s:
        trial.taken.append(first)
        trial.is_over = True
        return 0.0
    started = clock()
    trial.again()
    return clock() - started


def _trials(bench: Bench) -> tuple[list[Trial], list[Trial]]:
    """What is always timed, and the points of the curve that are left out where time is short."""
    widest = reach(bench.max_tokens)
    first = sorted({*(count for count in NEEDED if count <= widest), widest})
    rest = [count for count in COUNTS if count < widest and count not in first]
    needed = [Trial(("plain", 1, 0), bench.plain_s), *(_forward(bench, n) for n in first)]
    rows = sorted({min(count, bench.num_slots) for count in DRAFT_ROWS})
    needed += [_drafting(bench, count, depth) for count in rows for depth in DRAFT_DEPTHS]
    if bench.experts is not None:
        label = ("routed", bench.num_routed, 0)
        needed.append(Trial(label, lambda: bench.routed_s(is_alike=False)))
    return needed, [_forward(bench, count) for count in rest]


def _forward(bench: Bench, count: int) -> Trial:
    return Trial(("verify", count, 0), lambda: bench.forward_s(count))


def _drafting(bench: Bench, rows: int, depth: int) -> Trial:
    return Trial(("draft", rows, depth), lambda: bench.draft_s(rows, depth))


def _spell(label: Label) -> str:
    what, count, depth = label
    return f"{what} {count}" + (f" rows, {depth} deep" if depth else "")


def _without(host_s: float, seconds: float) -> float:
    return max(seconds - host_s, (1 - MOST_HOST_SHARE) * seconds)


def _fit_drafts(trials: Sequence[Trial]) -> tuple[float, float]:
    """Seconds of one position more, and of one row more in it.

    A timing is a wait for the host + depth · (position + rows · row); relative errors count.
    """
    shapes = np.array([(1.0, depth, depth * rows) for _, rows, depth in (t.label for t in trials)])
    seconds = np.array([trial.seconds for trial in trials])
    _, depth_s, token_s = _nonnegative_fit(shapes / seconds[:, None], np.ones_like(seconds))
    return depth_s, token_s


def _nonnegative_fit(columns: np.ndarray, values: np.ndarray) -> list[float]:
    """Least squares with factors from 0: the best of all choices of columns [n, m]."""
    width = columns.shape[1]
    best, best_error = [0.0] * width, float(np.sum(values**2))
    for size in range(1, width + 1):
        for chosen in combinations(range(width), size):
            factors = np.linalg.lstsq(columns[:, chosen], values, rcond=None)[0]
            error = float(np.sum((columns[:, chosen] @ factors - values) ** 2))
            if (factors < 0).any() or error >= best_error:
                continue
            best, best_error = [0.0] * width, error
            for index, factor in zip(chosen, factors, strict=True):
                best[index] = float(factor)
    return best


def _price(bench: Bench, routed: Trial) -> Experts:
    """The price of one more distinct expert: what tokens that differ take more than equal ones.

    Last of all, because the rows have one context from then on.
    """
    assert bench.experts is not None
    num_experts, top_k = bench.experts.num_experts, bench.experts.top_k
    more = bench.distinct(is_alike=False)
    bench.share_context()
    more -= bench.distinct(is_alike=True)
    alike = Trial(("alike", bench.num_routed, 0), lambda: bench.routed_s(is_alike=True))
    alike.run()
    for _ in routed.taken:
        alike.again()
    if more < MIN_MORE:
        return Experts(num_experts, top_k, 0.0)
    return Experts(num_experts, top_k, max(routed.seconds - alike.seconds, 0.0) / more)
