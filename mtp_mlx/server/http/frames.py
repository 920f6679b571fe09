"""Server-sent events: frames of data, and comments, which clients skip.

The library for these frames changes uvicorn's Server when it is imported, in whatever process that
is, and ends every open stream at once when the server is asked to exit; ours drain.
"""

import json
from typing import Any

EVENT_STREAM = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def frame(data: dict[str, Any]) -> bytes:
    """One event. JSON has no line break of its own."""
    return b"data: " + json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n\n"


def comment(text: str) -> bytes:
    """A comment line; `text` is ours, of one line."""
    return f": {text}\n\n".encode()
