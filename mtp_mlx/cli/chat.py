"""`mtp-mlx chat`: talk with a model on a terminal; one message and its reply through a pipe."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mtp_mlx.cli.options import (
    Grouped,
    loading_of,
    merge_draft_tokens,
    model_names,
    model_options,
    option,
    tint_option,
)
from mtp_mlx.cli.prompt import read_piped
from mtp_mlx.cli.sampling import sampling_options
from mtp_mlx.cli.terminal import is_terminal
from mtp_mlx.cli.thinking import merge_template_args, thinking_options

if TYPE_CHECKING:
    from mtp_mlx.chat.saved import Chats, Place, Saved

NO_MESSAGE = (
    "chat needs a terminal, or a message through a pipe; for one reply there is mtp-mlx generate"
)
BUILT_IN = "tiny"
DRAFTER = ("draft_model", "no_draft")


def _targets(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return model_names(context, click.Argument(["model"]), incomplete)


@click.command(cls=Grouped)
@click.argument("name", required=False, metavar="[MODEL]", shell_complete=_targets)
@option("Chat", "-s", "--system-prompt", metavar="TEXT", help="What comes before the chat.")
@option("Chat", "--continue", "is_continued", is_flag=True, help="Go on with the last chat.")
@option("Chat", "--session", metavar="NAME", help="Go on with the chat NAME, or begin it.")
@model_options
@thinking_options
@sampling_options
@tint_option
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object; needs a pipe.")
@click.pass_context
def command(context: click.Context, name: str | None, as_json: bool, **given: Any) -> None:
    """Talk with MODEL. Type /help in a chat for what can be done there.

    Chats are kept in the user's data folder. Text that is piped in is one message: its reply is
    printed, and only kept with --session or --continue.
    """
    from mtp_mlx.chat.settings import Settings

    chats, saved, place = _opened(given.pop("is_continued"), given.pop("session"))
    system = given.pop("system_prompt")
    if system is not None:
        saved = saved.with_system(system)
    loading = _loading(context, name, given, saved)
    merge_draft_tokens(given)
    merge_template_args(given)
    view = {
        "color_drafts": given.pop("color_drafts"),
        "hide_thinking": given.pop("hide_thinking"),
    }
    options = {key: value for key, value in given.items() if value not in (None, ())}
    settings = Settings(options, **view)
    if _is_interactive() and not as_json:
        from mtp_mlx.cli.repl import talk

        talk(loading, settings, chats, saved, place)
    else:
        from mtp_mlx.cli.piped import reply_once

        message = read_piped()
        if not message.strip():
            raise click.UsageError(NO_MESSAGE)
        reply_once(message, loading, settings, (chats, saved, place), as_json=as_json)


def _is_interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and is_terminal()


def _opened(is_continued: bool, session: str | None) -> "tuple[Chats | None, Saved, Place | None]":
    """The folder of chats (None where the user has none), a chat, and where it is kept."""
    from mtp_mlx.chat.saved import Chats, Place, Saved

    if is_continued and session is not None:
        raise click.UsageError("give --continue or --session, and not both")
    try:
        chats = Chats(data_folder() / "chats")
    except OSError:
        if is_continued or session is not None:
            raise
        return None, Saved(), None
    if is_continued:
        names = chats.names()
        if not names:
            raise click.UsageError("there is no chat to go on with yet; begin one: mtp-mlx chat")
        return chats, *chats.read(names[0])
    if session is None:
        return chats, Saved(), None
    if chats.has(session):
        return chats, *chats.read(session)
    return chats, Saved(), Place(session)


def data_folder() -> Path:
    """Where chats and typed messages are kept. Raises OSError for a user without a home folder."""
    from platformdirs import user_data_path

    fault = "no folder for chats: the user has no home folder; set HOME or XDG_DATA_HOME"
    try:
        folder = user_data_path("mtp-mlx", appauthor=False)
    except RuntimeError as error:
        raise OSError(fault) from error
    if not folder.is_absolute():  # "~", as older versions of platformdirs leave it
        raise OSError(fault)
    return folder


def _loading(
    context: click.Context, name: str | None, given: dict[str, Any], saved: "Saved"
) -> dict[str, Any]:
    """The keywords of load(). What the command line leaves open is the chat's own, else that of the
    settings, else what is proposed."""
    sources = {each: context.get_parameter_source(each) for each in ("model", *DRAFTER)}
    named = given["model"] if sources["model"] is ParameterSource.COMMANDLINE else None
    if None not in (name, named) and name != named:
        raise click.UsageError(f"{name} and --model {named} contradict; give one")
    if name is None and named is None and saved.model is not None:
        given["model"] = saved.model
        if ParameterSource.COMMANDLINE not in [sources[each] for each in DRAFTER]:
            given["draft_model"], given["no_draft"] = saved.draft_model, False
    elif name is not None:
        given["model"] = name
    elif sources["model"] is ParameterSource.DEFAULT:
        given["model"] = proposed_model(given["backend"], given["memory_limit"])
    return loading_of(given)


def proposed_model(backend: str, memory_limit: int | str | None) -> str:
    """For a chat that names no model: the best pair that fits and is here, else the built-in one,
    and on a terminal how to get the best that fits."""
    if backend != "mlx":
        return BUILT_IN
    from mtp_mlx.backends import require_mlx
    from mtp_mlx.hub.find import is_here

    require_mlx()
    from mtp_mlx.estimate import suggest_here

    found = suggest_here(memory_limit)
    for offer in found.fitting:
        if is_here(offer.name, None, wants_drafter=True):
            return offer.name
    best = found.best
    if best is not None and _is_interactive():
        size = f"{best.download / 1e9:.1f} GB with its drafter"
        click.echo(
            f"mtp-mlx: {best.name} fits this machine ({size}): mtp-mlx pull {best.name}; "
            f"{BUILT_IN} until then",
            err=True,
        )
    return BUILT_IN
