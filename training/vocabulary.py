"""The embedded pairs' tokenizer: byte-fallback BPE of Gemma's form, learnt from the world's text.

Special tokens and newline have Gemma 4's ids, so that everything that knows them by number works
unchanged. Digits are single tokens and no piece spans a space, as in Gemma. Pieces are learnt on
words; the file then needs no pre-tokenizer, because no merge can cross a word's border.
"""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.gemma_files import NEWLINE_ID, SPACE, SPECIAL_TOKENS, tokenizer_json
from training.shapes import VOCAB_SIZE

# A word with its leading space; one digit; one character of anything else.
WORD = rf"{SPACE}?[A-Za-z]+|{SPACE}|[0-9]|\n|."


def learn(texts: Iterable[str]) -> dict[str, Any]:
    """tokenizer.json, its pieces learnt from `texts` (no special tokens in them)."""
    library = Tokenizer(models.BPE())
    library.normalizer = normalizers.Replace(" ", SPACE)
    library.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "isolated")
    num_pieces = VOCAB_SIZE - NEWLINE_ID - 1 - 256
    printable = [chr(code) for code in range(0x21, 0x7F)]
    trainer = trainers.BpeTrainer(
        vocab_size=num_pieces + 1,
        initial_alphabet=[SPACE, "\n", *printable],
        limit_alphabet=len(printable) + 2,
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    learnt = json.loads(library.to_str())["model"]
    return _arranged(list(learnt["vocab"]), [tuple(merge) for merge in learnt["merges"]])


def _arranged(pieces: list[str], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """tokenizer.json with special tokens, bytes, then pieces."""
    vocabulary = {**SPECIAL_TOKENS, "\n": NEWLINE_ID}
    taken = set(vocabulary.values())
    reserved = (i for i in range(NEWLINE_ID) if i not in taken)
    vocabulary |= {f"<unused{number}>": i for number, i in enumerate(reserved)}
    named = [f"<0x{byte:02X}>" for byte in range(256)]
    named += sorted((p for p in pieces if p not in vocabulary), key=lambda p: (len(p) > 1, p))
    vocabulary |= {piece: NEWLINE_ID + 1 + i for i, piece in enumerate(named)}
    if len(vocabulary) != VOCAB_SIZE:
        raise ValueError(f"{len(vocabulary)} pieces learnt for {VOCAB_SIZE} ids")
    return tokenizer_json(vocabulary, merges)
