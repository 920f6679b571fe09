"""One turn of a chat: a reply written, shown and kept."""

from typing import TYPE_CHECKING

from mtp_mlx.chat.conversation import Conversation, Turn
from mtp_mlx.chat.settings import Settings
from mtp_mlx.cli.figures import Answer
from mtp_mlx.errors import MtpError
from mtp_mlx.hub.find import title
from mtp_mlx.reply import Chunk, Reply

if TYPE_CHECKING:
    from mtp_mlx.api import LLM, Stream
    from mtp_mlx.cli.interrupts import Interrupts
    from mtp_mlx.cli.live import ReplyView

CUT = ("cancelled", "error")


def turn_of(llm: "LLM", message: str, reply: Reply) -> Turn:
    """A message with its reply, as a chat keeps it."""
    name = title(llm.pair.target)
    return Turn(message, reply.text, reply.finish_reason, name, reply.seed, reply.reasoning)


def write_reply(
    llm: "LLM",
    talk: Conversation,
    settings: Settings,
    view: "ReplyView",
    interrupts: "Interrupts",
) -> tuple[Conversation, Answer, MtpError | None]:
    """Write and show the reply to the open message; the conversation with it, its figures, and the
    error that ended it, if one did. A reply that was stopped before it said anything leaves the
    message open. Raises MtpError where it does not begin."""
    assert talk.unanswered is not None
    with interrupts.reply() as pressed:
        stream = llm.stream(talk.messages(), **settings.keywords)
        pressed.stops(stream.abandon)
        view.wait(f"reading {len(stream.prompt_ids):,} tokens")
        depths, error = _shown(stream, view)
    reply = stream.reply
    if reply.text or reply.finish_reason not in CUT:
        talk = talk.answered(turn_of(llm, talk.unanswered, reply))
    peak, context = llm.peak_memory_bytes(), llm.config.max_positions
    return talk, Answer(reply, depths, llm.stats(), peak, context), error


def _shown(stream: "Stream", view: "ReplyView") -> tuple[tuple[int, ...], MtpError | None]:
    """Drafts of each round, and the error that ended the reply."""
    depths = []
    try:
        for chunk in stream:
            if _is_round(chunk):
                depths.append(len(chunk.drafts))
            for text, is_draft in _parts(chunk):
                view.add(text, is_draft, chunk.kind)
            view.draw()
    except MtpError as error:
        return tuple(depths), error
    return tuple(depths), None


def _is_round(chunk: Chunk) -> bool:
    """No round: the prompt's own token, what a stream ends with, and the rest of a round."""
    return bool(chunk.drafts) or any(token.origin == "plain" for token in chunk.tokens)


def _parts(chunk: Chunk) -> list[tuple[str, bool]]:
    if not chunk.tokens:
        return [(chunk.text, False)]
    return [(token.text, token.from_draft) for token in chunk.tokens]
