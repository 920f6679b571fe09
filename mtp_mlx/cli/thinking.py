"""Options of thoughts, for the commands that chat."""

import json
from typing import Any

import click
from click.core import ParameterSource

from mtp_mlx.cli.options import all_of, option, shared
from mtp_mlx.errors import Unsupported
from mtp_mlx.fields import shown

# A variable of chat templates that may be set, and the keyword that sets it.
TEMPLATE_ARGS = {"enable_thinking": "think", "preserve_thinking": "preserve_thinking"}

thinking_options = all_of(
    shared(
        "Thinking", "--think/--no-think", "think", default=None, help="Let it think first; off."
    ),
    shared("Thinking", "--hide-thinking", is_flag=True, help="Do not show its thought."),
    shared(
        "Thinking", "--thinking-budget", type=int, metavar="N", help="Tokens of thought at most."
    ),
    option(
        "Thinking",
        "--chat-template-args",
        metavar="JSON",
        help=f"For other programs' scripts: {' and '.join(TEMPLATE_ARGS)}, true or false.",
    ),
)


def merge_template_args(given: dict[str, Any]) -> None:
    """Makes --chat-template-args, where it is given, the keywords that its keys stand for."""
    text = given.pop("chat_template_args")
    for name, value in (_template_args(text) if text is not None else {}).items():
        keyword = TEMPLATE_ARGS[name]
        source = click.get_current_context().get_parameter_source(keyword)
        if source is ParameterSource.COMMANDLINE and given[keyword] != value:
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
