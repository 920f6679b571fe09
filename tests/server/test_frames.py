"""Frames of a stream, as readers of lines take them apart."""

import json

from mtp_mlx.server.http.frames import frame


def test_an_event_is_one_line_to_every_reader():
    """Swift's `bytes.lines` and Python's `splitlines` end lines at these characters too."""
    text = "".join(map(chr, range(0x20))) + "a\x85b\u2028c\u2029d \u00fc\U0001f98a"
    data = frame({"text": text}).decode()
    assert len(data.splitlines()) == 2
    assert data.endswith("\n\n")
    assert json.loads(data.removeprefix("data: ")) == {"text": text}
    assert "\u00fc\U0001f98a" in data
