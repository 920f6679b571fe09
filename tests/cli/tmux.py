"""A terminal to drive and look at: tmux with a server of its own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0
POLL_S = 0.05
STYLE = re.compile(r"\x1b\[[0-9;]*m")
ENDED = "left with"

needs_tmux = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="tmux is not installed: chat was not driven on a terminal"
)


class Terminal:
    """One window that runs one command after the other. Close it."""

    def __init__(self, folder: Path, width: int = 80, height: int = 24, **environment: str) -> None:
        self.folder = folder
        self._socket = str(folder / "tmux")
        folders = {name: str(folder / name) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME")}
        wanted = {"PYTHONPATH": str(ROOT), "MTP_MLX_CALIBRATION": "off", "LANG": "C.UTF-8"}
        inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        self._environment = {**inherited, **wanted, **folders, **environment}
        size = ["-x", str(width), "-y", str(height)]
        shell = ["env", "PS1=ready$ ", "sh"]
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "t", *size, *shell)
        self.wait("ready$")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-S", self._socket, *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=LIMIT_S
        )
        assert result.returncode == 0, (arguments, result.stderr)
        return result.stdout

    def close(self) -> None:
        self._tmux("kill-server")

    def run(self, *arguments: str) -> None:
        """Start a Python program in the window."""
        line = shlex.join([sys.executable, *arguments])
        self.keys(f"clear; {line}; echo {ENDED} $?", "Enter")

    def chat(self, *arguments: str) -> None:
        """Start a chat, and wait for its prompt."""
        self.run("-m", "mtp_mlx", "chat", *arguments)
        self.wait("/help for more", at_prompt=True)

    def keys(self, *keys: str) -> None:
        """Text that is typed, or names of keys."""
        self._tmux("send-keys", "-t", "t", *keys)

    def type(self, text: str) -> None:
        """Text and Enter."""
        self._tmux("send-keys", "-t", "t", "-l", text)
        self.keys("Enter")

    def paste(self, text: str) -> None:
        """Text from the clipboard, in brackets where the program wants them."""
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p", "-t", "t")

    def resize(self, width: int, height: int) -> None:
        self._tmux("resize-window", "-t", "t", "-x", str(width), "-y", str(height))

    @property
    def styled(self) -> str:
        """The screen and what has left it, with style codes."""
        return self._tmux("capture-pane", "-p", "-e", "-J", "-S", "-", "-t", "t")

    @property
    def text(self) -> str:
        """The same without."""
        return STYLE.sub("", self.styled)

    @property
    def screen(self) -> str:
        """The rows of the screen, as they are wrapped."""
        return self._tmux("capture-pane", "-p", "-t", "t")

    def wait(self, wanted: str, at_prompt: bool = False) -> str:
        """Until a text is there; and, at_prompt, the chat waits for a message."""
        return self.wait_for(
            lambda text: wanted in text and (not at_prompt or text.rstrip().endswith("›")), wanted
        )

    def wait_for(self, is_there: Callable[[str], bool], what: str = "") -> str:
        end = time.monotonic() + LIMIT_S
        while not is_there(text := self.text):
            assert time.monotonic() < end, f"{what!r} never came:\n{text}"
            time.sleep(POLL_S)
        return text

    def code(self) -> int:
        """The exit code of the program, once it has ended."""
        text = self.wait_for(lambda text: re.search(rf"^{ENDED} \d+", text, re.M) is not None)
        return int(re.findall(rf"^{ENDED} (\d+)", text, re.M)[-1])
