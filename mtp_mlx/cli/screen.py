"""The terminal of a chat: its width, how pieces look, our own notes and tables.

Model text is never markup: it is made visible first, and style codes of ours go around it.
"""

import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from mtp_mlx.chat.pieces import Line, Piece
from mtp_mlx.cli.terminal import can_style
from mtp_mlx.text.visible import visible

LOOKS = {
    "bold": Style(bold=True),
    "italic": Style(italic=True),
    "strike": Style(strike=True),
    "code": Style(color="yellow"),
    "heading": Style(bold=True, color="magenta"),
    "label": Style(dim=True),
    "frame": Style(dim=True),
}
DRAFT = Style(color="cyan", underline=True)
DIM = Style(dim=True)
# Cells left free at the right: terminals and Unicode tables differ about the width of some text.
SPARE_CELLS = 1
LEAST_CELLS = 10


class Screen:
    """Writes to stdout."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self.is_styled = can_style()

    @property
    def columns(self) -> int:
        return self._console.width

    @property
    def size(self) -> tuple[int, int]:
        """Cells of a row that are used, rows."""
        return max(self.columns - SPARE_CELLS, LEAST_CELLS), self._console.height

    def note(self, text: str) -> None:
        """A line of ours."""
        self._print(self.dim(text))

    def dim(self, text: str) -> Text:
        return Text(visible(text), DIM if self.is_styled else "")

    def quote(self, user: str) -> None:
        """A message that was sent before."""
        for number, row in enumerate(user.split("\n")):
            self.note(("› " if number == 0 else "… ") + row)

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Two columns, the second wrapped below itself."""
        width = max((cell_len(label) for label, _ in rows), default=0) + 2
        for label, text in rows:
            space = " " * (width - cell_len(label))
            line = Line((Piece(visible(text)),), visible(label) + space, " " * width)
            self._print(*self.rows(line, with_drafts=False))

    def _print(self, *rows: Text) -> None:
        for row in rows:
            self._console.print(row, soft_wrap=True)

    def rows(self, line: Line, *, with_drafts: bool, is_dim: bool = False) -> list[Text]:
        """A line wrapped to the terminal's width."""
        width = self.size[0]
        text = Text(style=DIM if is_dim else "", end="")
        for piece in line.pieces:
            look = Style.combine([Style(), *(LOOKS[name] for name in sorted(piece.styles))])
            text.append(piece.text, look + DRAFT if piece.is_draft and with_drafts else look)
        room = max(width - cell_len(line.hang), LEAST_CELLS)
        parts = text.wrap(self._console, room, overflow="fold") if line.pieces else [text]
        lead = Text(line.indent, DIM, end="")
        return [
            Text.assemble(lead if number == 0 else Text(line.hang, DIM), part, end="")
            for number, part in enumerate(parts)
        ]

    def ansi(self, row: Text) -> str:
        """A row as the terminal gets it."""
        with self._console.capture() as captured:
            self._console.print(row, end="", soft_wrap=True)
        return captured.get()
