"""A chat without a terminal: one message through a pipe, its reply on stdout."""

from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.chat.pieces import kind_of
from mtp_mlx.cli.replies import print_json
from mtp_mlx.cli.terminal import can_style, painted, tint, unmarked
from mtp_mlx.cli.turns import turn_of

if TYPE_CHECKING:
    from mtp_mlx.api import Stream
    from mtp_mlx.chat.saved import Chats, Place, Saved
    from mtp_mlx.chat.settings import Settings


def reply_once(
    message: str,
    loading: dict[str, Any],
    settings: "Settings",
    opened: "tuple[Chats | None, Saved, Place | None]",
    *,
    as_json: bool,
) -> None:
    """Print the reply; keep the chat where it has a name."""
    from mtp_mlx.api import load

    chats, saved, place = opened
    talk = saved.conversation.asked(message)
    with load(**loading, max_num_seqs=1) as llm:
        if llm.note:
            click.echo(f"mtp-mlx: {llm.note}", err=True)
        stream = llm.stream(talk.messages(), **settings.keywords)
        if as_json:
            print_json(llm, [stream], with_stats=False)
        else:
            _print(stream, settings)
        talk = talk.answered(turn_of(llm, message, stream.reply))
    if chats is not None and place is not None:
        chats.write(place, saved.held_with(talk, loading))


def _print(stream: "Stream", settings: "Settings") -> None:
    mark = tint if settings.color_drafts and can_style() else unmarked
    try:
        for chunk in stream:
            if kind_of(chunk) == "content" or not settings.hide_thinking:
                print(painted(chunk, mark), end="", flush=True)
    finally:
        print(flush=True)
