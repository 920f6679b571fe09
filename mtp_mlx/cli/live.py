"""A reply on the terminal while it is written.

Of its Markdown only the last block may change, and of that only rows that differ are written again;
rows that have left the screen stay as they are.
"""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.cells import cell_len
from rich.text import Text

from mtp_mlx.chat.markdown import MarkdownStream
from mtp_mlx.chat.pieces import Line, Piece
from mtp_mlx.chat.settings import Settings
from mtp_mlx.cli.screen import Screen
from mtp_mlx.cli.terminal import ERASE_LINE
from mtp_mlx.text.calls import Kind
from mtp_mlx.text.visible import visible

ERASE_BELOW = "\x1b[J"
# A frame is drawn so long after the one before, and after so many times what that one took.
FRAME_S, FRAME_SHARE = 1 / 30, 4.0
THINKING = Line((Piece("thinking", frozenset({"label"})),))


class ReplyView(Protocol):
    """`add` text of one origin, `draw` what is there now, `end` with the cursor in column 0."""

    def wait(self, what: str) -> None: ...
    def add(self, text: str, is_draft: bool, kind: Kind) -> None: ...
    def draw(self) -> None: ...
    def end(self) -> None: ...


class PlainView:
    """Text as it comes, for a terminal that cannot move its cursor or wants no colours."""

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._kind: Kind = "content"
        self._last = "\n"

    def wait(self, what: str) -> None:
        """Such a terminal cannot take it back."""

    def add(self, text: str, is_draft: bool, kind: Kind) -> None:
        if not text or not (self._shows_thinking or kind == "content"):
            return
        if kind != self._kind:
            self.end()  # thoughts and reply are apart
        print(visible(text), end="")
        self._kind, self._last = kind, text[-1]

    def draw(self) -> None:
        print(end="", flush=True)

    def end(self) -> None:
        print(end="" if self._last == "\n" else "\n", flush=True)
        self._last = "\n"


class StyledView:
    """Markdown, drafts tinted."""

    def __init__(self, screen: Screen, *, with_drafts: bool, shows_thinking: bool) -> None:
        self._screen = screen
        self._with_drafts = with_drafts
        self._shows_thinking = shows_thinking
        self._kind: Kind | None = None
        self._stream = MarkdownStream(cell_len)
        self._final: list[Text] = []  # rows that are final and not drawn
        self._shown: list[Text] = []  # rows above the cursor that may change, and one before them
        self._done: list[Text] = []  # the last final row
        self._is_waiting = False
        self._drawn = self._took = 0.0

    def wait(self, what: str) -> None:
        """What is done before the first token, in a row that is taken back."""
        _write(self._screen.ansi(self._screen.dim(what[: self._screen.size[0]])))
        self._is_waiting = True

    def add(self, text: str, is_draft: bool, kind: Kind) -> None:
        if not text or not (self._shows_thinking or kind == "content"):
            return  # a part that says nothing is no part to set apart
        if kind != self._kind:
            self._change(kind)
        self._stream.push(visible(text), is_draft)

    def _change(self, kind: Kind) -> None:
        """Thoughts and reply are texts of their own."""
        before = self._kind
        self._keep(self._stream.finish())
        if before is not None:
            self._keep([Line()])
        self._stream, self._kind = MarkdownStream(cell_len), kind
        if kind == "reasoning":
            self._keep([THINKING])

    def draw(self) -> None:
        """Draw, unless the last frame is too young."""
        began = time.perf_counter()
        if began - self._drawn >= max(FRAME_S, FRAME_SHARE * self._took):
            self._keep(self._stream.take())
            self._paint(self._stream.open_lines())
            self._drawn = time.perf_counter()
            self._took = self._drawn - began

    def end(self) -> None:
        self._keep(self._stream.finish())
        self._paint([])
        _write("\n" if self._shown else "")

    def _keep(self, lines: list[Line]) -> None:
        self._final += self._rows(lines)

    def _rows(self, lines: list[Line]) -> list[Text]:
        is_dim = self._kind not in (None, "content")
        return [
            row
            for line in lines
            for row in self._screen.rows(line, with_drafts=self._with_drafts, is_dim=is_dim)
        ]

    def _paint(self, lines: list[Line]) -> None:
        """Bring the terminal from the rows it shows to those there are now."""
        open_rows = self._rows(lines)
        rows = [*self._done, *self._final, *open_rows]
        self._unwait()
        old, height = self._shown, self._screen.size[1]
        begin = max(_num_same(old, rows), len(old) - height + 1)
        if old and begin >= len(rows):
            begin = len(rows) - 1  # the cursor must end behind the last row
        if begin < max(len(old), len(rows)):
            text = "\n".join(map(self._screen.ansi, rows[begin:]))
            _write(self._moves(old, begin) + text)
        self._done = [*self._done, *self._final][-1:]
        self._shown = [*self._done, *open_rows]
        self._final = []

    def _unwait(self) -> None:
        if self._is_waiting:
            _write(ERASE_LINE)
        self._is_waiting = False

    def _moves(self, old: list[Text], begin: int) -> str:
        """To the begin of row `begin`, with all below erased; to a new row below the old ones. A
        terminal that became narrower shows a row in several."""
        if begin >= len(old):
            return "\n" if old else ""
        columns = self._screen.columns
        up = sum(max(-(-cell_len(row.plain) // columns), 1) for row in old[begin:]) - 1
        return "\r" + (f"\x1b[{up}A" if up else "") + ERASE_BELOW


def _num_same(old: list[Text], new: list[Text]) -> int:
    """How many rows both begin with."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(old), len(new)))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def reply_view(screen: Screen, settings: Settings) -> Generator[ReplyView]:
    """Shows one reply; the cursor is at the begin of a row before and after."""
    shows_thinking = not settings.hide_thinking
    view: ReplyView
    if screen.is_styled:
        tints = settings.color_drafts
        view = StyledView(screen, with_drafts=tints, shows_thinking=shows_thinking)
    else:
        view = PlainView(shows_thinking=shows_thinking)
    try:
        yield view
    finally:
        view.end()
