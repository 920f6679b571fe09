"""The line editor of a chat: history, several lines, an external editor, completion."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle

from mtp_mlx.chat.commands import COMMANDS, is_open_quote
from mtp_mlx.chat.saved import OWNER_ONLY

PROMPT, MORE = "› ", "… "
WARNING = "Ctrl-C again leaves, and so does Ctrl-D; the chat is kept"

# What may follow a command, by its name.
Choices = Callable[[str], Iterable[str]]


class Names(Completer):
    """Completes commands, and what follows them."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        command, space, rest = text[1:].partition(" ")
        found = self._choices(command) if space else COMMANDS
        begun = rest if space else command
        for name in found:
            if name.startswith(begun):
                yield Completion(name, -len(begun))


class Editor:
    """Asks for one message after the other."""

    def __init__(self, history: Path | None, choices: Choices) -> None:
        """`history`: the file of earlier messages; None keeps them in memory. Raises OSError where
        the file can be neither read nor written."""
        kept: History = InMemoryHistory() if history is None else FileHistory(_own(history))
        self._warned = False
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=_continued,
            history=kept,
            completer=Names(choices),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=_keys(),
            tempfile_suffix=".md",
        )

    def ask(self) -> str | None:
        """The next message; None at the end: Ctrl-D, or Ctrl-C twice on an empty line."""
        while True:
            try:
                text = self._session.prompt()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self._warned:
                    return None
                self._warned = True
                print(WARNING)
                continue
            self._warned = False
            return text


def _continued(width: int, line: int, num_wraps: int) -> str:
    """What precedes a further line of a message; blanks where a long one is wrapped."""
    return " " * len(MORE) if num_wraps else MORE


def _keys() -> KeyBindings:
    """Enter, Alt-Enter, Ctrl-C and Ctrl-G; all others are those of Emacs."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_quote(buffer.text):
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-c")
    @keys.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        """Empties the line; of an empty one the caller hears."""
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @keys.add("c-g")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return keys


def _own(path: Path) -> str:
    """A file that only its owner may read, made if there is none. Raises OSError."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OWNER_ONLY)
    try:
        if stat.S_IMODE(os.fstat(number).st_mode) != OWNER_ONLY:
            os.fchmod(number, OWNER_ONLY)
    finally:
        os.close(number)
    return str(path)
