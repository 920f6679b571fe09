"""`mtp-mlx bench`: what a model does here, with drafts beside without, and beside another server.

The figures are for whoever wonders whether drafts pay: every one comes with how it scatters, and a
ratio that the scatter could explain is not printed.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import (
    Grouped,
    Sizes,
    draft_model_option,
    dtype_option,
    is_count,
    limit_option,
    loading_of,
    model_argument,
    option,
)
from mtp_mlx.cli.prompt import read_lines
from mtp_mlx.cli.terminal import show_note, show_progress
from mtp_mlx.request import MAX_DRAFT_TOKENS

if TYPE_CHECKING:
    from mtp_mlx.measure.client import Server
    from mtp_mlx.measure.report import Settings

MOST_TOKENS, MOST_TRIALS = 1 << 16, 1000
PNG = ".png"


class Depths(click.ParamType):
    """Drafts a round, separated by commas."""

    name = "N,auto,..."

    def convert(
        self,
        value: str | list[int | str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> list[int | str]:
        if isinstance(value, list):
            return value
        parts = list(dict.fromkeys(part.strip() for part in value.split(",")))
        if not all(each == "auto" or _is_depth(each) for each in parts):
            self.fail(
                f"{value[:40]!r} is no list of auto and counts from 0 to {MAX_DRAFT_TOKENS}: "
                "0,3,auto",
                param,
                ctx,
            )
        return [part if part == "auto" else int(part) for part in parts]


def _is_depth(text: str) -> bool:
    return is_count(text) and int(text) <= MAX_DRAFT_TOKENS


def _png(context: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """A file that can be written, known before anything is measured."""
    if value is None:
        return None
    path = Path(value)
    if path.suffix.lower() != PNG:
        raise click.BadParameter(f"{value!r} must end in {PNG}", context, param)
    folder = path.absolute().parent
    if not folder.is_dir() or path.is_dir():
        raise click.BadParameter(f"{value!r} cannot be written: no such folder", context, param)
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise click.BadParameter(f"{value!r} cannot be written: no permission", context, param)
    return path


@click.command(cls=Grouped)
@model_argument
@draft_model_option
@dtype_option
@limit_option
@option("Measuring", "--batch-sizes", "--batch-size", type=Sizes(), help="Rows at once (1,4,8).")
@option(
    "Measuring",
    "--depths",
    type=Depths(),
    metavar=Depths.name,
    help=f"Drafts a round, 0 to {MAX_DRAFT_TOKENS} and auto (0,auto); 0 is always measured.",
)
@option(
    "Measuring",
    "--num-trials",
    type=click.IntRange(1, MOST_TRIALS),
    metavar="N",
    help="Repeats, each there and back (5); no ratio from fewer than 3.",
)
@option(
    "Measuring",
    "--generation-tokens",
    type=click.IntRange(2, MOST_TOKENS),
    metavar="N",
    help="New tokens at most of each reply (128).",
)
@option(
    "Measuring",
    "--prompt-tokens",
    type=click.IntRange(1, MOST_TOKENS),
    metavar="N",
    help="Of the prompts whose reading is timed (512).",
)
@option(
    "Measuring",
    "--prompts",
    metavar="FILE",
    help="A prompt a line, - is stdin; simple questions when absent.",
)
@option("Measuring", "--quick", is_flag=True, help="Less of all: 1,4 rows, 3 repeats, short texts.")
@option(
    "Measuring",
    "--against",
    metavar="URL",
    help="Another server of OpenAI's API, asked the same by turns.",
)
@option(
    "Measuring",
    "--against-model",
    metavar="NAME",
    help="What its model is called; the only one it lists when absent.",
)
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@option("Output", "--md", "is_markdown", is_flag=True, help="Print tables in Markdown.")
@option("Output", "--plot", metavar="FILE.png", callback=_png, help="Draw it; needs mtp-mlx[plot].")
def command(as_json: bool, is_markdown: bool, plot: Path | None, **given: Any) -> None:
    """Measure MODEL (tiny when absent) with and without drafts, by turns in one run.

    Reading prompts, time to the first token, tokens a second, drafts accepted, the host's share of
    a round, peak memory, and what a verify costs by its tokens. Replies are greedy, to prompts that
    differ and to one and the same. A ratio that the spread of the repeats could explain is not
    printed.
    """
    if as_json and is_markdown:
        raise click.UsageError("give --json or --md, and not both")
    if given["against_model"] is not None and given["against"] is None:
        raise click.UsageError("--against-model names a model of --against, which is not given")
    loading = loading_of(given)
    settings = _settings(given)
    file = given["prompts"]
    texts = None if file is None else read_lines(file)
    from mtp_mlx.api import load
    from mtp_mlx.measure.chats import built_in
    from mtp_mlx.measure.compare import compare
    from mtp_mlx.measure.plot import check_plots, draw
    from mtp_mlx.measure.report import PLAIN
    from mtp_mlx.measure.tables import describe

    if plot is not None:
        check_plots()
    server = _server(given)
    with load(**loading, max_num_seqs=max(settings.batch_sizes)) as llm:
        show_note(llm)
        if given["depths"] is None and not llm.has_drafter:
            settings = replace(settings, depths=(PLAIN,))
        try:
            asked = built_in() if texts is None else texts
            report = compare(llm, asked, settings, server, show_progress)
        finally:
            show_progress("")
    print(json.dumps(report.to_json()) if as_json else describe(report, is_markdown=is_markdown))
    if plot is not None:  # after the figures, which took long: it may fail
        draw(report, plot)


def _settings(given: dict[str, Any]) -> "Settings":
    """What to measure: as it was asked for, the rest as it is built in."""
    from mtp_mlx.measure.report import QUICK, THOROUGH

    names = {
        "batch_sizes": "batch_sizes",
        "depths": "depths",
        "num_trials": "repeats",
        "generation_tokens": "max_tokens",
        "prompt_tokens": "prompt_tokens",
    }
    asked = {own: given[flag] for flag, own in names.items() if given[flag] is not None}
    lists = {
        own: tuple(dict.fromkeys(value)) for own, value in asked.items() if isinstance(value, list)
    }
    return replace(QUICK if given["quick"] else THOROUGH, **(asked | lists))


def _server(given: dict[str, Any]) -> "Server | None":
    from mtp_mlx.measure.client import find_server

    url = given["against"]
    return None if url is None else find_server(url, given["against_model"])
