import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.text.visible import visible

HARMLESS = "plain\n\tté€日本\u0627\u0644\u05d0\U0001f468\u200d\U0001f469\U0001f1e9\U0001f1ea\u00a0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("\x9b31m", "\\u{9b}31m"),
        ("a\x00b\x7f\x08", "a␀b␡␈"),
        ("one\rtwo\r\n", "one␍two␍\n"),
        ("\u202egnp.exe\u2069", "\\u{202e}gnp.exe\\u{2069}"),
        (HARMLESS, HARMLESS),
        ("", ""),
    ],
)
def test_controls_are_shown_and_other_text_stays(text, shown):
    assert visible(text) == shown


def test_no_control_or_direction_mark_of_unicode_is_left():
    everything = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    left = {char for char in visible(everything) if unicodedata.category(char) == "Cc"}
    assert left == {"\n", "\t"}
    directions = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    assert directions.isdisjoint(map(unicodedata.bidirectional, visible(everything)))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(text=st.text(), cut=st.integers(0, 50))
def test_a_stream_may_be_split_anywhere(text, cut):
    assert visible(text[:cut]) + visible(text[cut:]) == visible(text)
    assert "".join(map(visible, text)) == visible(text)
    assert visible(visible(text)) == visible(text)
