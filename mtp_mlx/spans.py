"""The chunks of one round: neighbouring tokens of the same part of a reply together."""

from dataclasses import replace

from mtp_mlx.reply import Chunk, Token
from mtp_mlx.text.calls import Kind, ToolCall
from mtp_mlx.text.parts import Piece


class Spans:
    """Add the tokens of a reply's round in their order, then take its chunks."""

    def __init__(self, round: int) -> None:
        self._round = round
        self._chunks: list[Chunk] = []
        self._tokens: list[Token] = []  # of the chunk that is not complete
        self._kind: Kind = "content"

    def add(self, kind: Kind, token: Token) -> None:
        """One more token, which belongs to a part of this kind."""
        if kind != self._kind:
            self._close()
            self._kind = kind
        self._tokens.append(token)

    def add_text(self, piece: Piece) -> None:
        """Text of another part that became showable with the last token: a chunk of its own."""
        self._close()
        self._chunks.append(Chunk(piece.text, (), kind=piece.kind, round=self._round))

    def chunks(self, drafts: tuple[int, ...], calls: tuple[ToolCall, ...] = ()) -> list[Chunk]:
        """At least one chunk; the first has the round's drafts, the last of a call those that are
        complete."""
        self._close()
        chunks = self._chunks or [Chunk("", (), round=self._round)]
        chunks[0] = replace(chunks[0], drafts=drafts)
        if calls:
            tools = [at for at, chunk in enumerate(chunks) if chunk.kind == "tool"]
            last = tools[-1] if tools else 0
            chunks[last] = replace(chunks[last], calls=calls)
        return chunks

    def _close(self) -> None:
        if self._tokens:
            text = "".join(token.text for token in self._tokens)
            tokens = tuple(self._tokens)
            self._chunks.append(Chunk(text, tokens, kind=self._kind, round=self._round))
            self._tokens = []
