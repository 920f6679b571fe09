"""Markdown as it is written: lines that are final, and those of the last block, which may change.

A block is final once a later one has begun on a whole line: what comes after cannot change it. So
only the last block is parsed again, when somebody looks, and any split of a text gives the same
lines in the end.
"""

from collections.abc import Sequence

from mtp_mlx.chat.blocks import Measure, block_lines
from mtp_mlx.chat.inline import parser
from mtp_mlx.chat.pieces import Line


class MarkdownStream:
    """Push text, take the final lines, look at the open ones. The text must be visible (see
    text.visible): nothing of it is obeyed here, and nothing is hidden."""

    def __init__(self, measure: Measure = len) -> None:
        """`measure`: how many cells of a terminal a text takes."""
        self._measure = measure
        self._source = ""  # the open block and what follows it
        self._is_draft: list[bool] = []
        self._final: list[Line] = []
        self._has_lines = False
        self._is_spaced = False  # a blank line stands before the open block

    def push(self, text: str, is_draft: bool = False) -> None:
        """More text of one origin."""
        self._source += text
        self._is_draft += [is_draft] * len(text)

    def take(self) -> list[Line]:
        """The lines that became final and were not taken before."""
        whole = self._source[: self._source.rfind("\n") + 1]
        self._freeze(_starts(whole)[-1])
        return self._taken()

    def _taken(self) -> list[Line]:
        taken, self._final = self._final, []
        return taken

    def open_lines(self) -> list[Line]:
        """The lines of the last block as it is now."""
        return self._lines(self._source, self._is_draft)

    def finish(self) -> list[Line]:
        """All lines that were not taken; the text has ended."""
        self._freeze(len(self._source))
        return self._taken()

    def _freeze(self, end: int) -> None:
        """Make all that comes before `end` final."""
        source = self._source[:end]
        lines = self._lines(source, self._is_draft[:end])
        if lines:
            self._final += lines
            self._has_lines = True
            self._is_spaced = _ends_blank(source)
        self._source, self._is_draft = self._source[end:], self._is_draft[end:]

    def _lines(self, source: str, is_draft: Sequence[bool]) -> list[Line]:
        """All blocks of a source, a blank line before each that has one there."""
        starts = _starts(source)
        found: list[Line] = []
        is_spaced = self._is_spaced
        for start, end in zip(starts, [*starts[1:], len(source)], strict=True):
            lines = block_lines(source[start:end], is_draft[start:end], self._measure)
            if lines and is_spaced and (found or self._has_lines):
                found.append(Line())
            found += lines
            is_spaced = _ends_blank(source[start:end])
        return found


def _starts(source: str) -> list[int]:
    """Where the blocks of a source begin; what comes before the first belongs to it."""
    tokens = parser().parse(source)
    rows = [t.map[0] for t in tokens if t.map is not None and not t.level and t.nesting >= 0]
    places = [0]
    for row in source.split("\n"):
        places.append(places[-1] + len(row) + 1)
    return [0, *(places[row] for row in rows[1:])]


def _ends_blank(source: str) -> bool:
    """Is its last whole row blank?"""
    rows = source.split("\n")
    return len(rows) > 1 and not rows[-2].strip(" \t>")
