"""`mtp-mlx doctor`: checks of this machine, and how to mend what is wrong.

Exit code 1 where something is wrong that keeps a run from working.
"""

import json
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.options import (
    Grouped,
    draft_model_option,
    dtype_option,
    limit_option,
    loading_of,
    model_argument,
    option,
)

if TYPE_CHECKING:
    from mtp_mlx.doctor import Check

EXIT_UNSOUND = 1
MARKS = {"error": "wrong", "warning": "slow", "info": "note"}
MARK_WIDTH, ID_WIDTH = 7, 16


@click.command(cls=Grouped)
@model_argument
@draft_model_option
@dtype_option
@limit_option
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, as_json: bool, **given: Any) -> None:
    """Check this machine for MODEL (tiny when absent), and say how to mend what is wrong or slow.

    Versions, chip, memory, MLX's device, folders, power and heat, the calibration that is kept.
    Exit code 1 where something keeps a run from working.
    """
    loading = loading_of(given)
    from mtp_mlx.doctor import examine, is_sound

    found = examine(**loading)
    sound = is_sound(found)
    if as_json:
        print(json.dumps({"ok": sound, "checks": [check.to_json() for check in found]}))
    else:
        print("\n".join(map(_line, found)))
    if not sound:
        context.exit(EXIT_UNSOUND)


def _line(check: "Check") -> str:
    """One check, and its remedy below it where there is one to take."""
    mark = "ok" if check.ok else MARKS[check.severity]
    line = f"{mark:<{MARK_WIDTH}}{check.id:<{ID_WIDTH}}{check.observed}"
    if check.ok:
        return line
    expected = f"{'':<{MARK_WIDTH + ID_WIDTH}}expected: {check.expected}"
    return f"{line}\n{expected}\n{'':<{MARK_WIDTH + ID_WIDTH}}mend it:  {check.fix}"
