"""The server's log: lines on stderr, plain or JSON; identifiers, counts and times, never a text."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from mtp_mlx.text.visible import visible

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Plain(logging.Formatter):
    """`12:30:01 INFO message`; control characters are shown, a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        message = visible(record.getMessage()).replace("\n", "\\n")
        text = f"{time} {record.levelname:<7} {message}"
        return text if record.exc_info is None else f"{text}\n{_trace(self, record)}"


class Json(logging.Formatter):
    """An object a line. What is logged with extra={"fields": {...}} has keys of its own."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **vars(record).get("fields", {}),
        }
        if record.exc_info is not None:
            said["traceback"] = _trace(self, record)
        return json.dumps(said, default=str)


class ToLines(logging.Handler):
    """Hands every record on as lines."""

    def __init__(self, say: Callable[[bytes], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(self.format(record).encode("utf-8", "backslashreplace"))


def configure(handler: logging.Handler, level: str, *, as_json: bool) -> None:
    """All loggers of this process write to `handler`, and to nothing else."""
    handler.setFormatter(Json() if as_json else Plain())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # what it says of itself, we say too


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    assert record.exc_info is not None and not isinstance(record.exc_info, bool)
    lines = formatter.formatException(record.exc_info).splitlines()
    return "\n".join(visible(line) for line in lines)
