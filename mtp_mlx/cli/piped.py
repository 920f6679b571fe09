"""A chat without a terminal: one message through a pipe, its reply on stdout."""

from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.chat.saved import moved
from mtp_mlx.cli.replies import Look, print_json, print_text
from mtp_mlx.cli.terminal import show_note
from mtp_mlx.cli.turns import turn_of

if TYPE_CHECKING:
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
        show_note(llm)
        stream = llm.stream(talk.messages(), **settings.keywords)
        if as_json:
            print_json(llm, [stream], with_stats=False)
        else:
            look = Look(
                is_raw=False,
                hides_thoughts=settings.hide_thinking,
                tints_drafts=settings.color_drafts,
            )
            print_text(llm, [stream], look, with_stats=False)
        talk = talk.answered(turn_of(llm, message, stream.reply))
    if chats is not None and place is not None:
        written = chats.write(place, saved.held_with(talk, loading))
        if written.name != place.name:
            click.echo(f"mtp-mlx: {moved(place, written)}", err=True)
