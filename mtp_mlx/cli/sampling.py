"""Options that say how tokens are chosen."""

from typing import Any

import click

from mtp_mlx.cli.options import all_of, shared
from mtp_mlx.errors import RequestError
from mtp_mlx.options import read_biases


class Texts(click.types.StringParamType):
    """A text; in the environment several, a line each."""

    envvar_list_splitter = "\n"


class Biases(Texts):
    """Biases by token id: 'ID:BIAS', several between commas, or a JSON object."""

    name = "ID:BIAS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return read_biases(value)
        except RequestError as error:
            self.fail(str(error), param, ctx)


def _merged(
    context: click.Context, param: click.Parameter, values: tuple[dict[str, float], ...]
) -> dict[str, float] | None:
    """All that were given as one table."""
    found: dict[str, float] = {}
    for each in values:
        twice = sorted(found.keys() & each.keys())
        if twice:
            raise click.BadParameter(f"token {twice[0]} has two biases", context, param)
        found |= each
    return found or None


sampling_options = all_of(
    shared("Sampling", "--temp", "--temperature", "temperature", type=float, help="0 is greedy."),
    shared("Sampling", "--top-k", type=int, help="Keep the k likeliest tokens; 0: all."),
    shared("Sampling", "--top-p", type=float, help="Keep the likeliest tokens up to this mass."),
    shared(
        "Sampling",
        "--min-p",
        type=float,
        help="Keep tokens at least this likely, relative to the best.",
    ),
    shared("Sampling", "--seed", type=int, help="Same seed, same text; drawn when absent."),
    shared("Sampling", "-m", "--max-tokens", type=int, help="New tokens at most (4096)."),
    shared(
        "Sampling",
        "--stop",
        type=Texts(),
        multiple=True,
        help="End the reply before this text; may be repeated.",
    ),
    shared(
        "Sampling",
        "--repetition-penalty",
        type=float,
        help="Weaken tokens of prompt and reply; 1 is off.",
    ),
    shared(
        "Sampling",
        "--presence-penalty",
        type=float,
        help="Taken from the scores of the reply's tokens, -2 to 2.",
    ),
    shared("Sampling", "--frequency-penalty", type=float, help="The same, as often as they came."),
    shared(
        "Sampling",
        "--logit-bias",
        type=Biases(),
        multiple=True,
        callback=_merged,
        help="Added to the score of a token, -100 to 100; may be repeated, or JSON.",
    ),
)
