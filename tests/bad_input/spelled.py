"""A model that writes a text of our choice: a reply's ids are given the pieces of that text.

The target is random and knows ids alone, so a tokenizer.json in which the ids of its plain reply
spell the text we want is as good as a target that was trained to write it.
"""

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path

from mtp_mlx.api import LLM
from mtp_mlx.text.tokenizer import Tokenizer
from tests.api_pairs import loaded, prompt_ids, scripted
from tests.golden import vocabulary
from tests.oracle import Script

HOT = {"temperature": 50.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}  # nearly all ids are as likely
# No byte and no piece comes twice: each id of the reply has a piece of its own.
PIECES = ("▁", "h", "é", "€", "👨", "▁the", "7", "8")


def pieces_of(spelling: Sequence[str] = PIECES) -> list[str]:
    """The tokens of a spelling: ASCII pieces as they are, any other character byte by byte."""
    return [
        token
        for piece in spelling
        for token in (
            [piece]
            if piece.replace("▁", "").isascii()
            else [f"<0x{byte:02X}>" for byte in piece.encode()]
        )
    ]


@cache
def plain_ids(length: int) -> tuple[int, tuple[int, ...]]:
    """A seed, and `prompt_ids()`'s plain reply with it: `length` ordinary ids, all different."""
    llm = loaded()
    for seed in count():
        reply = llm.generate(prompt_ids(), **HOT, seed=seed, max_tokens=length, num_draft_tokens=0)
        ids = set(reply.token_ids) - llm.tokenizer.special_ids
        if len(ids) == length:
            return seed, reply.token_ids
    raise AssertionError("unreachable")


class Spelled:
    """The options and ids of the reply that spells `pieces`, and the tokenizer that says so."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.seed, self.ids = plain_ids(len(pieces))
        self.options = {**HOT, "seed": self.seed}
        self.tokenizer = _respelled(dict(zip(self.ids, pieces, strict=True)))

    def llm(self, script: Script, requests: int = 1) -> LLM:
        """The model with a scripted drafter; its first requests are to be replies of these ids."""
        llm = scripted([self.ids] * requests, script)
        llm.tokenizer = self.tokenizer
        return llm

    def text(self, num_tokens: int | None = None) -> str:
        """The complete characters of the first tokens."""
        pieces = map(self.tokenizer.piece_bytes, self.ids[:num_tokens])
        return b"".join(pieces).decode("utf-8", "ignore")


def _respelled(wanted: dict[int, str]) -> Tokenizer:
    """The golden tokenizer with other pieces for some ids; their old pieces go where those were."""
    table = vocabulary.tokenizer_json()
    vocab = table["model"]["vocab"]
    owner = {id_: piece for piece, id_ in vocab.items()}
    for id_, piece in wanted.items():
        old_id, old_piece = vocab[piece], owner[id_]
        vocab[piece], vocab[old_piece] = id_, old_id
        owner[id_], owner[old_id] = piece, old_piece
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
        return Tokenizer.from_folder(Path(folder))
