"""Where the text of a stream came from: the `spec` of its chunks, which draws speculation."""

from typing import Any

from mtp_mlx.reply import Chunk
from mtp_mlx.request import Origin
from mtp_mlx.server.wire.logprobs import Speller

LETTERS: dict[Origin, str] = {"draft": "d", "target": "t", "plain": "p", "prefill": "p"}


class Trace:
    """Follows the rounds of one choice.

    The drafts of a round are told with its first chunk, the rejected ones with the chunk that ends
    the round: only then is known how many were accepted. Sums over a stream are those of its reply.
    """

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self._round = 0
        self._drafts: tuple[int, ...] = ()  # of the round that has not ended
        self._accepted = 0  # of them so far

    def of(self, chunk: Chunk) -> dict[str, Any]:
        """The spec of a chunk; `spans` are bytes of its text, one a token, none for a tool call.
        A token that completes no text has an empty one, so that places in a round can be counted.
        """
        if chunk.drafts:
            self._drafts, self._accepted = chunk.drafts, 0
        self._round = chunk.round
        self._accepted += chunk.accepted
        is_last = any(token.origin != "draft" for token in chunk.tokens)
        is_dropped = not chunk.tokens and not chunk.text
        return {
            "round": chunk.round,
            "drafted": len(chunk.drafts),
            "accepted": chunk.accepted,
            "spans": [] if chunk.kind == "tool" else _spans(chunk),
            "rejected": self._rejected() if is_last or is_dropped else [],
        }

    def rest(self) -> dict[str, Any] | None:
        """The spec of the end: the drafts that a stop or the budget cut off."""
        rejected = self._rejected()
        if not rejected:
            return None
        return {
            "round": self._round,
            "drafted": 0,
            "accepted": 0,
            "spans": [],
            "rejected": rejected,
        }

    def _rejected(self) -> list[dict[str, Any]]:
        """The drafts that were not accepted; the round has ended."""
        left, self._drafts = self._drafts[self._accepted :], ()
        return [{"id": token, "text": self._speller.text(token)} for token in left]


def _spans(chunk: Chunk) -> list[list[int | str]]:
    spans: list[list[int | str]] = []
    end = 0
    for token in chunk.tokens:
        start, end = end, end + len(token.text.encode())
        spans.append([start, end, LETTERS[token.origin]])
    return spans
