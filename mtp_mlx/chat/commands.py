"""What a line typed into a chat means: a message, or a /command with the rest of the line."""

import difflib
import re
from dataclasses import dataclass

from mtp_mlx.errors import RequestError

# name -> (what follows it, one line for /help)
COMMANDS = {
    "help": ("", "This list."),
    "clear": ("", "Begin anew; the system prompt stays, the chat so far stays on disk."),
    "system": ("[TEXT|off]", "Show or set the system prompt."),
    "think": ("on|off", "Let the model think before it replies."),
    "set": ("[NAME VALUE]", "Show or set an option: temperature, max_tokens, seed, ...; VALUE "
            "default takes it back."),
    "model": ("[NAME|DIR]", "Show the model, or go on with another one."),
    "draft": ("auto|N|off", "Drafts a round: as many as pay, always N, none."),
    "stats": ("", "All figures of the last reply."),
    "why": ("", "Why the last reply was as fast as it was."),
    "retry": ("", "Another reply to the last message."),
    "undo": ("", "Take back the last message and its reply."),
    "save": ("[NAME]", "Say where the chat is kept, or give it a name."),
    "load": ("[NAME]", "List the chats, or go on with one."),
    "tokens": ("", "How much of the context is used."),
    "bye": ("", "Leave; as Ctrl-D does."),
}  # fmt: skip
WORD = re.compile(r"/([^\s/]*)(\s|$)")
QUOTES = '"""'


@dataclass(frozen=True)
class Message:
    """Text for the model."""

    text: str


@dataclass(frozen=True)
class Command:
    """A command and what follows it, without blanks at either end."""

    name: str
    rest: str


def parse(text: str) -> Message | Command | None:
    """What was typed; None for nothing.

    A command is a line that begins with "/" and a word; a path such as /usr/bin, text after a blank
    or in triple quotes, and several lines that begin with no known command are messages. Raises
    RequestError, naming the nearest, for a command that does not exist.
    """
    if not text.strip():
        return None
    if text.lstrip().startswith(QUOTES):
        inner = text.strip().removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
        return Message(inner) if inner.strip() else None
    found = WORD.match(text)
    if found is None:
        return Message(text.strip("\n"))
    name = found[1]
    if name in COMMANDS:
        return Command(name, text[found.end() :].strip())
    if "\n" in text.strip():
        return Message(text)
    raise RequestError(
        f"there is no command /{name}{nearest(name)}; a blank before it makes it a message",
        param="command",
    )


def nearest(name: str) -> str:
    """A hint at the command that was meant, if any is near; else at /help."""
    known = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    begun = [each for each in COMMANDS if name and each.startswith(name)]
    return f", perhaps /{(begun or known)[0]}" if begun or known else "; see /help"


def is_open_quote(text: str) -> bool:
    '''Has a text begun with """ and not ended with it? Then Enter starts a line.'''
    stripped = text.strip()
    return stripped.startswith(QUOTES) and not (
        stripped.endswith(QUOTES) and len(stripped) >= 2 * len(QUOTES)
    )


def help_lines() -> list[tuple[str, str]]:
    """Commands and keys with a line each."""
    rows = [(f"/{name} {rest}".rstrip(), said) for name, (rest, said) in COMMANDS.items()]
    return [
        *rows,
        ("Enter", "sends; Alt-Enter starts a line, and so does Enter after " + QUOTES),
        ("Up, Ctrl-R", "earlier messages; Ctrl-G opens $VISUAL or $EDITOR; Tab completes"),
        ("Ctrl-C", "stops a reply and keeps what was said; Ctrl-D leaves"),
    ]
