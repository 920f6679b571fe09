"""Text of a model made safe for a terminal: control characters are shown, not obeyed.

A reply may hold escape sequences that clear the screen, set its title or fill the clipboard, and
direction marks that show text in another order than it has. Each such character is replaced on its
own, so a stream may be split anywhere.
"""

KEPT = "\n\t"
PICTURES = 0x2400  # U+2400 is the picture of U+0000, and so on up to U+001F
DELETE, DELETE_PICTURE = 0x7F, 0x2421
C1_CONTROLS = range(0x80, 0xA0)
EMBEDDINGS_AND_OVERRIDES = range(0x202A, 0x202F)
ISOLATES = range(0x2066, 0x206A)

_SHOWN: dict[int, int | str] = {
    **{code: PICTURES + code for code in range(0x20) if chr(code) not in KEPT},
    DELETE: DELETE_PICTURE,
    **{code: f"\\u{{{code:x}}}" for code in (*C1_CONTROLS, *EMBEDDINGS_AND_OVERRIDES, *ISOLATES)},
}


def visible(text: str) -> str:
    r"""`text` with ESC as "␛", U+009B as "\u{9b}" and so on; newlines and tabs stay."""
    return text.translate(_SHOWN)
