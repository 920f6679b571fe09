"""Options that commands share, and the headings under which --help lists them."""

import json
from collections.abc import Callable
from functools import reduce
from typing import Any

import click
from click.shell_completion import CompletionItem

from mtp_mlx.embedded import NAMES
from mtp_mlx.errors import Unsupported
from mtp_mlx.fields import shown
from mtp_mlx.request import MAX_DRAFT_TOKENS

# Longer numbers are no counts or ids, and Python refuses to read very long ones.
MAX_DIGITS = 18
OTHER = "Other"
# A variable of chat templates that may be set, and the keyword that sets it.
TEMPLATE_ARGS = {"enable_thinking": "think", "preserve_thinking": "preserve_thinking"}

Decorator = Callable[[Any], Any]


class Headed(click.Option):
    """An option that --help lists under a heading."""

    def __init__(self, *arguments: Any, heading: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heading = heading


class Grouped(click.Command):
    """A command whose --help lists its options under their headings, --help itself last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                heading = param.heading if isinstance(param, Headed) else OTHER
                sections.setdefault(heading, []).append(record)
        sections[OTHER] = sections.pop(OTHER)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class DraftTokens(click.ParamType):
    """'auto' or a count."""

    name = "auto|N"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """As it is typed; click would write it in capitals."""
        return self.name

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if value == "auto" or isinstance(value, int):
            return value
        if not is_count(value):
            self.fail(f"{value[:40]!r} is neither 'auto' nor a count", param, ctx)
        return int(value)


def is_count(text: str) -> bool:
    """Is this a whole number that is short enough to read?"""
    return text.isdecimal() and len(text) <= MAX_DIGITS


def option(heading: str, *names: str, **attributes: Any) -> Decorator:
    """click.option under a heading of --help."""
    return click.option(*names, cls=Headed, heading=heading, **attributes)


def _all(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, listed in this order."""
    return lambda command: reduce(lambda inner, wrap: wrap(inner), reversed(decorators), command)


def model_names(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What the shell completes: folders, then names; bash forgets what comes before the folders."""
    from mtp_mlx.hub.find import names_here

    names = [*(NAMES if param.name == "model" else ("auto", "none")), *names_here()]
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="dir"), *found]


def _refuse(reason: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """A callback that answers an option of other programs with the reason it is not here."""

    def refuse(context: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise Unsupported(f"{param.opts[0]} {value[:40]!r}: {reason}", param=param.name)

    return refuse


def _refused(name: str, reason: str) -> Decorator:
    return click.option(name, hidden=True, expose_value=False, callback=_refuse(reason))


model_options = _all(
    option(
        "Model",
        "--model",
        default="tiny",
        show_default=True,
        metavar="NAME|DIR",
        shell_complete=model_names,
        help=f"{' or '.join(NAMES)}, which are built in; e4b-4bit or org/name of the hub's cache "
        "(mtp-mlx pull); or the folder of a target.",
    ),
    option(
        "Model",
        "--draft-model",
        metavar="auto|none|NAME",
        shell_complete=model_names,
        help="Name or folder of the drafter; auto, the default, finds the target's own.",
    ),
    option("Model", "--no-draft", is_flag=True, help="The same as --draft-model none."),
    option(
        "Model",
        "--num-draft-tokens",
        type=DraftTokens(),
        help=f"Drafts a round, 0 (plain) to {MAX_DRAFT_TOKENS}; auto: as many as pay.",
    ),
    click.option(
        "--draft-block-size", type=click.IntRange(1, MAX_DRAFT_TOKENS + 1), hidden=True
    ),  # counts the target's own token as well
    option(
        "Model",
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        help="Type of activations; float32 on CPU, the checkpoint's own on a GPU.",
    ),
    option(
        "Model",
        "--backend",
        type=click.Choice(["mlx", "numpy"]),
        default="mlx",
        show_default=True,
        help="numpy is the slow reference, without MLX.",
    ),
    option(
        "Model",
        "--check-weights",
        is_flag=True,
        help="Search all weights for NaN and infinity, not only norms, table and head.",
    ),
    _refused(
        "--max-kv-size",
        "the cache is not cut, because that changes the text; windowed layers keep no more than "
        "their window as it is. Shorten the prompt or lower --max-tokens",
    ),
    _refused(
        "--kv-bits",
        "the cache is not quantised, because that changes the text. Leave the option out",
    ),
)

sampling_options = _all(
    option("Sampling", "--temp", "--temperature", "temperature", type=float, help="0 is greedy."),
    option("Sampling", "--top-k", type=int, help="Keep the k likeliest tokens; 0: all."),
    option("Sampling", "--top-p", type=float, help="Keep the likeliest tokens up to this mass."),
    option(
        "Sampling",
        "--min-p",
        type=float,
        help="Keep tokens at least this likely, relative to the best.",
    ),
    option("Sampling", "--seed", type=int, help="Same seed, same text; drawn when absent."),
    option("Sampling", "-m", "--max-tokens", type=int, help="New tokens at most (4096)."),
    option(
        "Sampling", "--stop", multiple=True, help="End the reply before this text; may be repeated."
    ),
)


thinking_options = _all(
    option(
        "Thinking", "--think/--no-think", "think", default=None, help="Let it think first; off."
    ),
    option("Thinking", "--hide-thinking", is_flag=True, help="Do not show its thought."),
    option(
        "Thinking", "--thinking-budget", type=int, metavar="N", help="Tokens of thought at most."
    ),
    option(
        "Thinking",
        "--chat-template-args",
        metavar="JSON",
        help=f"For other programs' scripts: {' and '.join(TEMPLATE_ARGS)}, true or false.",
    ),
)


def loading_of(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of load(), taken out of `given`. Raises UsageError for a contradiction."""
    drafter, is_plain = given.pop("draft_model"), given.pop("no_draft")
    if is_plain and drafter not in (None, "none"):
        raise click.UsageError(f"--no-draft and --draft-model {drafter} contradict; give one")
    loading = {name: given.pop(name) for name in ("model", "dtype", "backend", "check_weights")}
    return loading | {"draft_model": "none" if is_plain else "auto" if drafter is None else drafter}


def merge_draft_tokens(given: dict[str, Any]) -> None:
    """Makes --draft-block-size M, where it is given, --num-draft-tokens M - 1."""
    block = given.pop("draft_block_size")
    if block is None:
        return
    if given["num_draft_tokens"] is not None:
        raise click.UsageError("give --num-draft-tokens or --draft-block-size, and not both")
    given["num_draft_tokens"] = block - 1


def merge_template_args(given: dict[str, Any]) -> None:
    """Makes --chat-template-args, where it is given, the keywords that its keys stand for."""
    text = given.pop("chat_template_args")
    for name, value in (_template_args(text) if text is not None else {}).items():
        keyword = TEMPLATE_ARGS[name]
        if given.get(keyword) is not None and given[keyword] != value:
            raise click.UsageError(
                f"--chat-template-args says {name} {json.dumps(value)}, and --think or --no-think "
                "says otherwise; give one"
            )
        given[keyword] = value


def _template_args(text: str) -> dict[str, bool]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.UsageError(
            f"--chat-template-args {shown(text)} is not a JSON object such as "
            '{"enable_thinking": true}'
        )
    for name, value in found.items():
        if name not in TEMPLATE_ARGS or not isinstance(value, bool):
            raise Unsupported(
                f"--chat-template-args: {shown(name)}: {shown(value)} cannot be honoured; only "
                f"{' and '.join(TEMPLATE_ARGS)} can be set, to true or false",
                param="chat_template_args",
            )
    return found
