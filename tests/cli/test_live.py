"""A reply on the terminal while it is written: what a terminal shows of it in the end."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mtp_mlx.cli import live
from mtp_mlx.cli.live import PlainView, StyledView
from mtp_mlx.cli.screen import Screen

CODES = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[[\d;]*m|(\r)|(\n)|([^\x1b\r\n]+)")
PARTS = st.sampled_from(
    [
        *("word ", "a[i] * b[0] ", "**", "bold", "`x`", "\n", "\n\n", "- item ", "# head"),
        *(
            "```\n",
            "code line\n",
            "|a|b|\n|-|-|\n",
            "|1|2|\n",
            "long words that must wrap ",
            "表表表",
        ),
    ]
)


class Paper:
    """Obeys what a view writes, and keeps every row: carriage return, up, erase below, newline."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = 0

    def feed(self, text: str) -> None:
        for match in CODES.finditer(text):
            count, letter, back, newline, plain = match.groups()
            if letter == "A":
                self.row -= int(count or 1)
                assert self.row >= 0, "above the first row"
            elif letter in ("J", "K"):
                del self.rows[self.row + 1 :]
                self.rows[self.row] = ""
            elif newline:
                self.row += 1
                if self.row == len(self.rows):
                    self.rows.append("")
            elif plain and not back:
                self.rows[self.row] += plain


def screen_of(width: int, height: int) -> Screen:
    screen = Screen()
    screen.is_styled = True
    screen._console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, highlight=False
    )
    return screen


def drawn(parts: list[tuple[str, bool]], width: int, monkeypatch, **options) -> Paper:
    """All parts, a frame after each."""
    paper = Paper()
    monkeypatch.setattr(live, "_write", paper.feed)
    monkeypatch.setattr(live, "FRAME_S", 0.0)
    monkeypatch.setattr(live, "FRAME_SHARE", 0.0)
    asked = {"with_drafts": True, "shows_thinking": True, **options}
    view = StyledView(screen_of(width, 500), **asked)
    view.wait("reading 7 tokens")
    for text, is_draft in parts:
        view.add(text, is_draft, "content")
        view.draw()
    view.end()
    return paper


def test_a_frame_waits_for_four_times_what_the_last_one_took_parsing_too(monkeypatch):
    now, looks = [100.0], []

    class Slow(live.MarkdownStream):
        def open_lines(self):
            now[0] += 1.0
            looks.append(now[0])
            return super().open_lines()

    monkeypatch.setattr(live, "MarkdownStream", Slow)
    monkeypatch.setattr(live.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(live, "_write", lambda text: None)
    view = StyledView(screen_of(40, 20), with_drafts=True, shows_thinking=True)
    for _ in range(100):
        view.add("word ", False, "content")
        view.draw()
        now[0] += 0.1
    assert len(looks) <= 3


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.lists(PARTS, max_size=15), st.integers(12, 60))
def test_frames_leave_what_one_frame_would(parts, width):
    with pytest.MonkeyPatch.context() as monkeypatch:
        framed = drawn([(part, False) for part in parts], width, monkeypatch)
        once = drawn([("".join(parts), False)], width, monkeypatch)
    assert framed.rows == once.rows
    assert "reading" not in "".join(framed.rows)
    assert framed.rows[framed.row] == "", "the cursor is at the begin of a row"


def test_rows_that_do_not_change_are_written_once(monkeypatch):
    written: list[str] = []
    paper = Paper()
    monkeypatch.setattr(live, "FRAME_S", 0.0)
    monkeypatch.setattr(live, "FRAME_SHARE", 0.0)
    monkeypatch.setattr(live, "_write", lambda text: (written.append(text), paper.feed(text)))
    view = StyledView(screen_of(40, 24), with_drafts=True, shows_thinking=True)
    for number in range(50):
        view.add(f"row {number}\n", False, "content")
        view.draw()
    view.end()
    assert [row for row in paper.rows if row] == [f"row {number}" for number in range(50)]
    assert all("".join(written).count(f"row {number}\n") <= 2 for number in range(50))


def test_rows_that_have_left_the_screen_stay(monkeypatch):
    paper = Paper()
    monkeypatch.setattr(live, "_write", paper.feed)
    monkeypatch.setattr(live, "FRAME_S", 0.0)
    monkeypatch.setattr(live, "FRAME_SHARE", 0.0)
    view = StyledView(screen_of(40, 6), with_drafts=True, shows_thinking=True)
    view.add("**" + "".join(f"row {number}\n" for number in range(20)), False, "content")
    view.draw()
    top = len(paper.rows) - 6
    before = paper.rows[:top]
    view.add("end**", False, "content")  # all rows become bold, and lose the marks
    view.draw()
    view.end()
    assert paper.rows[:top] == before
    assert paper.rows[-2] == "end"


def test_frames_are_not_drawn_faster_than_they_can_be_read(monkeypatch):
    frames = []
    monkeypatch.setattr(live, "_write", frames.append)
    monkeypatch.setattr(live, "FRAME_S", 1000.0)
    view = StyledView(screen_of(40, 24), with_drafts=True, shows_thinking=True)
    monkeypatch.setattr(view, "_drawn", live.time.perf_counter())
    for _ in range(100):
        view.add("word ", False, "content")
        view.draw()
    assert frames == []
    view.end()
    assert len(frames) == 2


@pytest.mark.parametrize("kind", [StyledView, PlainView])
@pytest.mark.parametrize("shows", [True, False])
def test_thoughts_are_shown_apart_or_not_at_all(kind, shows, monkeypatch, capsys):
    paper = Paper()
    monkeypatch.setattr(live, "_write", paper.feed)
    if kind is StyledView:
        view = StyledView(screen_of(60, 24), with_drafts=True, shows_thinking=shows)
    else:
        view = PlainView(shows_thinking=shows)
    view.add("let me see", False, "reasoning")
    view.add("It is 5.", False, "content")
    view.end()
    text = "\n".join(paper.rows) + capsys.readouterr().out
    assert "It is 5." in text
    assert ("let me see" in text) == shows


def test_a_part_that_says_nothing_leaves_no_row(monkeypatch):
    paper = Paper()
    monkeypatch.setattr(live, "_write", paper.feed)
    view = StyledView(screen_of(60, 24), with_drafts=True, shows_thinking=True)
    for text, kind in (("", "reasoning"), ("It is 5.", "content"), ("", "reasoning")):
        view.add(text, False, kind)
    view.end()
    assert paper.rows == ["It is 5.", ""]


def test_a_plain_view_makes_control_characters_visible(capsys):
    view = PlainView(shows_thinking=True)
    view.wait("reading")
    view.add("\x1b[31mred **b**", True, "content")
    view.end()
    assert capsys.readouterr().out == "␛[31mred **b**\n"


def test_nothing_said_leaves_nothing(monkeypatch):
    assert drawn([], 40, monkeypatch).rows == [""]
