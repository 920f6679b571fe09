"""`mtp-mlx tune`: what drafting costs on this machine, measured at length and kept.

Exit code 1 where the timings scatter too much to be kept, or the file cannot be written.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import (
    Grouped,
    draft_model_option,
    limit_option,
    loading_of,
    model_argument,
    option,
)
from mtp_mlx.cli.stats import aligned
from mtp_mlx.cli.terminal import show_note, show_progress
from mtp_mlx.loading import MAX_NUM_SEQS

if TYPE_CHECKING:
    from mtp_mlx.api import LLM
    from mtp_mlx.measured import Point, PositionScore
    from mtp_mlx.tuning import TuneReport

ROWS, SECONDS, MOST_SECONDS = 8, 60.0, 24 * 3600.0
EXIT_NOT_KEPT = 1
MS = 1e3
BAR_WIDTH = 40
PARTS = " ▏▎▍▌▋▊▉█"  # of a character cell, in eighths
PLAIN_MARK = "#"  # where stdout cannot show those


@click.command(cls=Grouped)
@model_argument
@draft_model_option
@limit_option
@option(
    "Measuring",
    "--rows",
    type=click.IntRange(1, MAX_NUM_SEQS),
    default=ROWS,
    metavar="N",
    show_default=True,
    help="Replies that are written at once, at most.",
)
@option(
    "Measuring",
    "--max-seconds",
    type=click.FloatRange(0, MOST_SECONDS),
    default=SECONDS,
    metavar="S",
    show_default=True,
    help="Time for the costs.",
)
@option("Measuring", "--force", is_flag=True, help="Keep the figures although they scatter.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> None:
    """Measure what a round of MODEL (tiny when absent) costs here, and keep it for later loads.

    How the target's forward grows with the tokens in it, the drafter, the experts; and whether the
    drafter does better from the position it is given or the one before. A model without a drafter
    is refused. Exit code 1 where the timings scatter too much to be kept.
    """
    from mtp_mlx.api import load
    from mtp_mlx.tuning import tune

    with load(**loading_of(given), max_num_seqs=given["rows"]) as llm:
        show_note(llm)
        try:
            report = tune(
                llm,
                max_seconds=given["max_seconds"],
                force=given["force"],
                progress=show_progress,
            )
        finally:
            show_progress("")
        print(json.dumps(_body(llm, report)) if as_json else _describe(report))
    if report.refused is not None:
        click.echo(f"mtp-mlx: not kept: {report.refused}", err=True)
        context.exit(EXIT_NOT_KEPT)


def _body(llm: "LLM", report: "TuneReport") -> dict[str, Any]:
    """What --json prints."""
    from mtp_mlx.hub.find import title

    assert llm.pair.drafter is not None, "there is nothing to tune without one"
    names = {"model": title(llm.pair.target), "draft_model": title(llm.pair.drafter)}
    return names | report.to_json()


def _describe(report: "TuneReport") -> str:
    """What is printed without --json."""
    known, key = report.measured.calibration, report.key
    device = f"{key.device}, MLX {key.mlx}"
    rows = [
        ("machine", f"{key.chip}, {device}"),
        ("timings", f"{known.repeats} of each, spread {known.spread:.1%}"),
        ("host", f"{known.host_s * MS:.3f} ms of a round that drafts"),
        (
            "draft step",
            f"{known.draft_depth_s * MS:.3f} ms, and {known.draft_token_s * MS:.3f} ms a row",
        ),
    ]
    experts = known.experts
    if experts is not None:
        pool = f"{experts.top_k} of {experts.num_experts} a token"
        rows.append(("experts", f"{experts.expert_s * MS:.3f} ms for one more; {pool}"))
    rows += [(f"at {score.name}", _spell(score)) for score in report.positions]
    rows.append(("better", f"{report.better.name}; rounds use {report.positions[0].name}"))
    if report.refused is None:
        kept = "no, MTP_MLX_CALIBRATION is off" if report.stored is None else str(report.stored)
        rows.append(("kept", kept))
    return f"{_curve(report.measured.points)}\n\n{aligned(rows)}"


def _spell(score: "PositionScore") -> str:
    """The acceptance of a position by depth."""
    pairs = zip(score.accepted, score.drafted, strict=True)
    rates = " ".join(f"{accepted / max(drafted, 1):.2f}" for accepted, drafted in pairs)
    return f"{rates} of drafts accepted, {score.tokens_per_round:.2f} tokens a round"


def _curve(points: "tuple[Point, ...]") -> str:
    """Table and plot: a forward of N tokens, and how many times as long as one of 1 it takes."""
    first = points[0].seconds
    widest = max(point.seconds for point in points) / first
    lines = [f"{'N':>5} {'ms':>10} {'of N = 1':>9} {'spread':>7}"]
    for point in points:
        ratio = point.seconds / first
        figures = f"{point.tokens:>5} {point.seconds * MS:>10.3f} {ratio:>9.2f}"
        lines.append(f"{figures} {point.spread:>7.1%}  {_bar(ratio / widest)}")
    return "\n".join(lines)


def _bar(share: float) -> str:
    """A bar of that share of the width, in eighths of a character where stdout has them."""
    eighths = max(round(share * BAR_WIDTH * 8), 1)
    try:
        PARTS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return PLAIN_MARK * max(eighths // 8, 1)
    return PARTS[8] * (eighths // 8) + PARTS[eighths % 8].strip()
