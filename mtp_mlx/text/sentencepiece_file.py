"""tokenizer.model, SentencePiece's own form of a tokenizer, for folders without a tokenizer.json.

Only the table of pieces is read, by SentencePiece's description of it (the extra `sp`); the same
library encodes with it as with a tokenizer.json. Merges are not in the file: two pieces merge where
their whole is a piece, and the better whole goes first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from mtp_mlx.errors import CheckpointError, MtpError, UnsupportedModel
from mtp_mlx.fields import shown

FILE_NAME = "tokenizer.model"
EXTRA = "pip install 'mtp-mlx[sp]'"
SPACE_PIECE = "▁"
MAX_PIECES = 1 << 22
MAX_PIECE = 64  # characters of a piece that others merge into; published ones have at most 32
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2  # of model_type
# User-defined pieces that are control tokens: Gemma's marks of turns, tools, channels and media.
GEMMA_CONTROLS = frozenset(
    (
        "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
        "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>",
        "<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A token as the file has it; `id` is its place."""

    id: int
    text: str
    score: float
    kind: int


def read_pieces(data: bytes) -> list[Piece]:
    """The table of a tokenizer.model of Gemma's form.

    Raises CheckpointError where it is damaged, UnsupportedModel where it is of another form,
    MtpError where SentencePiece is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise MtpError(
            f"{FILE_NAME}: this model has no tokenizer.json, and to read {FILE_NAME} SentencePiece "
            f"is needed: {EXTRA} ({error})"
        ) from error
    model = sentencepiece_model_pb2.ModelProto()  # ty: ignore[missing-attribute]  # made at import
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise CheckpointError(
            f"{FILE_NAME}: is not a SentencePiece model; download it again"
        ) from error
    if not 0 < len(model.pieces) <= MAX_PIECES:
        raise CheckpointError(
            f"{FILE_NAME}: expected 1 to {MAX_PIECES:,} pieces, found {len(model.pieces):,}"
        )
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    for what, is_as_gemma in (
        ("model_type bpe", trainer.model_type == BPE),
        ("byte_fallback", trainer.byte_fallback),
        ("white space before words", not trainer.treat_whitespace_as_suffix),
        ("no added prefix", not normalizer.add_dummy_prefix),
        ("all white space kept", not normalizer.remove_extra_whitespaces),
        ("white space escaped", normalizer.escape_whitespaces),
        ("characters unchanged", not normalizer.precompiled_charsmap),
    ):
        if not is_as_gemma:
            raise UnsupportedModel(f"{FILE_NAME}: expected {what}, as all Gemma models have it")
    pieces = [Piece(i, p.piece, p.score, p.type) for i, p in enumerate(model.pieces)]
    _check(pieces)
    return pieces


def _check(pieces: list[Piece]) -> None:
    seen: set[str] = set()
    for piece in pieces:
        if not piece.text or piece.text in seen:
            raise CheckpointError(
                f"{FILE_NAME}: piece {piece.id}, {shown(piece.text)}, is empty or there twice"
            )
        seen.add(piece.text)
        if piece.kind == UNUSED:
            raise UnsupportedModel(f"{FILE_NAME}: piece {piece.id} is marked as unused")
        if piece.kind == NORMAL and len(piece.text) > MAX_PIECE:
            raise CheckpointError(
                f"{FILE_NAME}: piece {piece.id} has {len(piece.text):,} characters, "
                f"expected at most {MAX_PIECE}"
            )
    unknown = [piece for piece in pieces if piece.kind == UNKNOWN]
    if len(unknown) != 1:
        raise CheckpointError(f"{FILE_NAME}: expected one unknown token, found {len(unknown)}")


def build_tokenizer(pieces: list[Piece]) -> tokenizers.Tokenizer:
    """The library's tokenizer with these pieces, ids and merges."""
    [unknown] = (piece.text for piece in pieces if piece.kind == UNKNOWN)
    inner = tokenizers.Tokenizer(
        models.BPE(
            {piece.text: piece.id for piece in pieces},
            merges(pieces),
            unk_token=unknown,
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    inner.normalizer = normalizers.Replace(" ", SPACE_PIECE)
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_PIECE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner.add_special_tokens(
        [AddedToken(p.text, normalized=False) for p in pieces if _is_control(p)]
    )
    # Runs of spaces are matched once they are written as in the pieces.
    inner.add_tokens(
        [
            AddedToken(piece.text, normalized=SPACE_PIECE in piece.text)
            for piece in pieces
            if piece.kind == USER_DEFINED and not _is_control(piece)
        ]
    )
    return inner


def _is_control(piece: Piece) -> bool:
    is_mark = piece.kind == USER_DEFINED and piece.text in GEMMA_CONTROLS
    return is_mark or piece.kind in (UNKNOWN, CONTROL)


def merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Every pair of pieces whose whole is a piece, best whole first; of one whole, longest left."""
    normal = {piece.text for piece in pieces if piece.kind == NORMAL}
    ranked = sorted((p for p in pieces if p.kind == NORMAL), key=lambda p: (-p.score, p.id))
    return [pair for piece in ranked for pair in _pairs(piece.text, normal)]


def _pairs(text: str, normal: set[str]) -> Iterator[tuple[str, str]]:
    for cut in range(len(text) - 1, 0, -1):
        left, right = text[:cut], text[cut:]
        if left in normal and right in normal:
            yield left, right
