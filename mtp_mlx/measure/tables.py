"""A report as tables, for a terminal or in Markdown."""

from collections.abc import Iterable, Sequence

from mtp_mlx.measure.figures import Ratio
from mtp_mlx.measure.report import PLAIN, Drafts, Line, Report

MS, MIB = 1e3, 1 << 20
UNKNOWN = "-"
WORDS = ("prompts", "drafts")  # columns of words

Row = Sequence[str]


def table(
    head: Row, rows: Iterable[Row], *, is_markdown: bool = False, words: Sequence[str] = WORDS
) -> str:
    """Columns as wide as they need; those named in `words` begin at their left, figures end at
    their right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    places = [str.ljust if name in words else str.rjust for name in head]
    filled = [
        [place(cell, width) for cell, width, place in zip(line, widths, places, strict=True)]
        for line in lines
    ]
    if not is_markdown:
        return "\n".join("  ".join(line).rstrip() for line in filled)
    rule = [":--" if name in words else "--:" for name in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in (filled[0], rule, *filled[1:]))


def describe(report: Report, *, is_markdown: bool = False) -> str:
    """All tables under what they belong to."""
    drafter = report.draft_model or "no drafter"
    note = "" if report.note is None else f"\nnote: {report.note}"
    parts = [f"{report.model}, {drafter}, {report.dtype}\n{report.where}{note}"]
    parts += [reading_table(report, is_markdown), decode_table(report, is_markdown)]
    if report.costs:
        parts.append(cost_table(report, is_markdown))
        parts.append(f"verify: {without_host(report)}, which is in the spread")
    decided = [_decision(line) for line in report.lines if line.decision is not None]
    if decided:
        parts.append("\n".join(decided))
    if report.server is not None:
        parts.append(f"server: {report.server}, over HTTP; the others in this process")
    return "\n\n".join(parts)


def reading_table(report: Report, is_markdown: bool) -> str:
    """Prompts by batch."""
    head = ("batch", "prompt", "prompt tok/s", "spread", "first token ms", "peak MiB")
    rows = [
        (
            str(each.rows),
            str(each.tokens),
            f"{each.tokens_per_s.median:.1f}",
            _percent(each.tokens_per_s.spread),
            f"{each.first_s * MS:.1f}",
            _mib(each.peak_bytes),
        )
        for each in report.readings
    ]
    return table(head, rows, is_markdown=is_markdown)


def decode_table(report: Report, is_markdown: bool) -> str:
    """Replies by batch, prompts and drafts."""
    has_server = report.server is not None
    head = [
        *("batch", "prompts", "drafts", "tok/s", "spread", "x plain"),
        *(("x server",) if has_server else ()),
        *("row tok/s", "first token ms", "accepted", "tok/round", "host", "host ms", "peak MiB"),
        "other text",
    ]
    rows = [_cells(line, has_server) for line in report.lines]
    return table(head, rows, is_markdown=is_markdown)


def _decision(line: Line) -> str:
    return f"auto at batch {line.rows}, {_prompts(line)}, at last: {line.decision}"


def _prompts(line: Line) -> str:
    return "identical" if line.is_alike else "distinct"


def _cells(line: Line, has_server: bool) -> Row:
    rounds, row_speed = line.rounds, line.row_tokens_per_s
    acceptance = None if rounds is None else rounds.acceptance
    return [
        str(line.rows),
        _prompts(line),
        spell(line.drafts),
        f"{line.tokens_per_s.median:.1f}",
        _percent(line.tokens_per_s.spread),
        _ratio(line.over_plain),
        *((_ratio(line.over_server),) if has_server else ()),
        UNKNOWN if row_speed is None else f"{row_speed:.1f}",
        f"{line.first_s * MS:.1f}",
        UNKNOWN if acceptance is None else f"{acceptance:.1%}",
        UNKNOWN if rounds is None else f"{rounds.tokens_per_round:.2f}",
        UNKNOWN if rounds is None else f"{rounds.host_share:.1%}",
        UNKNOWN if rounds is None else f"{rounds.host_s * MS:.3f}",
        _mib(line.peak_bytes),
        f"{line.num_different} of {len(line.texts)}",
    ]


def cost_table(report: Report, is_markdown: bool) -> str:
    """A verify by its tokens, over one of one token."""
    first = report.costs[0].seconds
    rows = [
        (
            str(point.tokens),
            f"{point.seconds * MS:.3f}",
            _percent(point.spread),
            f"{point.seconds / first:.2f}",
        )
        for point in report.costs
    ]
    return table(("verify N", "ms", "spread", "of N = 1"), rows, is_markdown=is_markdown)


def without_host(report: Report) -> str:
    """What the figures of a verify leave out."""
    return f"without the host's wait of {report.cost_host_s * MS:.3f} ms"


def spell(drafts: Drafts) -> str:
    """How a line's way to decode is called."""
    return "plain" if drafts == PLAIN else str(drafts)


def _ratio(ratio: Ratio | None) -> str:
    return UNKNOWN if ratio is None else str(ratio)


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share:.1%}"


def _mib(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / MIB:.1f}"
