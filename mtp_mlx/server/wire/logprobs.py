"""Log-probabilities in the three forms that clients know."""

from collections.abc import Sequence
from typing import Any

from mtp_mlx.reply import Token
from mtp_mlx.request import Logprob
from mtp_mlx.text.tokenizer import Tokenizer
from mtp_mlx.text.transcript import Transcript

Json = dict[str, Any]


class Speller:
    """Tokens as clients see them. Bytes that are no whole character are escaped, `\\xf0`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def data(self, token: int) -> bytes:
        """The bytes of a token; none beyond the tokenizer's last, which only embeddings have."""
        is_known = token < self._tokenizer.vocab_size
        return self._tokenizer.piece_bytes(token) if is_known else b""

    def text(self, token: int) -> str:
        data = self.data(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in data)

    def is_control(self, token: int) -> bool:
        """Is it a token that adds no text?"""
        return token in self._tokenizer.special_ids

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens left out."""
        return "".join(self.parts(ids))

    def parts(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text of all of them."""
        transcript, parts = Transcript(self._tokenizer), []
        for token in ids:
            if token < self._tokenizer.vocab_size:
                transcript.push(token)
            parts.append(transcript.take())
        return parts

    def figure(self, token: int, logprob: float) -> Json:
        return {"token": self.text(token), "bytes": list(self.data(token)), "logprob": logprob}


def chat_items(speller: Speller, tokens: Sequence[Token]) -> list[Json]:
    """A chat's: one item a token that has text."""
    items = []
    for token in tokens:
        if token.logprob is not None and not speller.is_control(token.id):
            top = [speller.figure(other, value) for other, value in token.logprob.top]
            items.append(speller.figure(token.id, token.logprob.logprob) | {"top_logprobs": top})
    return items


class Columns:
    """A completion's, as the old API has them: one list for each kind of figure, all tokens."""

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self.tokens: list[str] = []
        self.token_logprobs: list[float | None] = []
        self.top_logprobs: list[dict[str, float] | None] = []
        self.text_offset: list[int] = []

    def add(self, token: int, logprob: Logprob | None, offset: int, count: int) -> None:
        """`offset`: where the token's text begins; count: how many alternatives are shown. The
        first token of a prompt has no probability."""
        name, top = self._speller.text(token), None
        if logprob is not None:
            top = {}
            for other, value in logprob.top[:count]:
                top.setdefault(self._speller.text(other), value)
            top.setdefault(name, logprob.logprob)
        self.tokens.append(name)
        self.token_logprobs.append(None if logprob is None else logprob.logprob)
        self.top_logprobs.append(top)
        self.text_offset.append(offset)

    def as_json(self) -> Json:
        return {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        }


def prompt_items(
    speller: Speller, ids: Sequence[int], found: Sequence[Logprob | None], count: int
) -> list[Json | None]:
    """Those of a prompt in vLLM's form: for each token but the first, ids to figures."""
    items: list[Json | None] = []
    for token, logprob in zip(ids, found, strict=True):
        if logprob is None:
            items.append(None)
            continue
        ranks = {other: rank for rank, (other, _) in enumerate(logprob.top, 1)}
        values = {token: logprob.logprob, **dict(logprob.top[:count])}
        items.append(
            {
                str(other): {
                    "logprob": value,
                    "rank": ranks.get(other),
                    "decoded_token": speller.text(other),
                }
                for other, value in values.items()
            }
        )
    return items
