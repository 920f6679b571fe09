"""A report as one picture: speed over batch sizes and over depths, and the cost of a verify."""

from pathlib import Path
from typing import TYPE_CHECKING

from mtp_mlx.errors import Unsupported
from mtp_mlx.measure.report import PLAIN, SERVER, Drafts, Line, Report
from mtp_mlx.measure.tables import MS, spell, without_host

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN, DPI = (15.0, 6.2), 110
# Told apart in print and by readers who do not see all colours (Okabe and Ito 2008).
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKS = "osD^vP*X"
HEADROOM = 1.15  # above the highest value
LEGEND_BELOW = -0.12  # of the height: nothing that is drawn lies under it
FAINT = 0.35  # of bars of spread, which may be long, and cross the curves


def check_plots() -> None:
    """Raises Unsupported where the library that draws is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise Unsupported(
            "plots need matplotlib; pip install 'mtp-mlx[plot]', or leave --plot out", param="plot"
        ) from error


def draw(report: Report, path: Path) -> None:
    """Write the picture as a PNG. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    drafter = report.draft_model or "no drafter"
    figure.suptitle(f"{report.model} with {drafter}, {report.dtype}", fontsize=13)
    figure.supxlabel(f"{report.where}; bars: spread of a repeat", fontsize=7, color="#555555")
    over_batch, over_depth, over_tokens = figure.subplots(1, 3)
    _over_batch(over_batch, report)
    _over_depth(over_depth, report)
    _costs(over_tokens, report)
    figure.savefig(path, format="png")


def _over_batch(axes: "Axes", report: Report) -> None:
    """A curve for each way to decode; dashed where all rows are asked the same."""
    kinds = list(dict.fromkeys(line.drafts for line in report.lines))
    for index, drafts in enumerate(kinds):
        for is_alike in (False, True):
            found = [
                line
                for line in report.lines
                if line.drafts == drafts and (line.is_alike == is_alike or line.rows == 1)
            ]
            if any(line.is_alike == is_alike for line in found):
                name = _name(drafts) + (", identical prompts" if is_alike else "")
                _curve(axes, [line.rows for line in found], found, index, name, is_alike)
    _ticks(axes, sorted({line.rows for line in report.lines}))
    _finish(axes, "Speed over batch size", "rows decoded together", "new tokens/s, all rows")


def _name(drafts: Drafts) -> str:
    if isinstance(drafts, str) or drafts == PLAIN:
        return spell(drafts)
    return "1 draft" if drafts == 1 else f"{drafts} drafts"


def _over_depth(axes: "Axes", report: Report) -> None:
    """A curve for each batch size, over fixed depths, and then auto by itself."""
    order = _ordered(report)
    for index, rows in enumerate(report.settings.batch_sizes):
        distinct = (line for line in report.lines if line.rows == rows and not line.is_alike)
        found = {line.drafts: line for line in distinct}
        fixed = [drafts for drafts in order if drafts != "auto"]
        name = f"batch {rows}"
        _curve(axes, list(range(len(fixed))), [found[d] for d in fixed], index, name)
        if "auto" in order:
            _curve(axes, [len(fixed)], [found["auto"]], index, None)
    axes.set_xticks(range(len(order)), [spell(drafts) for drafts in order])
    _finish(axes, "Speed over depth, distinct prompts", "drafts a round", "new tokens/s, all rows")


def _ordered(report: Report) -> list[Drafts]:
    """Fixed depths as they grow, auto last."""
    kinds = {line.drafts for line in report.lines} - {SERVER}
    return sorted(kinds, key=lambda drafts: (drafts == "auto", drafts if drafts != "auto" else 0))


def _curve(
    axes: "Axes",
    places: list[int],
    lines: list[Line],
    index: int,
    name: str | None,
    is_dashed: bool = False,
) -> None:
    """Medians with bars of one deviation."""
    speeds = [line.tokens_per_s for line in lines]
    colour = COLOURS[index % len(COLOURS)]
    axes.errorbar(
        places,
        [speed.median for speed in speeds],
        yerr=[speed.median * (speed.spread or 0.0) for speed in speeds],
        color=colour,
        ecolor=_faint(colour),
        marker=MARKS[index % len(MARKS)],
        linestyle="--" if is_dashed else "-",
        fillstyle="none" if is_dashed else "full",
        label=name,
    )


def _costs(axes: "Axes", report: Report) -> None:
    """Milliseconds of a verify over its tokens; what as many single steps would take, beside it."""
    if not report.costs:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no drafter, so nothing is verified", ha="center", va="center")
        return
    tokens = [point.tokens for point in report.costs]
    cost_ms = [point.seconds * MS for point in report.costs]
    host_s = report.cost_host_s  # it is in the spread
    spread_ms = [(point.seconds + host_s) * MS * point.spread for point in report.costs]
    axes.errorbar(
        tokens,
        cost_ms,
        yerr=spread_ms,
        color=COLOURS[1],
        ecolor=_faint(COLOURS[1]),
        marker="o",
        label="verify",
    )
    single = [count * cost_ms[0] for count in tokens]
    axes.plot(tokens, single, color=COLOURS[7], linestyle=":", label="N single steps")
    axes.set_xscale("log", base=2)
    _ticks(axes, [count for count in tokens if count & (count - 1) == 0])
    _finish(
        axes, "Cost of a verify", "tokens verified, N (all rows)", f"ms, {without_host(report)}"
    )
    axes.set_ylim(0, max(cost_ms) * HEADROOM)


def _faint(colour: str) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    return to_rgba(colour, FAINT)


def _ticks(axes: "Axes", places: list[int]) -> None:
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()


def _finish(axes: "Axes", title: str, across: str, up: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, LEGEND_BELOW)}
    axes.legend(fontsize=8, frameon=False, handlelength=3.5, ncols=2, **place)
