"""The loop of a chat: read a line, obey it or reply to it, keep the chat."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from mtp_mlx.api import LLM, load
from mtp_mlx.chat.commands import Command, Message, parse
from mtp_mlx.chat.conversation import Conversation
from mtp_mlx.chat.saved import OWNER_FOLDER, Chats, Place, Saved, moved
from mtp_mlx.chat.settings import Settings
from mtp_mlx.cli.chat import data_folder
from mtp_mlx.cli.editor import Editor
from mtp_mlx.cli.figures import Answer, stats_line
from mtp_mlx.cli.interrupts import Interrupts
from mtp_mlx.cli.keys import unheard
from mtp_mlx.cli.live import reply_view
from mtp_mlx.cli.screen import Screen
from mtp_mlx.cli.terminal import show_progress
from mtp_mlx.cli.turns import write_reply
from mtp_mlx.errors import ContextLengthExceeded, EngineStopped, MtpError
from mtp_mlx.hub.find import title
from mtp_mlx.text.template import NoChatTemplate

HISTORY = "history"
CONTEXT_HINT = ", or /undo, or begin anew with /clear; the chat so far is kept"
EXIT_WORDS = "the chat is kept; mtp-mlx chat --continue goes on with it"


def talk(
    loading: dict[str, Any],
    settings: Settings,
    chats: Chats | None,
    saved: Saved,
    place: Place | None,
) -> None:
    """Talk until the user leaves. Ctrl-C during the load leaves, as in every command."""
    llm = loaded(loading)
    chat = Chat(llm, loading, settings, chats, saved.conversation, place)
    try:
        llm.check_options(**settings.keywords)
        with chat.interrupts:
            chat.greet()
            chat.run()
    finally:
        chat.llm.close()


def loaded(loading: dict[str, Any]) -> LLM:
    """A model that can chat. Raises MtpError."""
    show_progress(f"loading {loading['model']} ...")
    try:
        llm = load(**loading, max_num_seqs=1)
    finally:
        show_progress("")
    if not llm.has_chat_template:
        llm.close()
        raise NoChatTemplate()
    return llm


class Chat:
    """A chat that goes on: its model, its turns, and what the user has set."""

    def __init__(
        self,
        llm: LLM,
        loading: dict[str, Any],
        settings: Settings,
        chats: Chats | None,
        talk: Conversation,
        place: Place | None,
    ) -> None:
        self.llm = llm
        self.loading = loading
        self.settings = settings
        self.chats = chats
        self.talk = talk
        self.place = place
        self.last: Answer | None = None
        self.screen = Screen()
        self.interrupts = Interrupts()
        self._cannot_save = False

    def greet(self) -> None:
        """Who is here."""
        self.introduce()
        if self.chats is None:
            self.note("chats are not kept: the user has no home folder; set HOME or XDG_DATA_HOME")
        if self.talk.turns:
            self.show_last()

    def introduce(self) -> None:
        """The model, in one line, and what is to be known of it, in another."""
        drafter = self.llm.pair.drafter
        helper = "no drafter" if drafter is None else f"drafter {title(drafter)}"
        context = f"context {self.llm.config.max_positions:,} tokens"
        self.note(f"{title(self.llm.pair.target)}, {helper}, {context}; /help for more")
        if self.llm.note:
            self.note(self.llm.note)

    def show_last(self) -> None:
        """The last turn of a chat that goes on."""
        count, turn = len(self.talk.turns), self.talk.turns[-1]
        name = "" if self.place is None else f" {self.place.name}"
        self.note(f"going on with chat{name}, {count} turn{'s' * (count > 1)}; the last:")
        self.screen.quote(turn.user)
        with reply_view(self.screen, self.settings) as view:
            view.add(turn.reply, False, "content")

    def note(self, text: str) -> None:
        """A line of ours."""
        self.screen.note(text)

    def run(self) -> None:
        """Until the user leaves, or the engine is gone."""
        from mtp_mlx.cli.slash import choices, obey

        editor = self._editor(lambda command: choices(self, command))
        while (text := editor.ask()) is not None:
            with unheard():
                try:
                    match parse(text):
                        case Command("bye", _):
                            return
                        case Command(name, rest):
                            obey(self, name, rest)
                        case Message(said):
                            self.reply(self.talk.asked(said))
                except (MtpError, OSError) as error:
                    self.complain(error)

    def complain(self, error: MtpError | OSError) -> None:
        """One line. Raises EngineStopped where nothing will ever reply again."""
        hint = CONTEXT_HINT if isinstance(error, ContextLengthExceeded) else ""
        self.note(f"mtp-mlx: {' '.join(str(error).split())}{hint}")
        if isinstance(error, EngineStopped):
            try:
                self.llm.stats()
            except EngineStopped:
                if self.place is not None:
                    self.note(EXIT_WORDS)
                raise

    def reply(self, talk: Conversation) -> None:
        """Write the reply to the open message of `talk`, and keep both."""
        before = self.talk
        self.talk = talk
        self.keep()
        try:
            with reply_view(self.screen, self.settings) as view:
                wanted = self.talk, self.settings
                self.talk, self.last, error = write_reply(self.llm, *wanted, view, self.interrupts)
        except MtpError:
            self._restore(before)
            self.keep()
            raise
        if self.last.reply.warning is not None:
            self.note(self.last.reply.warning)
        self.note(stats_line(self.last, self.screen.size[0]))
        if self.talk.unanswered is not None:
            self._restore(before)
        self.keep()
        if error is not None:
            raise error

    def _restore(self, before: Conversation) -> None:
        """A reply that there was stays, where no other came in its place."""
        if len(before.turns) > len(self.talk.turns):
            self.talk = before

    def keep(self) -> None:
        """Write the chat to its file, a new one if it has none; say once where that fails."""
        if self.chats is None or (self.talk.is_empty and self.place is None):
            return
        place = self.chats.fresh() if self.place is None else self.place
        try:
            written = self.chats.write(place, Saved().held_with(self.talk, self.loading))
        except OSError as error:
            if not self._cannot_save:
                self.note(f"the chat is not kept: {error}")
            self._cannot_save = True
            return
        if written.name != place.name:
            self.note(moved(place, written))
        self.place, self._cannot_save = written, False

    def _editor(self, choose: Any) -> Editor:
        """With the typed messages of earlier chats, where they can be kept."""
        try:
            return Editor(_history(), choose)
        except OSError as error:
            self.note(f"typed messages are not kept: {error}")
            return Editor(None, choose)


def _history() -> Path:
    folder = data_folder()
    folder.mkdir(mode=OWNER_FOLDER, parents=True, exist_ok=True)
    with suppress(OSError):
        folder.chmod(OWNER_FOLDER)
    return folder / HISTORY
