"""README says what is true: its help block and its file tree equal reality."""

import re
from pathlib import Path

from click.testing import CliRunner

from mtp_mlx.cli.main import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block_after(mark: str) -> str:
    """The fenced block that follows `mark`."""
    return README.split(mark, 1)[1].split("```", 2)[1].strip("\n")


def test_the_help_block_is_what_the_command_prints():
    result = CliRunner().invoke(cli, ["generate", "--help"], prog_name="mtp-mlx", terminal_width=90)
    assert block_after("<!-- help: generate -->") == result.output.strip("\n")


def test_the_tree_names_every_module_and_no_other():
    tree = block_after("## Where things live")
    named = set(re.findall(r"\b[\w]+\.py\b", tree))
    real = {path.name for path in (ROOT / "mtp_mlx").rglob("*.py")} - {"__init__.py"}
    assert real <= named, f"not in README: {sorted(real - named)}"
    others = {path.name for path in (ROOT / "bench").rglob("*.py")}
    for folder in ("tests", "training"):
        others |= {path.name for path in (ROOT / folder).rglob("*.py")} | {"__init__.py"}
    assert named <= real | others, f"only in README: {sorted(named - real - others)}"
