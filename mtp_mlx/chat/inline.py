"""Emphasis and code inside a paragraph, each character with its place in the source.

Only marks of emphasis and code are taken away. Links, entities, HTML and references are no rules
here: they would hide what the model wrote, so that `a[i]` or `[/bold]` might be missing.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from mtp_mlx.chat.pieces import PLAIN, Span, Style, Styles

HIDING = ("link", "image", "autolink", "html_inline", "html_block", "entity", "reference")
# "Text, then ---" is meant as a line below the text, not as a heading.
UNEXPECTED = ("lheading", "text_join")
# A backslash before these goes; elsewhere it is a formula's: \( \[ \{ \\
ESCAPABLE = "*_`~#>|-+.!"
OPENING: dict[str, Style] = {"em_open": "italic", "strong_open": "bold", "s_open": "strike"}
CODE: Styles = frozenset({"code"})
BREAKS = ("softbreak", "hardbreak")
# Beside these a mark of emphasis is an operator.
BEFORE, AFTER = re.compile(r"[A-Za-z0-9)\]]"), re.compile(r"[A-Za-z0-9(\[]")
CLOSING = {name.replace("open", "close"): style for name, style in OPENING.items()}


@cache
def parser() -> MarkdownIt:
    """CommonMark and tables, without the rules that hide text."""
    made = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return made.disable([*HIDING, *UNEXPECTED])


class Lost(Exception):
    """The parser's tokens and the source do not agree; the source is shown instead."""


def inline_spans(
    content: str, tokens: Sequence[Token], place: Callable[[int], int | None], styles: Styles
) -> Iterator[Span]:
    """The spans of a paragraph. `place` gives the source's index for one of `content`."""
    starts = _starts(content, tokens)
    literal = _literal(content, tokens, starts)
    for index, (token, at) in enumerate(zip(tokens, starts, strict=True)):
        if index in literal:
            yield Span(token.markup, styles, place(at))
        elif token.type in OPENING:
            styles |= {OPENING[token.type]}
        elif token.type in CLOSING:
            styles -= {CLOSING[token.type]}
        elif token.type in BREAKS:
            yield Span("\n", PLAIN, place(at))
            blanks = len(content) - at - 1 - len(content[at + 1 :].lstrip(" \t"))
            yield Span(content[at + 1 : at + 1 + blanks], PLAIN, place(at + 1))
        elif token.type == "text_special":
            is_mark = token.content in ESCAPABLE
            text = token.content if is_mark else token.markup
            yield Span(text, styles, place(at + is_mark))
        else:
            look = styles | CODE if token.type == "code_inline" else styles
            yield Span(token.content, look, place(at))


def _starts(content: str, tokens: Sequence[Token]) -> list[int]:
    """Where each token's text begins. Raises Lost where that is not known."""
    starts, at = [], 0
    for token in tokens:
        if token.type in BREAKS:
            at = _find(content, "\n", at)
            starts.append(at)
            at += 1
        elif token.type == "code_inline":
            start, at = _code(content, token, at)
            starts.append(start)
        elif token.type == "text":
            at = _find(content, token.content, at)
            starts.append(at)
            at += len(token.content)
        else:
            starts.append(_find(content, token.markup, at))
            at = starts[-1] + len(token.markup)
    return starts


def _literal(content: str, tokens: Sequence[Token], starts: Sequence[int]) -> set[int]:
    """The marks of emphasis that are meant as they stand: products (`2*x*y`, `a[i]*b*c`) and names
    (`__init__`), which CommonMark takes for emphasis."""
    found: set[int] = set()
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token.type in OPENING:
            opened.append(index)
        elif token.type in CLOSING:
            first = opened.pop()
            begin, end = starts[first], starts[index] + len(token.markup)
            inner = content[begin + len(token.markup) : starts[index]]
            is_name = token.markup == "__" and inner.isidentifier()
            if is_name or BEFORE.match(content[begin - 1 : begin]) or AFTER.match(content[end:]):
                found |= {first, index}
    return found


def _find(content: str, text: str, at: int) -> int:
    found = content.find(text, at)
    if found < 0:
        raise Lost
    return found


def _code(content: str, token: Token, at: int) -> tuple[int, int]:
    """Where the code's text begins, and where its closing marks end."""
    start = at + len(token.markup)
    flat = content.replace("\n", " ")
    start = start if flat.startswith(token.content, start) else start + 1  # a space was stripped
    if not flat.startswith(token.content, start):
        raise Lost
    return start, _find(content, token.markup, start + len(token.content)) + len(token.markup)
