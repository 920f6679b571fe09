"""Markdown of a chat: any split of a text gives the same lines, and nothing of it is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.chat import markdown
from mtp_mlx.chat.blocks import MARKS
from mtp_mlx.chat.markdown import MarkdownStream
from mtp_mlx.chat.pieces import Line

PARTS = st.sampled_from(
    [
        *("a", "b c", "x1", "*", "**", "_", "__", "~~", "`", "``", "```", "~~~\n", "\\", "\\*"),
        *("\n", "\n\n", "- ", "\n- ", "  - ", "1. ", "> ", "\n> ", "# ", "    ", "\t", " "),
        *("|", "|-|-|\n", "a|b\n", "---\n", "===\n", "[i]", "[/bold]", "[a]: b\n", "![x](y)"),
        *("<b>", "&amp;", "https://x.y", "😀", "é", "$", "!", "```py\n", "\n```\n", "\u2028"),
    ]
)
TEXTS = st.lists(PARTS, max_size=25).map("".join)


def whole(text: str) -> list[Line]:
    stream = MarkdownStream()
    stream.push(text)
    return stream.finish()


def split(text: str, sizes: list[int]) -> list[Line]:
    """Pushed in parts of these sizes, over and over, everything looked at on the way."""
    stream, lines, at, turn = MarkdownStream(), [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        stream.push(text[at : at + size])
        lines += stream.take()
        stream.open_lines()
        at, turn = at + size, turn + 1
    return lines + stream.finish()


def shown(text: str) -> str:
    return "\n".join(line.text for line in whole(text))


def kept(text: str) -> str:
    return "".join(each for each in text if each not in MARKS and not each.isspace())


@settings(derandomize=True, max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_any_split_gives_the_same_lines(text, sizes):
    assert split(text, sizes) == whole(text)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(TEXTS)
def test_nothing_but_marks_is_lost(text):
    assert kept(shown(text)) == kept(text)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.tuples(PARTS, st.booleans()), max_size=20))
def test_a_character_keeps_its_origin(parts):
    # Drafts are in capitals, all else is not: marks and code change no letter.
    stream = MarkdownStream()
    for text, is_draft in parts:
        stream.push(text.upper() if is_draft else text.lower(), is_draft)
    for line in stream.finish():
        for piece in line.pieces:
            text = piece.text
            if "label" not in piece.styles and text.upper() != text.lower():
                assert text == (text.upper() if piece.is_draft else text.lower())


@pytest.mark.parametrize(
    "text",
    [
        *("a[i] * b[0]", "a[i]*b[0]*c", "x = y[/bold] + [bold]z[/]", "[i]: not a reference"),
        *("__init__", "2*x*y", "<b>bold</b> &amp; &lt;", "[text](http://x.y)"),
        *("\\( x \\) \\[ y \\]", "\\{ a \\} \\\\"),
        *("![image](x.png)", "snake_case_name and *", "<https://x.y>", "**open", "> ", "~~", "{a}"),
    ],
)  # fmt: skip
def test_what_is_no_markup_stays_as_it_is(text):
    assert shown(text).replace("│", ">").strip() == text.strip()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title", [("Title", {"heading"})]),
        ("some **bold** and *it*", ["some ", ("bold", {"bold"}), " and ", ("it", {"italic"})]),
        ("***both***", [("both", {"bold", "italic"})]),
        ("`a * b`", [("a * b", {"code"})]),
        ("`` a`b ``", [("a`b", {"code"})]),
        ("~~gone~~", [("gone", {"strike"})]),
        ("\\*plain\\*", ["*plain*"]),
        ("这是**重点**内容", ["这是", ("重点", {"bold"}), "内容"]),
    ],
)
def test_marks_become_styles(text, expected):
    (line,) = whole(text)
    found: list[tuple[str, frozenset[str]]] = []
    for piece in line.pieces:
        if found and found[-1][1] == piece.styles:
            found[-1] = (found[-1][0] + piece.text, piece.styles)
        else:
            found.append((piece.text, piece.styles))
    pairs = [(each, set()) if isinstance(each, str) else each for each in expected]
    assert [(text, set(styles)) for text, styles in found] == pairs


def test_lists_quotes_and_code_are_laid_out():
    text = (
        "- one\n- two\n  more\n  1. deep\n\n> said\n\n```py\ndef f(a):\n    return a[i]\n```\nend"
    )
    assert shown(text).split("\n") == [
        "• one",
        "• two",
        "  more",
        "  1. deep",
        "",
        "│ said",
        "",
        "py",
        "  def f(a):",
        "      return a[i]",
        "end",
    ]


def test_wrapped_lines_of_a_list_hang_below_its_text():
    first, second = whole("> - one\n>   two")
    assert (first.indent, first.hang) == ("│ • ", "│   ")
    assert (second.indent, second.hang) == ("│   ", "│   ")


def test_the_columns_of_a_table_are_aligned_by_cells():
    stream = MarkdownStream(lambda text: sum(2 if each > "⺀" else 1 for each in text))
    stream.push("| a | b |\n|---|---|\n| 表表 | **x** |\n")
    assert [line.text for line in stream.finish()] == ["a    │ b", "─────┼──", "表表 │ x"]


def test_a_table_with_a_cell_too_many_is_shown_as_it_is():
    text = "| a | b |\n|---|---|\n| 1 | 2 | 3 |"
    assert shown(text) == text


def test_what_nests_too_deep_is_shown_as_it_is():
    text = ">" * 60 + " deep"
    assert shown(text) == text


def test_text_is_parsed_when_it_is_looked_at_and_not_when_it_comes(monkeypatch):
    """A block of a thousand lines, parsed anew for each, took longer than the model."""
    parsed = []
    real = markdown.parser

    def counting():
        parsed.append(1)
        return real()

    monkeypatch.setattr(markdown, "parser", counting)
    stream = MarkdownStream()
    for number in range(100):
        stream.push(f"- item {number}\n")
    assert not parsed
    assert len(stream.take() + stream.finish()) == 100
    assert len(parsed) < 10


def test_only_the_last_block_is_open():
    stream = MarkdownStream()
    stream.push("first\n\nsecond\n\n**th\n")
    assert [line.text for line in stream.take()] == ["first", "", "second"]
    assert [line.text for line in stream.open_lines()] == ["", "**th"]
    stream.push("ird**")
    assert stream.take() == []
    assert [line.text for line in stream.finish()] == ["", "th", "ird"]


def test_a_line_that_may_still_change_ends_no_block():
    stream = MarkdownStream()
    stream.push("text\n---")
    assert stream.take() == []
    stream.push("x")
    assert [line.text for line in stream.finish()] == ["text", "---x"]
