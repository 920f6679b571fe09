"""Server-sent events: frames of data, and comments, which clients skip.

The library for these frames changes uvicorn's Server when it is imported, in whatever process that
is, and ends every open stream at once when the server is asked to exit; ours drain.
"""

import json
from typing import Any

EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
# What JSON leaves as it is, and some readers of lines, Swift's and Python's, end a line at.
LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})


def frame(data: dict[str, Any]) -> bytes:
    """One event, on one line."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).translate(LINE_ENDS)
    return b"data: " + text.encode() + b"\n\n"


def comment(text: str) -> bytes:
    """A comment line; `text` is ours, of one line."""
    return f": {text}\n\n".encode()
