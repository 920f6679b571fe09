"""`mtp-mlx fit`: what a pair will take on this machine, before anything is fetched or read.

Exit code 4 where it does not fit.
"""

import json
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import (
    Grouped,
    draft_model_option,
    dtype_option,
    limit_option,
    loading_of,
    model_argument,
    option,
    rows_option,
)
from mtp_mlx.cli.terminal import show_note
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.fit import MARGIN, MAX_BLOCK, spell

if TYPE_CHECKING:
    from mtp_mlx.estimate import Estimate

CONTEXT = 8192
MOST_CONTEXT = 1 << 24
WIDTH = 18


@click.command(cls=Grouped)
@model_argument
@draft_model_option
@dtype_option
@limit_option
@option(
    "Texts",
    "--ctx",
    "--context",
    "tokens",
    type=click.IntRange(1, MOST_CONTEXT),
    metavar="N",
    help=f"Tokens of each text, prompt and reply ({CONTEXT}, or the model's longest).",
)
@rows_option("--batch", "Texts that are written at once.")
@option("Texts", "--load", is_flag=True, help="Load it, write such texts, compare the peak.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> None:
    """Print what MODEL takes in memory, and whether it fits here.

    MODEL is what is here, or one of e2b e4b 12b 26b 31b, with -4bit, -8bit or another suffix of
    converters: those are planned from their published shapes, and need not be here. Exit code 4
    where it does not fit.
    """
    loading = loading_of(given)
    from mtp_mlx.estimate import estimate, find_subject

    subject = find_subject(loading["model"], loading["draft_model"])
    tokens = given["tokens"] or min(CONTEXT, subject.config.max_positions)
    limit = loading["memory_limit"]
    found = estimate(subject, given["max_num_seqs"], tokens, loading["dtype"], limit)
    measured = _rehearse(found, loading) if given["load"] else None
    print(json.dumps(_body(found, measured)) if as_json else _table(found, measured))
    if not found.plan.fits:
        click.echo(f"mtp-mlx: {_refusal(found)}", err=True)
        context.exit(DoesNotFit.exit_code)


def _rehearse(found: "Estimate", loading: dict[str, Any]) -> int | None:
    """The measured peak in bytes; None where the pair does not fit, and is not loaded."""
    from mtp_mlx.api import load
    from mtp_mlx.estimate import rehearse

    if not found.subject.is_here:
        raise click.UsageError(f"--load needs the files of {found.subject.name}, which is not here")
    if not found.plan.fits:
        return None
    with load(**loading, max_num_seqs=found.plan.rows) as llm:
        show_note(llm)
        return rehearse(llm, found.plan.rows, found.plan.tokens)


def _rows(found: "Estimate") -> list[tuple[str, int, str]]:
    """The parts of the plan with their bytes and what is to be known of them."""
    plan, layers = found.plan, found.subject.config.layers
    owners = [layer for layer in layers if layer.owns_cache]
    sliding = [layer for layer in owners if layer.window is not None]
    ring = max((layer.window + MAX_BLOCK for layer in sliding if layer.window), default=0)
    full = len(owners) - len(sliding)
    rows = f"{plan.rows} x" if plan.rows > 1 else ""
    return [
        ("weights", plan.weights, ""),
        ("drafter", plan.drafter, found.subject.draft_name or "none"),
        ("sliding K/V", plan.windows, f"{rows} {len(sliding)} layers, {ring:,} keys".strip()),
        ("full K/V", plan.texts, f"{rows} {full} layers, {plan.tokens:,} keys".strip()),
        ("prefill, rounds", plan.work, "one prompt chunk of the longest context, or one round"),
        ("margin", plan.margin, f"{MARGIN:.0%} of what a load takes"),
    ]


def _table(found: "Estimate", measured: int | None) -> str:
    """What is printed without --json."""
    plan, subject = found.plan, found.subject
    where = "" if subject.is_here else ", from its published shape: it is not here"
    lines = [f"{subject.name}, {found.dtype}{where}", ""]
    lines += [_line(name, size, note) for name, size, note in _rows(found)]
    lines.append(_line("needed", plan.total, f"{plan.rows} texts of {plan.tokens:,} tokens"))
    lines.append(_line("this machine", plan.limit, found.bound))
    lines += ["", _line("peak expected", plan.peak, "in use while those texts are written")]
    if measured is not None:
        off = f"the estimate is off by {_error(plan.peak, measured):+.1%}"
        lines.append(_line("peak measured", measured, off))
    if plan.fits:
        lines.append(f"fits: {spell(plan.limit - plan.total)} are left")
    return "\n".join(lines)


def _line(name: str, size: int, note: str) -> str:
    return f"{name:<{WIDTH}}{spell(size):>12}  {note}".rstrip()


def _error(expected: int, measured: int) -> float:
    return expected / measured - 1


def _refusal(found: "Estimate") -> str:
    plan = found.plan
    return (
        f"{found.subject.name} does not fit: {spell(plan.total)} are needed and "
        f"{spell(plan.limit)} are there; take a smaller or quantised model, a smaller --batch or "
        "--ctx"
    )


def _body(found: "Estimate", measured: int | None) -> dict[str, Any]:
    """What --json prints, sizes in bytes."""
    plan, subject, budget = found.plan, found.subject, found.budget
    body: dict[str, Any] = {
        "model": subject.name,
        "draft_model": subject.draft_name,
        "is_here": subject.is_here,
        "dtype": found.dtype,
        "rows": plan.rows,
        "context": plan.tokens,
        "weights": plan.weights,
        "drafter": plan.drafter,
        "sliding_kv": plan.windows,
        "full_kv": plan.texts,
        "work": plan.work,
        "margin": plan.margin,
        "needed": plan.total,
        "limit": plan.limit,
        "memory": budget.total,
        "bound": budget.bound,
        "peak_expected": plan.peak,
        "fits": plan.fits,
    }
    if measured is None:
        return body
    return body | {"peak_measured": measured, "error": _error(plan.peak, measured)}
