"""Styled text: what Markdown becomes, and what a terminal prints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

Style = Literal["bold", "italic", "strike", "code", "heading", "label", "frame"]
Styles = frozenset[Style]
PLAIN: Styles = frozenset()


@dataclass(frozen=True)
class Piece:
    """Text of one look on one line; `is_draft`: the drafter proposed it."""

    text: str
    styles: Styles = PLAIN
    is_draft: bool = False


@dataclass(frozen=True)
class Line:
    """A line before it is wrapped: `indent` precedes it, `hang` its wrapped parts."""

    pieces: tuple[Piece, ...] = ()
    indent: str = ""
    hang: str = ""

    @property
    def text(self) -> str:
        return self.indent + "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Span:
    """Text with the place of its first character in the source; None: it is not from there."""

    text: str
    styles: Styles
    at: int | None

    def split(self, is_draft: Sequence[bool]) -> Iterator[Piece]:
        """Pieces of one origin each."""
        if self.at is None:
            yield Piece(self.text, self.styles)
            return
        places = range(self.at, self.at + len(self.text))
        flags = [place < len(is_draft) and is_draft[place] for place in places]
        for drafted, group in groupby(zip(flags, self.text, strict=True), key=lambda each: each[0]):
            yield Piece("".join(character for _, character in group), self.styles, drafted)


def lines_of(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans of each line; a newline inside a span ends one."""
    lines: list[list[Span]] = [[]]
    for span in spans:
        at = span.at
        for number, text in enumerate(span.text.split("\n")):
            if number:
                lines.append([])
            if text:
                lines[-1].append(Span(text, span.styles, at))
            if at is not None:
                at += len(text) + 1
    return lines
