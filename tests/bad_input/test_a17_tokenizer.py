"""A17: a tokenizer.json that is none."""

from pathlib import Path

import pytest

from mtp_mlx.errors import UnsupportedModel
from tests.bad_input.faults import Damage, Fault, both_backends, check, each, in_target_json

NAME = "tokenizer.json"


def written(content: bytes, size: int | None = None) -> Damage:
    """The file holds `content`, and zeros on no disk up to `size` bytes."""

    def damage(target: Path, drafter: Path) -> None:
        with (target / NAME).open("wb") as file:
            file.write(content)
            file.truncate(len(content) if size is None else size)

    return damage


def cut(target: Path, drafter: Path) -> None:
    text = (target / NAME).read_bytes()
    (target / NAME).write_bytes(text[: len(text) // 2])


def absent(target: Path, drafter: Path) -> None:
    (target / NAME).unlink()


def folder(target: Path, drafter: Path) -> None:
    absent(target, drafter)
    (target / NAME).mkdir()


WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
FAULTS = [
    Fault("empty", written(b""), (NAME, "is not a tokenizer")),
    Fault("words", written(b"hello"), (NAME, "is not a tokenizer")),
    Fault("array", written(b"[]"), (NAME, "is not a tokenizer")),
    Fault("object", written(b"{}"), (NAME, "is not a tokenizer")),
    Fault("not_utf8", written(b'{"version": "\xff"}'), (NAME, "is not a tokenizer")),
    Fault("deep", written(b"[" * 100_000), (NAME, "is not a tokenizer")),
    Fault("cut", cut, (NAME, "is not a tokenizer")),
    Fault("65_mib", written(b"{", 65 << 20), (NAME, "at most 67,108,864 bytes", "68,157,440")),
    Fault("500_mib", written(b"{", 500 << 20), (NAME, "at most 67,108,864", "524,288,000")),
    Fault("absent", absent, (NAME, "No such file")),
    Fault("folder", folder, (NAME, "regular file")),
    Fault("no_vocab", in_target_json(NAME, lambda t: t["model"].pop("vocab")), (NAME,)),
    Fault("merge", in_target_json(NAME, lambda t: t["model"].update(merges=["zz zz"])), (NAME,)),
    Fault(
        "word_level",
        in_target_json(NAME, lambda top: top.update(model=WORDS)),
        (NAME, "expected a BPE model, found WordLevel"),
        UnsupportedModel,
    ),
    Fault(
        "decoder",
        in_target_json(NAME, lambda top: top.update(decoder=None)),
        (NAME, "expected the decoder"),
        UnsupportedModel,
    ),
]


@both_backends
@each(FAULTS)
def test_a_damaged_tokenizer_is_refused_by_name(fault, backend, tmp_path):
    check(fault, tmp_path, backend=backend)


def sentencepiece(content: bytes, size: int | None = None) -> Damage:
    """A tokenizer.model of this content, and no tokenizer.json."""

    def damage(target: Path, drafter: Path) -> None:
        written(content, size)(target, drafter)
        (target / NAME).rename(target / MODEL)

    return damage


MODEL = "tokenizer.model"
OF_SENTENCEPIECE = [
    Fault("empty", sentencepiece(b""), (MODEL, "expected 1 to 4,194,304 pieces, found 0")),
    Fault("json", sentencepiece(b'{"version": "1.0"}'), (MODEL, "is not a SentencePiece model")),
    Fault("zeros", sentencepiece(bytes(100)), (MODEL, "is not a SentencePiece model")),
    Fault("endless", sentencepiece(b"\x0a\xff\xff\xff\xff\x0f"), (MODEL, "is not a SentenceP")),
    Fault("65_mib", sentencepiece(b"\n", 65 << 20), (MODEL, "at most 67,108,864 bytes")),
]


@each(OF_SENTENCEPIECE)
def test_a_damaged_tokenizer_model_is_refused_by_name(fault, tmp_path):
    check(fault, tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.bin"])
def test_a_tokenizer_of_another_format_is_not_tried(name, tmp_path):
    def damage(target: Path, drafter: Path) -> None:
        (target / NAME).rename(target / name)

    check(Fault(name, damage, (NAME, "No such file")), tmp_path)
