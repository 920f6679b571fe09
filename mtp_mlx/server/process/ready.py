"""The ready file: how a program that starts a server learns its address, or why there is none.

It appears whole, for its owner alone, once the server answers. A file of an earlier run is removed
first, and this run's own when it ends well, so that nobody reads an address where nothing listens.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mtp_mlx import __version__
from mtp_mlx.errors import RequestError
from mtp_mlx.server.errors import body_of
from mtp_mlx.server.process.launch import Failed, Ready
from mtp_mlx.whole_file import write_whole

OWNER_ONLY = 0o600


@dataclass(frozen=True)
class ReadyFile:
    """The file at `path`; None: nobody wants one."""

    path: Path | None

    def remove(self) -> None:
        """Raises OSError where a file is there and stays; what is no file is left alone."""
        if self.path is not None and (self.path.is_file() or self.path.is_symlink()):
            with suppress(FileNotFoundError):
                self.path.unlink()

    def check(self) -> None:
        """Raises RequestError where something that is no file has the name."""
        if self.path is not None and self.path.exists() and not self.path.is_file():
            raise RequestError(
                f"--ready-file {str(self.path)!r} is there and is no file; name another",
                param="ready_file",
            )

    def say_ready(self, url: str, ready: Ready) -> None:
        """Raises OSError. The process named is this one: SIGTERM to it ends the server."""
        self._write({"url": url, "pid": os.getpid(), **asdict(ready), "version": __version__})

    def say_failed(self, failed: Failed, log: tuple[str, ...] = ()) -> None:
        """Raises OSError. `log`: what the engine's process said last, where that tells more."""
        error = body_of(failed.status, failed.code, failed.message, failed.param)["error"]
        self._write({"error": {**error, "exit_code": failed.exit_code, "log": list(log)}})

    def _write(self, content: dict[str, object]) -> None:
        if self.path is not None:
            write_whole(self.path, json.dumps(content) + "\n", OWNER_ONLY)
