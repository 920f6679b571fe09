"""A checkpoint's tokenizer, with control tokens out of reach of plain text.

Two ways in. `encode` reads text that anyone may have written: `<turn|>` in it becomes ordinary
pieces, never the control id. `encode_template` reads text that a chat template wrote, where the
same characters are the control token. The Rust library does one of the two per object, by a flag;
here the flag is set once at load (so threads share nothing that changes) and `encode_template`
finds the control tokens itself, leftmost and longest first, as the library does.

Control tokens are all added tokens, flagged special or not, save unflagged ones of white space
alone: those are ordinary vocabulary that some Gemma uploads list as added.

Way out. A token is bytes: a byte-fallback piece one byte, any other its UTF-8 text with "▁" as a
space. A reply is the UTF-8 text of these bytes, and each byte that belongs to no character is one
U+FFFD. The library differs only where a run of byte pieces is partly valid: it then gives up
the valid characters of that run too, which a stream that has shown them could not follow.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import tokenizers

from mtp_mlx.errors import CheckpointError, MtpError, RequestError, UnsupportedModel
from mtp_mlx.files import inside, read_json, read_small
from mtp_mlx.text import sentencepiece_file

FILE_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
LIMIT_BYTES = 64 << 20  # Gemma 4's tokenizer.json has 33 MB
SPACE_PIECE = "▁"
BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
NOTHING = r"(?!)"  # a pattern that never matches
TOOL_ANSWER = "<|tool_response>"  # the model waits for the answer to its call
UNHIDDEN = " \t\r\n_\"'\\"  # white space and identifiers; quotes, which tojson escapes
DECODER = [
    {"type": "Replace", "pattern": {"String": SPACE_PIECE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
Result = TypeVar("Result")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Control:
    """An added token that only a template may produce; the strips eat white space beside it."""

    id: int
    strips_left: bool
    strips_right: bool


class Tokenizer:
    """Text to token ids and back. Its answers never change, so threads may share one."""

    def __init__(self, inner: tokenizers.Tokenizer, named: Mapping[str, str] | None = None) -> None:
        """`named`: the special tokens of tokenizer_config.json, as `named_tokens` reads them."""
        _check_form(inner)
        inner.no_truncation()
        inner.no_padding()
        vocabulary = inner.get_vocab(with_added_tokens=True)
        added = inner.get_added_tokens_decoder()
        controls = {i: token for i, token in added.items() if token.special or _is_visible(token)}
        self.vocab_size: int = max(vocabulary.values()) + 1
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.bos_id = vocabulary.get((named or {}).get("bos_token", "<bos>"))
        ends = ((named or {}).get("eos_token", "<eos>"), (named or {}).get("eot_token", "<turn|>"))
        self.eos_ids = frozenset(vocabulary[end] for end in ends if end in vocabulary)
        self.tool_answer_ids = frozenset(
            {vocabulary[TOOL_ANSWER]} if TOOL_ANSWER in vocabulary else ()
        )
        self._controls = {
            token.content: Control(i, token.lstrip, token.rstrip) for i, token in controls.items()
        }
        self.control_marks = frozenset().union(*map(_marks, self._controls))
        self._control_lengths = sorted({len(text) for text in self._controls}, reverse=True)
        starts = {re.escape(text[0]) for text in self._controls}
        self._control_start = re.compile("|".join(sorted(starts)) or NOTHING)
        self._control_ids = frozenset(controls)
        self._unknown = inner.model.unk_token
        self._bytes: dict[int, bytes] = {}
        self._inner = inner
        inner.add_special_tokens(
            [
                tokenizers.AddedToken(token.content, special=True, normalized=token.normalized)
                for token in controls.values()
                if not token.special
            ]
        )
        inner.encode_special_tokens = True

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of the model in `folder`; raises CheckpointError naming the file.

        tokenizer.model is read where there is no tokenizer.json.
        """
        if not (folder / FILE_NAME).exists() and (folder / sentencepiece_file.FILE_NAME).exists():
            return cls(_from_sentencepiece(folder), named_tokens(folder))
        text = read_small(inside(folder, FILE_NAME), LIMIT_BYTES)
        fault = CheckpointError(f"{FILE_NAME}: is not a tokenizer; download it again")
        inner = _guarded(fault, tokenizers.Tokenizer.from_buffer, text)
        return cls(inner, named_tokens(folder))

    def encode(self, text: str) -> list[int]:
        """The ids of plain text, in which no control token is ever matched.

        Raises RequestError for a lone surrogate, with its offset.
        """
        check_surrogates(text)
        fault = RequestError("the tokenizer cannot encode this text")
        encoding = _guarded(fault, self._inner.encode, text, None, False, False)
        if self._control_ids.isdisjoint(encoding.ids):
            return encoding.ids
        cuts = [0, *self._forged(text, encoding), len(text)]
        if len(cuts) == 2:
            return encoding.ids
        parts = (text[begin:end] for begin, end in itertools.pairwise(cuts))
        return [id_ for part in parts for id_ in self.encode(part)]

    def encode_template(
        self, text: str, stand_ins: Mapping[int, str] = MappingProxyType({})
    ) -> list[int]:
        """The ids of text that a template wrote: control tokens in it are matched.

        `stand_ins` (code point to text) is applied to the text between control tokens: a caller
        hides characters of user text from the matching by it.
        """
        ids: list[int] = []
        begin = 0
        for start, end, control in self._find_controls(text):
            plain = text[begin:start].rstrip() if control.strips_left else text[begin:start]
            ids += self.encode(plain.translate(stand_ins))
            ids.append(control.id)
            begin = end
        return ids + self.encode(text[begin:].translate(stand_ins))

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of `ids`; raises RequestError for an id outside the vocabulary."""
        skipped = self.special_ids if skip_special else frozenset()
        pieces = ((id_, self.piece_bytes(id_)) for id_ in ids)
        data = b"".join(piece for id_, piece in pieces if id_ not in skipped)
        return show_stray_bytes(data.decode("utf-8", "surrogateescape"))

    def to_json(self) -> str:
        """The text of its tokenizer.json, with every control token marked as special."""
        return self._inner.to_str()

    def control_id(self, text: str) -> int | None:
        """The id of a control token, None if the vocabulary has no such."""
        control = self._controls.get(text)
        return None if control is None else control.id

    def id_to_piece(self, token_id: int) -> str:
        """The vocabulary's own spelling of a token; empty for an id that the vocabulary skips."""
        self._check_id(token_id)
        return self._inner.id_to_token(token_id) or ""

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token adds to the UTF-8 of a reply; raises RequestError as `decode` does."""
        self._check_id(token_id)
        found = self._bytes.get(token_id)
        if found is None:
            piece = self.id_to_piece(token_id)
            byte = BYTE_PIECE.fullmatch(piece)
            found = bytes.fromhex(byte[1]) if byte else piece.replace(SPACE_PIECE, " ").encode()
            self._bytes[token_id] = found
        return found

    def _check_id(self, token_id: int) -> None:
        if type(token_id) is not int or not 0 <= token_id < self.vocab_size:
            raise RequestError(f"token id {token_id!r} is not in 0..{self.vocab_size - 1}")

    def _find_controls(self, text: str) -> Iterable[tuple[int, int, Control]]:
        """Begin, end and token of each control token in `text`, from left to right."""
        begin = 0
        while start := self._control_start.search(text, begin):
            begin = start.start() + 1
            for length in self._control_lengths:
                end = start.start() + length
                control = self._controls.get(text[start.start() : end])
                if control is not None:
                    while control.strips_right and text[end : end + 1].isspace():
                        end += 1
                    yield start.start(), end, control
                    begin = end
                    break

    def _forged(self, text: str, encoding: tokenizers.Encoding) -> list[int]:
        """Where to cut `text` so that the model cannot build a control token from plain pieces.

        The unknown token is no forgery where it stands for a character that has no piece.
        """
        cuts = []
        pieces = zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        for id_, piece, (start, end) in pieces:
            is_unknown = piece == self._unknown and text[start:end] != piece
            if id_ in self._control_ids and not is_unknown:
                if end - start < 2:
                    raise RequestError(f"the text holds a control character at offset {start}")
                cuts.append(start + 1)
        return cuts


def _from_sentencepiece(folder: Path) -> tokenizers.Tokenizer:
    name = sentencepiece_file.FILE_NAME
    pieces = sentencepiece_file.read_pieces(read_small(inside(folder, name), LIMIT_BYTES))
    fault = CheckpointError(f"{name}: its pieces make no tokenizer; download it again")
    return _guarded(fault, sentencepiece_file.build_tokenizer, pieces)


def named_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that tokenizer_config.json names, such as {"bos_token": "<bos>"}."""
    has_one = (folder / CONFIG_NAME).exists()
    config = read_json(inside(folder, CONFIG_NAME)) if has_one else {}
    values = {
        key: value.get("content") if isinstance(value, dict) else value
        for key, value in config.items()
        if key.endswith("_token")
    }
    return {key: value for key, value in values.items() if isinstance(value, str)}


def check_surrogates(text: str, where: str = "the text", param: str | None = None) -> None:
    """Raises RequestError if `text` holds half of a surrogate pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        fault = f"{where} holds a lone surrogate at offset {error.start}"
        raise RequestError(fault, param=param) from error


def show_stray_bytes(text: str) -> str:
    """`text` with each byte that the codec could only escape (surrogateescape) as one U+FFFD."""
    return _ESCAPED_BYTE.sub("\ufffd", text)


def _is_visible(token: tokenizers.AddedToken) -> bool:
    return bool(token.content.replace(SPACE_PIECE, "").strip())


def _marks(control: str) -> set[str]:
    """The characters to hide from matching so that user text cannot spell this control token.

    All its punctuation but what a template may itself escape or compare; at least one character.
    """
    marks = {mark for mark in control if not mark.isalnum() and mark not in UNHIDDEN}
    return marks or {control[0]}


def _check_form(inner: tokenizers.Tokenizer) -> None:
    """Raises UnsupportedModel unless the tokenizer is of the form that all Gemma models share."""
    if not isinstance(inner.model, tokenizers.models.BPE):
        found = type(inner.model).__name__
        raise UnsupportedModel(f"{FILE_NAME}: expected a BPE model, found {found}")
    if inner.get_vocab_size() == 0:
        raise CheckpointError(f"{FILE_NAME}: the vocabulary is empty")
    found = json.loads(inner.decoder.__getstate__()) if inner.decoder is not None else {}
    if found.get("decoders") != DECODER:
        raise UnsupportedModel(
            f"{FILE_NAME}: expected the decoder Replace, ByteFallback, Fuse, "
            f"found {json.dumps(found)[:200]}"
        )


def _guarded(fault: MtpError, call: Callable[..., Result], *arguments: object) -> Result:
    """call(*arguments), or `fault` if the Rust library fails.

    The library raises plain Exception, or, where it panics, a BaseException that has no name to
    import: so everything is caught here that does not come from outside the call.
    """
    try:
        return call(*arguments)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise fault from error
