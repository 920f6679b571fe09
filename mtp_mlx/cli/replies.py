"""Prints replies as they are written: text, one JSON object, or a line of JSON for each chunk."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.stats import describe
from mtp_mlx.cli.terminal import RESET, can_style, dim, is_terminal, painted, tint, unmarked
from mtp_mlx.reply import Chunk, Reply
from mtp_mlx.text.calls import ToolCall
from mtp_mlx.text.visible import visible

if TYPE_CHECKING:
    from mtp_mlx.api import LLM, Stream

Streams = Sequence["Stream"]
THOUGHT_HEAD = "thinking: "


@dataclass(frozen=True)
class Look:
    """How text is printed: with the model's own escapes? without its thoughts? drafts tinted?"""

    is_raw: bool
    hides_thoughts: bool
    tints_drafts: bool = True


class _Printed:
    """What one reply leaves on stdout: its thought, dim and on a terminal alone, then what it says,
    then a line for each call of a tool."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._shows_thoughts = is_terminal() and not look.hides_thoughts
        self._mark = tint if look.tints_drafts and can_style() else unmarked
        self._dim = dim if can_style() else unmarked
        self._is_empty, self._in_thought = True, False

    def add(self, chunk: Chunk) -> None:
        """Print a chunk; calls are printed when they are complete."""
        if chunk.kind == "content":
            self._print(painted(chunk, self._mark, is_raw=self._look.is_raw), in_thought=False)
        elif chunk.kind == "reasoning" and self._shows_thoughts:
            self._print(painted(chunk, self._dim, is_raw=self._look.is_raw, is_all=True), True)

    def add_call(self, call: ToolCall) -> None:
        """Print a call on its own line."""
        line = f"{call.name}({call.arguments})"
        line = line if self._look.is_raw else visible(line)
        self._print(line if self._is_empty or self._in_thought else f"\n{line}", in_thought=False)

    def _print(self, text: str, in_thought: bool) -> None:
        if not text:
            return
        head = ""
        if in_thought != self._in_thought:
            head = self._dim(THOUGHT_HEAD) if in_thought else "\n\n"
            head = head if self._is_empty or not in_thought else f"\n\n{head}"
        print(head + text, end="", flush=True)
        self._is_empty, self._in_thought = False, in_thought

    def end(self) -> None:
        """End the line; after escapes of the model's own, its style too."""
        print(RESET if self._look.is_raw and is_terminal() else "", flush=True)


def print_text(llm: "LLM", streams: Streams, look: Look, *, with_stats: bool) -> None:
    """One reply after the other, each as soon as it is written; a blank line between them."""
    for index, stream in enumerate(streams):
        if index:
            print()
        printed = _Printed(look)
        try:
            for chunk in stream:
                printed.add(chunk)
            for call in stream.reply.tool_calls:
                printed.add_call(call)
        finally:
            printed.end()
        if stream.reply.warning is not None:
            click.echo(f"mtp-mlx: {visible(stream.reply.warning)}", err=True)
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
    from mtp_mlx.hub.find import title

    drafter = llm.pair.drafter
    body: dict[str, Any] = {
        "model": title(llm.pair.target),
        "draft_model": None if drafter is None else title(drafter),
        "prompt_token_ids": streams[0].prompt_ids,
    }
    replies = [stream.reply.to_json() for stream in streams]
    body |= replies[0] if len(replies) == 1 else {"choices": replies}
    return body | {"peak_memory_bytes": llm.peak_memory_bytes()}


def _print_stats(llm: "LLM", reply: Reply, with_stats: bool) -> None:
    if with_stats:
        click.echo(describe(reply, llm.peak_memory_bytes(), llm.stats()), err=True)
