"""F9: a reply made of escape sequences reaches a terminal as text, in each of its parts."""

import pytest

from mtp_mlx.cli.terminal import dim, painted, tint, unmarked
from mtp_mlx.text.visible import visible
from tests.text.replies import replay, tokenizer

ATTACKS = {
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;b3duZWQ=\x1b\\",
    "c1": "\x9b31m\x90q\x9c\x9d0;x\x9c",
    "bells": "\x07\x08\x7f\x0b\x0c\r",
    "bidi": "\u202egnp.exe\u2066\u2069",
}


def is_safe(text: str) -> bool:
    """No control character but newline and tab, no mark that turns text round."""
    return not any(
        (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066\u2069"
        for c in text
    )


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("frame", ["%s", "<|channel>thought\n a%s b<channel|>", "%sé"])
def test_escapes_of_a_reply_are_shown_and_the_exact_text_is_kept(attack, frame):
    before, after = frame.split("%s")
    ids = [
        *tokenizer().encode_template(before),
        *tokenizer().encode(attack),
        *tokenizer().encode_template(after),
    ]
    whole = replay(ids)
    assert attack in whole.reply.text + whole.reply.reasoning
    for cuts in ((), range(1, len(ids)), range(1, len(ids), 3)):
        chunks = replay(ids, cuts).chunks
        for mark in (tint, dim, unmarked):
            shown = "".join(painted(chunk, mark, is_all=True) for chunk in chunks)
            assert is_safe(shown.replace("\x1b[36m\x1b[4m", "").replace("\x1b[2m", "").replace(
                "\x1b[0m", ""
            ))  # fmt: skip
        shown = "".join(painted(chunk, unmarked) for chunk in chunks)
        assert shown == visible(whole.reply.reasoning + whole.reply.text)
