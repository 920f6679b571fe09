"""Random pairs of the five variants whose every matrix quantises: rows are multiples of 64.

They are what a converter is given: float checkpoints as published, with fused experts and two
tensors of a vision tower.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mtp_mlx.config import read_drafter, read_target
from mtp_mlx.shapes import Shapes, drafter_shapes, target_shapes
from tests.bad_input.files import WEIGHTS, Pair, Tensors, copy_pair, write_tensors
from tests.golden import recipe

SEED = 7
WIDTHS = {"hidden_size": 64, "intermediate_size": 128}
EXTRA_WIDTHS = {
    "e2b": {"hidden_size_per_layer_input": 64},
    "e4b": {"hidden_size_per_layer_input": 64},
    "26b": {"moe_intermediate_size": 64},
}


def source_pair(
    folder: Path,
    variant: str,
    layout: str = "hf",
    dialect: str = "classic",
    vocab_size: int = 256,
) -> Pair:
    """A copy of the variant's pair below `folder`, NAME and NAME-assistant, to do with at will."""
    target, drafter = _written(variant, layout, dialect, vocab_size)[1]
    copies = folder / "source", folder / "source-assistant"
    shutil.copytree(target, copies[0])
    shutil.copytree(drafter, copies[1])
    return copies


@cache
def _written(
    variant: str, layout: str, dialect: str, vocab_size: int
) -> tuple[TemporaryDirectory, Pair]:
    home = TemporaryDirectory()
    pair = copy_pair(Path(home.name), variant, layout, dialect)
    for folder, role in zip(pair, ("target", "drafter"), strict=True):
        top = json.loads((folder / "config.json").read_text())
        text = top.get("text_config", top)
        text["vocab_size"] = vocab_size
        text |= WIDTHS | (EXTRA_WIDTHS.get(variant, {}) if role == "target" else {})
        if role == "target":  # mlx-lm has 262,144 where the top level says nothing
            top["vocab_size"] = text["vocab_size"]
        (folder / "config.json").write_text(json.dumps(top))
        write_tensors(folder / WEIGHTS, _named(_draw(top, role, variant), role, layout))
    return home, pair


def _draw(top: dict[str, Any], role: str, variant: str) -> Tensors:
    manifest = {
        key: f"{'int64' if key.endswith('ordering') else 'float32'}{list(shape)}"
        for key, shape in _shapes(top, role).items()
    }
    return recipe.draw_weights(manifest, SEED, recipe.record(variant)[role]["scales"])


def _shapes(top: dict[str, Any], role: str) -> Shapes:
    if role == "drafter":
        return drafter_shapes(read_drafter(top, "drafter"))
    return target_shapes(read_target(top, "target"))


def _named(weights: Tensors, role: str, layout: str) -> Tensors:
    if role == "drafter":
        return recipe.named_drafter(weights)
    return recipe.named_target(weights if layout == "mlx" else fused(weights), layout)


def fused(weights: Tensors) -> Tensors:
    """Experts as published: gate and up in one tensor, no `.weight`."""
    found: Tensors = {}
    for key, value in weights.items():
        stem, _, last = key.partition(".switch_glu.")
        if last == "gate_proj.weight":
            up = weights[f"{stem}.switch_glu.up_proj.weight"]
            found[f"{stem}.gate_up_proj"] = np.concatenate([value, up], axis=1)
        elif last == "down_proj.weight":
            found[f"{stem}.down_proj"] = value
        elif last != "up_proj.weight":
            found[key] = value
    return found
