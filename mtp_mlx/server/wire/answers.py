"""The answer to a request of either kind."""

from mtp_mlx.server.served import Served
from mtp_mlx.server.wire.answer import Answer
from mtp_mlx.server.wire.asks import Ask
from mtp_mlx.server.wire.chat_answer import ChatAnswer
from mtp_mlx.server.wire.text_answer import CompletionAnswer


def make_answer(ask: Ask, request_id: str, created: int, served: Served) -> Answer:
    """`request_id` without the prefix that tells the kind; `created` in seconds of Unix time."""
    kind = ChatAnswer if ask.is_chat else CompletionAnswer
    return kind(ask, request_id, created, served)
