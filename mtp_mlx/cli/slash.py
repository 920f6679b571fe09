"""What the /commands of a chat do."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from mtp_mlx.backends import find_pair, open_pair
from mtp_mlx.chat.commands import help_lines
from mtp_mlx.chat.saved import Saved
from mtp_mlx.chat.settings import VIEW, Settings, draft_tokens, on_off
from mtp_mlx.cli.figures import Answer, explain
from mtp_mlx.cli.keys import heard
from mtp_mlx.cli.options import named_by_user
from mtp_mlx.cli.repl import Chat, loaded
from mtp_mlx.cli.stats import describe
from mtp_mlx.embedded import NAMES
from mtp_mlx.errors import MtpError, RequestError
from mtp_mlx.hub.find import names_here, title
from mtp_mlx.options import Keywords

SHOWN_CHATS = 12
SHOWN_CHARS = 60
OFF = "off"


def obey(chat: Chat, name: str, rest: str) -> None:
    """Do what a command says; `rest` follows its name. Raises MtpError, OSError."""
    HANDLERS[name](chat, rest)


def choices(chat: Chat, name: str) -> Iterable[str]:
    """What may follow a command, for Tab."""
    match name:
        case "model":
            return (*NAMES, *names_here())
        case "load" if chat.chats is not None:
            return chat.chats.names()
        case "set":
            return (*Keywords.__annotations__, *VIEW)
        case "think":
            return ("on", OFF)
        case "draft":
            return ("auto", OFF)
        case "system":
            return (OFF,)
    return ()


def _help(chat: Chat, rest: str) -> None:
    chat.screen.table(help_lines())


def _clear(chat: Chat, rest: str) -> None:
    chat.talk, chat.place, chat.last = chat.talk.cleared(), None, None
    chat.note("a new chat")


def _system(chat: Chat, rest: str) -> None:
    if rest:
        chat.talk = replace(chat.talk, system=None if rest == OFF else rest)
        chat.keep()
    chat.note(f"system prompt: {chat.talk.system or 'none'}")


def _think(chat: Chat, rest: str) -> None:
    _use(chat, chat.settings.with_option("think", on_off("/think", rest)))
    chat.note(f"thinking {rest}")


def _set(chat: Chat, rest: str) -> None:
    name, _, value = rest.partition(" ")
    if not rest:
        chat.screen.table(chat.settings.rows())
        return
    if not value.strip():
        raise RequestError(f"/set {name} wants a value; default takes it back", param=name)
    _use(chat, chat.settings.with_text(name, value.strip()))
    chat.note(f"{name}: {value.strip()}")


def _draft(chat: Chat, rest: str) -> None:
    _use(chat, chat.settings.with_option("num_draft_tokens", draft_tokens(rest)))
    chat.note(f"drafts a round: {rest}")


def _use(chat: Chat, settings: Settings) -> None:
    """Take settings that the model can honour."""
    chat.llm.check_options(**settings.keywords)
    chat.settings = settings


def _model(chat: Chat, rest: str) -> None:
    """Two models may not fit at once: the one in use goes first, and comes back where the other
    cannot be loaded."""
    if not rest:
        chat.introduce()
        return
    drafter = "none" if chat.loading["draft_model"] == "none" else "auto"
    wanted = {"model": rest, "draft_model": drafter}
    loading = chat.loading | wanted | named_by_user(wanted, is_later=True)
    open_pair(find_pair(loading["model"], loading["draft_model"]))
    with chat.interrupts.leaving(), heard():
        chat.llm.close()
        try:
            chat.llm = loaded(loading)
        except MtpError:
            chat.llm = loaded(chat.loading)
            raise
    chat.loading = loading
    chat.keep()
    chat.introduce()


def _stats(chat: Chat, rest: str) -> None:
    last = _last(chat)
    for line in describe(last.reply, last.peak_memory_bytes, last.engine).split("\n"):
        chat.note(line)


def _why(chat: Chat, rest: str) -> None:
    chat.screen.table(explain(_last(chat)))


def _last(chat: Chat) -> Answer:
    if chat.last is None:
        raise RequestError("there is no reply yet", param="command")
    return chat.last


def _retry(chat: Chat, rest: str) -> None:
    again = chat.talk.reopened()
    if again.unanswered is None:
        raise RequestError("there is no message to reply to again", param="command")
    chat.screen.quote(again.unanswered)
    chat.reply(again)


def _undo(chat: Chat, rest: str) -> None:
    if chat.talk.is_empty:
        raise RequestError("there is nothing to take back", param="command")
    gone = chat.talk.reopened().unanswered or ""
    chat.talk = chat.talk.undone()
    chat.last = None
    chat.keep()
    short = gone if len(gone) <= SHOWN_CHARS else f"{gone[:SHOWN_CHARS]}..."
    chat.note(f"taken back: {' '.join(short.split())}")


def _save(chat: Chat, rest: str) -> None:
    if chat.chats is None or chat.talk.is_empty:
        raise RequestError("there is nothing to keep, or no folder for it", param="command")
    chat.keep()
    if chat.place is not None and rest not in ("", chat.place.name):
        chat.place = chat.chats.rename(chat.place, rest)
    if chat.place is not None:
        chat.note(f"chat {chat.place.name}, kept in {chat.chats.path(chat.place.name)}")


def _load(chat: Chat, rest: str) -> None:
    if chat.chats is None:
        raise RequestError("there is no folder for chats", param="command")
    if not rest:
        names = chat.chats.names()
        more = f", and {len(names) - SHOWN_CHATS} more" if len(names) > SHOWN_CHATS else ""
        chat.note(f"chats: {', '.join(names[:SHOWN_CHATS]) or 'none yet'}{more}")
        return
    saved, place = chat.chats.read(rest)
    chat.talk, chat.place, chat.last = saved.conversation, place, None
    _name_model(chat, saved)
    if chat.talk.turns:
        chat.show_last()


def _name_model(chat: Chat, saved: Saved) -> None:
    """A chat goes on with the model that is loaded; the one before is said."""
    if saved.model not in (None, chat.loading["model"]):
        now = title(chat.llm.pair.target)
        chat.note(f"it was held with {saved.model} and goes on with {now}; /model changes that")


def _tokens(chat: Chat, rest: str) -> None:
    context = chat.llm.config.max_positions
    if chat.talk.is_empty:
        chat.note(f"nothing was said yet; the context has {context:,} tokens")
        return
    used = len(chat.llm.prompt_ids(chat.talk.messages(), **chat.settings.keywords))
    chat.note(f"{used:,} of {context:,} tokens used, {max(context - used, 0):,} left")


HANDLERS: dict[str, Callable[[Chat, str], None]] = {
    "help": _help,
    "clear": _clear,
    "system": _system,
    "think": _think,
    "set": _set,
    "model": _model,
    "draft": _draft,
    "stats": _stats,
    "why": _why,
    "retry": _retry,
    "undo": _undo,
    "save": _save,
    "load": _load,
    "tokens": _tokens,
}
