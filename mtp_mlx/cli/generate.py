"""`mtp-mlx generate`: replies to a prompt, streamed as text or printed as JSON."""

import json
import secrets
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import (
    Grouped,
    is_count,
    loading_of,
    merge_draft_tokens,
    model_options,
    option,
    rows_option,
    tint_option,
)
from mtp_mlx.cli.prompt import read_file, read_piped, read_prompt
from mtp_mlx.cli.replies import Look, print_json, print_json_lines, print_text
from mtp_mlx.cli.sampling import sampling_options
from mtp_mlx.cli.terminal import show_note
from mtp_mlx.cli.thinking import merge_template_args, thinking_options
from mtp_mlx.fields import shown_name
from mtp_mlx.request import MAX_LOGPROBS, MAX_SEED

if TYPE_CHECKING:
    from mtp_mlx.api import Prompt

MAX_REPLIES = 64


class TokenIds(click.ParamType):
    """Ids separated by commas."""

    name = "IDS"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        parts = value.split(",")
        if not all(is_count(part.strip()) for part in parts):
            self.fail(f"{value[:40]!r} is not a list of ids such as 5,7,9", param, ctx)
        return [int(part) for part in parts]


@click.command(cls=Grouped)
@click.argument("words", nargs=-1, metavar="[PROMPT]...")
@option("Prompt", "-p", "--prompt", metavar="TEXT", help="The prompt; - reads it from stdin.")
@option("Prompt", "-s", "--system-prompt", metavar="TEXT", help="What comes before the chat.")
@option(
    "Prompt", "--ignore-chat-template", is_flag=True, help="The prompt is raw text, not a message."
)
@option("Prompt", "--prompt-ids", type=TokenIds(), help="Token ids in place of a text prompt.")
@option("Prompt", "--tools", metavar="FILE", help="Functions it may call: a JSON list.")
@option("Prompt", "--schema", metavar="FILE", help="The reply is JSON that meets this JSON schema.")
@model_options
@rows_option("--max-num-seqs", "Replies written at once; more take turns.")
@sampling_options
@thinking_options
@option(
    "Output",
    "-n",
    "count",
    type=click.IntRange(1, MAX_REPLIES),
    default=1,
    metavar="N",
    help="Replies, from seed, seed + 1, ...",
)
@option(
    "Output",
    "--logprobs",
    type=click.IntRange(0, MAX_LOGPROBS),
    metavar="N",
    help="With --json: log-probabilities of each token and of the N likeliest.",
)
@option("Output", "--stats", is_flag=True, help="Print figures of each reply on stderr.")
@tint_option
@option("Output", "--raw", is_flag=True, help="Keep the model's control characters and escapes.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@option(
    "Output",
    "--jsonl",
    "as_lines",
    is_flag=True,
    help="A line of JSON a chunk, last that of --json.",
)
def command(words: tuple[str, ...], as_json: bool, as_lines: bool, **given: Any) -> None:
    """Write a reply to PROMPT. Several words are one prompt; text that is piped in comes before it.

    The prompt is a chat message, in the checkpoint's own template. Sampling options that are not
    given take the checkpoint's generation_config. A thought is shown on a terminal alone, before
    the reply; calls of tools are printed and not carried out.
    """
    is_raw, with_stats, hides = (given.pop(name) for name in ("raw", "stats", "hide_thinking"))
    has_tint = given.pop("color_drafts")
    if as_json and as_lines:
        raise click.UsageError("give --json or --jsonl, and not both")
    if is_raw and (as_json or as_lines):
        raise click.UsageError("--raw is for text; JSON holds the exact text anyway")
    if given["logprobs"] is not None and not (as_json or as_lines):
        raise click.UsageError("--logprobs is for --json and --jsonl; text has no place for them")
    loading, rows = loading_of(given), given.pop("max_num_seqs")
    merge_draft_tokens(given)
    merge_template_args(given)
    given["tools"] = _json(given["tools"])
    given["response_format"] = _response_format(given.pop("schema"))
    prompt = _prompt(words, given)
    seeds = _seeds(given.pop("seed"), given.pop("count"))
    from mtp_mlx.api import load

    with load(**loading, max_num_seqs=min(len(seeds), rows)) as llm:
        show_note(llm)
        streams = [llm.stream(prompt, seed=seed, **given) for seed in seeds]
        if as_json:
            print_json(llm, streams, with_stats=with_stats)
        elif as_lines:
            print_json_lines(llm, streams, with_stats=with_stats)
        else:
            look = Look(is_raw=is_raw, hides_thoughts=hides, tints_drafts=has_tint)
            print_text(llm, streams, look, with_stats=with_stats)


def _response_format(file: str | None) -> dict[str, Any] | None:
    if file is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": _json(file)}}


def _json(file: str | None) -> Any:
    """The JSON of a file; what it holds is checked where it is used."""
    if file is None:
        return None
    try:
        return json.loads(read_file(file))
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{shown_name(file)} is not JSON: {error}") from error


def _prompt(words: tuple[str, ...], given: dict[str, Any]) -> "Prompt":
    """Token ids, raw text or messages; takes the options that say so out of `given`."""
    ids, system, text = given.pop("prompt_ids"), given.pop("system_prompt"), given.pop("prompt")
    is_plain = given.pop("ignore_chat_template")
    if system is not None and (is_plain or ids is not None):
        raise click.UsageError("--system-prompt needs the chat template, which is not used here")
    if ids is not None:
        if words or text is not None or read_piped():
            raise click.UsageError("give a PROMPT (or text on stdin) or --prompt-ids, and not both")
        return ids
    user = read_prompt(words, text)
    if is_plain:
        return user
    messages = [{"role": "user", "content": user}]
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """One seed a reply; a single one that is not given is drawn where it is used."""
    if count == 1:
        return [seed]
    first = secrets.randbelow(MAX_SEED - count) if seed is None else seed
    return [first + index for index in range(count)]
