"""A Markdown block as lines: paragraphs, headings, lists, quotes, code, tables.

Whatever the parser makes of a block, every letter, digit and bracket of it is on the lines, in
order; where that would not be so, the block's source is shown as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markdown_it.token import Token

from mtp_mlx.chat.inline import Lost, inline_spans, parser
from mtp_mlx.chat.pieces import PLAIN, Line, Piece, Span, Styles, lines_of

BULLET, QUOTE, RULE, BAR = "• ", "│ ", "─" * 24, " │ "
# What marks up, and what stands for it; all else must be kept.
MARKS = frozenset("*_`~#>|\\-+:•│─┼")
FRAMES = ("list_item_open", "list_item_close", "blockquote_open", "blockquote_close")
TAB = " " * 4

Measure = Callable[[str], int]


@dataclass
class Container:
    """A list item or quote that lines stand in; `first` precedes the first of them."""

    first: str
    rest: str
    is_begun: bool = False


def block_lines(source: str, is_draft: Sequence[bool], measure: Measure) -> list[Line]:
    """The lines of some whole blocks. `measure`: how many cells of a terminal a text takes."""
    try:
        lines = _Blocks(source, is_draft, measure).lines()
    except Lost:
        return _plain(source, is_draft)
    shown = "".join(line.text for line in lines)
    return lines if _kept(shown) == _kept(source) else _plain(source, is_draft)


def _kept(text: str) -> str:
    return "".join(each for each in text if each not in MARKS and not each.isspace())


def _plain(source: str, is_draft: Sequence[bool]) -> list[Line]:
    """The source itself, without blank lines at either end."""
    start = len(source) - len(source.lstrip("\n"))
    spans = [Span(source.strip("\n"), PLAIN, start)]
    return [_line(each, is_draft, "", "") for each in lines_of(spans)]


def _line(spans: Sequence[Span], is_draft: Sequence[bool], indent: str, hang: str) -> Line:
    pieces = [piece for span in spans for piece in span.split(is_draft)]
    tabless = [Piece(p.text.replace("\t", TAB), p.styles, p.is_draft) for p in pieces]
    return Line(tuple(tabless), indent, hang)


class _Blocks:
    """Walks the parser's tokens."""

    def __init__(self, source: str, is_draft: Sequence[bool], measure: Measure) -> None:
        self._is_draft = is_draft
        self._measure = measure
        self._rows = source.split("\n")
        self._starts = [0]
        for row in self._rows:
            self._starts.append(self._starts[-1] + len(row) + 1)
        self._tokens = parser().parse(source)
        self._containers: list[Container] = []
        self._lines: list[Line] = []
        self._styles: Styles = PLAIN

    def lines(self) -> list[Line]:
        index = 0
        while index < len(self._tokens):
            index = self._take(index)
        return self._lines

    def _take(self, index: int) -> int:
        """One token, or a whole table; the index of the next."""
        token = self._tokens[index]
        if token.nesting >= 0 and token.map is not None and token.type != "inline":
            self._space(token.map[0])
        if token.type in FRAMES:
            self._frame(token)
            return index + 1
        match token.type:
            case "heading_open":
                self._styles = frozenset({"heading"})
            case "heading_close":
                self._styles = PLAIN
            case "inline":
                for spans in lines_of(list(self._inline(token))):
                    self._emit(spans)
            case "fence" | "code_block":
                self._code(token)
            case "hr":
                self._emit([Span(RULE, frozenset({"frame"}), None)])
            case "table_open":
                return self._table(index)
        return index + 1

    def _frame(self, token: Token) -> None:
        """A list item or quote begins or ends."""
        match token.type:
            case "list_item_open":
                first = f"{token.info}{token.markup} " if token.info else BULLET
                self._containers.append(Container(first, " " * len(first)))
            case "blockquote_open":
                self._containers.append(Container(QUOTE, QUOTE))
            case _:
                if not self._containers[-1].is_begun:
                    self._emit([])
                self._containers.pop()

    def _space(self, row: int) -> None:
        """A blank line where the source has one before this row, between two lines."""
        is_blank = row > 0 and not self._rows[row - 1].strip(" \t>")
        if is_blank and self._lines and self._lines[-1].pieces:
            self._lines.append(Line((), "".join(each.rest for each in self._containers).rstrip()))

    def _emit(self, spans: Sequence[Span]) -> None:
        indent = ""
        for each in self._containers:
            indent += each.rest if each.is_begun else each.first
            each.is_begun = True
        hang = "".join(each.rest for each in self._containers)
        self._lines.append(_line(spans, self._is_draft, indent, hang))

    def _code(self, token: Token) -> None:
        assert token.map is not None
        if token.info.strip():
            self._emit([Span(token.info.strip(), frozenset({"label"}), None)])
        first = token.map[0] + (token.type == "fence")
        for number, text in enumerate(token.content.removesuffix("\n").split("\n")):
            at = self._place(first + number, text)
            self._emit([Span("  ", PLAIN, None), Span(text, frozenset({"code"}), at)])

    def _inline(self, token: Token, begin: int = 0) -> Iterator[Span]:
        """`begin`: the column from which its first line is looked for."""
        assert token.map is not None
        content, row = token.content, token.map[0]
        texts = content.split("\n")
        places = [
            self._place(row + n, text, begin if n == 0 else 0) for n, text in enumerate(texts)
        ]

        def place(at: int) -> int | None:
            number = content.count("\n", 0, at)
            start = places[number]
            return None if start is None else start + at - (content.rfind("\n", 0, at) + 1)

        return inline_spans(content, token.children or [], place, self._styles)

    def _place(self, row: int, text: str, begin: int = 0) -> int | None:
        """Where a line's text is in the source: at its end, as what contains it comes before."""
        if row >= len(self._rows):
            return None
        whole = self._rows[row]
        found = whole.find(text, begin) if begin else whole.rstrip().rfind(text.rstrip())
        return None if found < 0 else self._starts[row] + found

    def _table(self, index: int) -> int:
        """A table with aligned columns; the index behind it."""
        rows: list[list[list[Span]]] = []
        begin = 0
        while (token := self._tokens[index]).type != "table_close":
            if token.type == "tr_open":
                rows.append([])
                begin = 0
            elif token.type == "inline":
                self._styles = frozenset({"bold"}) if len(rows) == 1 else PLAIN
                cell = list(self._inline(token, begin))
                begin = self._column(token, begin)
                rows[-1].append(cell)
            index += 1
        self._styles = PLAIN
        widths = [max(map(self._width, column)) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            self._emit(self._row(row, widths))
            if number == 0:
                rule = "─┼─".join("─" * width for width in widths)
                self._emit([Span(rule, frozenset({"frame"}), None)])
        return index + 1

    def _column(self, token: Token, begin: int) -> int:
        """The column behind a cell's text."""
        assert token.map is not None
        found = self._rows[token.map[0]].find(token.content, begin)
        return begin if found < 0 else found + len(token.content)

    def _width(self, cell: Sequence[Span]) -> int:
        return self._measure("".join(span.text for span in cell))

    def _row(self, row: Sequence[Sequence[Span]], widths: Sequence[int]) -> list[Span]:
        return list(self._spaced(row, widths))

    def _spaced(self, row: Sequence[Sequence[Span]], widths: Sequence[int]) -> Iterator[Span]:
        bar = Span(BAR, frozenset({"frame"}), None)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            if number:
                yield bar
            yield from cell
            if number < len(row) - 1:
                yield Span(" " * (width - self._width(cell)), PLAIN, None)
