"""Prints replies as they are written: text, one JSON object, or a line of JSON for each chunk."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.stats import describe
from mtp_mlx.cli.terminal import RESET, can_style, is_terminal, painted, tint, unmarked
from mtp_mlx.embedded import name_of
from mtp_mlx.reply import Reply

if TYPE_CHECKING:
    from mtp_mlx.api import LLM, Stream

Streams = Sequence["Stream"]


def print_text(
    llm: "LLM", streams: Streams, *, with_stats: bool, is_raw: bool, has_tint: bool
) -> None:
    """One reply after the other, each as soon as it is written; a blank line between them."""
    mark = tint if has_tint and can_style() else unmarked
    for index, stream in enumerate(streams):
        if index:
            print()
        try:
            for chunk in stream:
                print(painted(chunk, mark, is_raw=is_raw), end="", flush=True)
        finally:
            print(RESET if is_raw and is_terminal() else "", flush=True)
        if len(streams) > 1:
            note = f"reply {index + 1} of {len(streams)}, seed {stream.reply.seed}"
            click.echo(f"mtp-mlx: {note}", err=True)
        _print_stats(llm, stream.reply, with_stats)


def print_json(llm: "LLM", streams: Streams, *, with_stats: bool) -> None:
    """One object; several replies are its `choices`, in place of one reply's fields."""
    for stream in streams:
        for _ in stream:
            pass
        _print_stats(llm, stream.reply, with_stats)
    print(json.dumps(_body(llm, streams)))


def print_json_lines(llm: "LLM", streams: Streams, *, with_stats: bool) -> None:
    """An object for each chunk, then the one of print_json. `index` numbers the replies from 0."""
    for index, stream in enumerate(streams):
        for chunk in stream:
            print(json.dumps({"index": index} | asdict(chunk)), flush=True)
        _print_stats(llm, stream.reply, with_stats)
    print(json.dumps(_body(llm, streams)))


def _body(llm: "LLM", streams: Streams) -> dict[str, Any]:
    drafter = llm.pair.drafter
    body: dict[str, Any] = {
        "model": name_of(llm.pair.target),
        "draft_model": None if drafter is None else name_of(drafter),
        "prompt_token_ids": streams[0].prompt_ids,
    }
    replies = [stream.reply.to_json() for stream in streams]
    body |= replies[0] if len(replies) == 1 else {"choices": replies}
    return body | {"peak_memory_bytes": llm.peak_memory_bytes()}


def _print_stats(llm: "LLM", reply: Reply, with_stats: bool) -> None:
    if with_stats:
        click.echo(describe(reply, llm.peak_memory_bytes(), llm.stats()), err=True)
