"""Pairs as users have them: the target by mlx_lm.convert, the drafter by us."""

import contextlib
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mtp_mlx.backends import Pair as Found
from mtp_mlx.conversion.convert import Conversion, convert
from mtp_mlx.conversion.output import Output
from mtp_mlx.conversion.plan import Plan
from mtp_mlx.quantization import QuantSpec
from tests.quantised.sources import source_pair

# How mlx_lm.convert is asked to store a target: its own keywords.
SETTINGS: dict[str, dict[str, Any]] = {
    "4_bits_of_32": {"q_bits": 4, "q_group_size": 32},
    "4_bits_of_64": {"q_bits": 4, "q_group_size": 64},
    "8_bits_of_32": {"q_bits": 8, "q_group_size": 32},
    "8_bits_of_64": {"q_bits": 8, "q_group_size": 64},
    "mixed_2_6": {"quant_predicate": "mixed_2_6", "q_group_size": 32},
    "mixed_3_6": {"quant_predicate": "mixed_3_6", "q_group_size": 64},
    "mixed_4_6": {"quant_predicate": "mixed_4_6", "q_group_size": 64},
    "mxfp4": {"q_mode": "mxfp4"},
    "mxfp8": {"q_mode": "mxfp8"},
    "nvfp4": {"q_mode": "nvfp4"},
}


def run_mlx_lm(source: Path, folder: Path, **settings: Any) -> None:
    """mlx_lm.convert -q, without what it prints."""
    from mlx_lm.convert import convert as theirs  # imports transformers, which takes seconds

    with contextlib.redirect_stdout(io.StringIO()):
        theirs(str(source), str(folder), quantize=True, **settings)


def run_ours(
    source: tuple[Path, Path | None], folder: Path, target: Plan, drafter: Plan | None = None
) -> Conversion:
    """Our own conversion."""
    plans = target, drafter or Plan()
    return convert(Found(*source, None), folder, plans, Output(), lambda message: None)


@cache
def _converted(variant: str, name: str, bits: int) -> tuple[TemporaryDirectory, tuple[Path, Path]]:
    home = TemporaryDirectory()
    folder = Path(home.name)
    source = source_pair(folder, variant)
    run_mlx_lm(source[0], folder / "theirs", **SETTINGS[name])
    how = QuantSpec(64, bits, "affine")
    run_ours(source, folder / "ours", Plan(), Plan(default=how, head=how))
    return home, (folder / "theirs", folder / "ours-assistant")


def converted(variant: str, name: str, bits: int) -> tuple[Path, Path]:
    """Target by mlx_lm.convert, drafter by us to `bits`, its head too. Not to be changed."""
    return _converted(variant, name, bits)[1]


def section_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of every module that has its own, in full."""
    section = config["quantization"]
    return {path: value for path, value in section.items() if isinstance(value, dict)}
